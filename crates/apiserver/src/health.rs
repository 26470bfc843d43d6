//! `/healthz`, `/livez`, `/readyz` and `/version`.

use std::sync::atomic::Ordering;

use http::{Response, StatusCode};
use registry::KUBERNETES_VERSION;
use serde_json::json;
use types::Status;

use crate::respond::{self, Body};
use crate::state::Inner;

/// Runs the checks: `ok`, or which of them fail and why. A part can be asked for by name, and left out with
/// `exclude=`.
pub(crate) fn check(server: &Inner, name: &str, parts: &[&str], query: &str) -> Response<Body> {
    let mut checks: Vec<(&str, Result<(), String>)> = vec![
        ("ping", Ok(())),
        ("store", server.store.failure().map_or(Ok(()), |failure| Err(failure.to_string()))),
        ("etcd", server.store.failure().map_or(Ok(()), |failure| Err(failure.to_string()))),
    ];
    if name != "livez" {
        let ready = server.ready.load(Ordering::Acquire);
        checks.push((
            "poststarthook/bootstrap",
            ready.then_some(()).ok_or_else(|| "the first objects are not written yet".into()),
        ));
    }
    if name == "readyz" {
        checks.push((
            "shutdown",
            if server.drain.is_started() { Err("the server is shutting down".into()) } else { Ok(()) },
        ));
    }
    if let Some(part) = parts.first() {
        return match checks.iter().find(|(n, _)| n == part || *n == parts.join("/")) {
            Some((_, Ok(()))) => respond::text(StatusCode::OK, "ok"),
            Some((_, Err(why))) => {
                respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
            }
            None => respond::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
    }
    let excluded: Vec<&str> = query.split('&').filter_map(|p| p.strip_prefix("exclude=")).collect();
    checks.retain(|(n, _)| !excluded.contains(n));
    let failed = checks.iter().any(|(_, outcome)| outcome.is_err());
    let verbose = query.split('&').any(|p| p == "verbose" || p.starts_with("verbose="));
    if !failed && !verbose {
        return respond::text(StatusCode::OK, "ok");
    }
    let mut text = String::new();
    for (check, outcome) in &checks {
        match outcome {
            Ok(()) => text += &format!("[+]{check} ok\n"),
            Err(_) => text += &format!("[-]{check} failed: reason withheld\n"),
        }
    }
    text += &format!("{name} check {}\n", if failed { "failed" } else { "passed" });
    respond::text(if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, text)
}

/// Which Kubernetes this is.
pub(crate) fn version() -> Response<Body> {
    let mut numbers = KUBERNETES_VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    respond::json_value(&json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "gitVersion": format!("{KUBERNETES_VERSION}+gantry"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    }))
}

/// The whole store as a file. Whoever may read this path may read everything, Secrets too.
pub(crate) fn backup(server: &Inner) -> Result<Response<Body>, Status> {
    let mut bytes = Vec::new();
    server.store.backup(&mut bytes).map_err(Status::internal)?;
    Ok(respond::with_type(StatusCode::OK, "application/octet-stream", bytes))
}
