//! `gantry status`.

use std::process::ExitCode;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Node, Pod};
use client::kube::{Api, api::ListParams};

use crate::config::ServerArgs;
use crate::{admin, daemon};

/// Nothing about a cluster takes longer to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows whether the cluster runs and how its nodes and pods are. The exit code says whether all is well.
pub fn run(args: &ServerArgs) -> ExitCode {
    let Some(running) = daemon::running(args) else {
        println!("The cluster is down; gantry up starts it.");
        return ExitCode::FAILURE;
    };
    println!("server      process {}, {:.1} MB", running.pid, resident_megabytes(running.pid));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("cannot ask the server: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(args)).await }) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            println!("API         does not answer: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            println!("API         does not answer within {} s", PATIENCE.as_secs());
            ExitCode::FAILURE
        }
    }
}

async fn ask(args: &ServerArgs) -> Result<bool, Box<dyn std::error::Error>> {
    let client = admin::client(args)?;
    let version = client.apiserver_version().await?;
    println!("API         {} at {}", version.git_version, admin::url(args));
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let mut well = true;
    for node in &nodes.items {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True");
        well &= ready;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        println!("node        {name} {}", if ready { "Ready" } else { "NotReady" });
    }
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
    let running =
        pods.items.iter().filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"));
    println!("pods        {} of {} running", running.count(), pods.items.len());
    Ok(well && !nodes.items.is_empty())
}

fn resident_megabytes(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}
