//! Checks of the workspace itself: `cargo xtask check`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};

use serde_json::Value;

/// Which crate may use which, as in `docs/architecture.md`. A row points only at rows above it.
const EDGES: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sys", &["base"]),
    ("types", &["base"]),
    ("cel", &["types", "base"]),
    ("grpc", &["base"]),
    ("cri", &["grpc"]),
    ("store", &["grpc", "base"]),
    ("sealing", &["grpc", "store", "base"]),
    ("registry", &["types", "cel"]),
    ("auth", &["cel", "types", "base"]),
    ("admission", &["registry", "auth", "cel", "types", "base"]),
    ("apiserver", &["grpc", "store", "registry", "auth", "admission", "cel", "types", "base"]),
    ("client", &["types", "base"]),
    ("controllers", &["client", "types", "base"]),
    ("scheduler", &["client", "cel", "types", "base"]),
    ("metrics", &["client", "types", "base"]),
    ("image", &["sys", "base"]),
    ("runtime", &["image", "sys", "base"]),
    ("network", &["sys", "base"]),
    ("traffic", &["client", "network", "types", "base"]),
    ("volumes", &["client", "sys", "types", "base"]),
    ("streaming", &["runtime", "types", "base"]),
    ("cri-server", &["cri", "grpc", "streaming", "runtime", "image", "network", "types", "sys", "base"]),
    (
        "node",
        &[
            "streaming",
            "grpc",
            "client",
            "runtime",
            "image",
            "network",
            "volumes",
            "auth",
            "types",
            "sys",
            "base",
        ],
    ),
    ("engine", &["runtime", "network", "image", "base"]),
    ("dashboard", &["base"]),
];

/// May use everything, or are for development only.
const FREE: &[&str] = &["gantry", "testkit", "xtask", "bench", "e2e", "demo"];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => check(),
        _ => {
            eprintln!("usage: cargo xtask check");
            ExitCode::FAILURE
        }
    }
}

fn check() -> ExitCode {
    let faults = match edges() {
        Ok(used) => wrong_edges(&used),
        Err(why) => vec![why],
    };
    for fault in &faults {
        eprintln!("xtask: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The workspace's crates, each with the ones it uses outside tests.
fn edges() -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version=1", "--no-deps"]).output();
    let output = output.map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let used = packages.map(|package| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let local = dependencies.filter(|d| d["path"].is_string() && d["kind"] != "dev");
        let names = local.filter_map(|d| d["name"].as_str()).map(str::to_owned).collect();
        (package["name"].as_str().unwrap_or_default().to_owned(), names)
    });
    Ok(used.collect())
}

fn wrong_edges(used: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, targets) in used.iter().filter(|(name, _)| !FREE.contains(&name.as_str())) {
        match EDGES.iter().find(|(row, _)| row == name) {
            None => faults.push(format!("crate {name} has no row in the table of edges")),
            Some((_, allowed)) => {
                let wrong = targets.iter().filter(|t| !allowed.contains(&t.as_str()));
                faults.extend(wrong.map(|t| format!("crate {name} may not use {t}")));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_point_upwards_only() {
        for (i, (name, allowed)) in EDGES.iter().enumerate() {
            for target in *allowed {
                assert!(EDGES[..i].iter().any(|(row, _)| row == target), "{name} uses {target}");
            }
        }
    }

    #[test]
    fn finds_wrong_edges() {
        let used = BTreeMap::from([("store".to_owned(), BTreeSet::from(["types".to_owned()]))]);
        assert_eq!(wrong_edges(&used), ["crate store may not use types"]);
    }
}
