//! `make bench`: the figures of `docs/performance.md`, from a release build on this machine.
//!
//! Usage: `bench PATH-TO-GANTRY [PART]…`, the parts being `start`, `load`, `schedule`, `scale`, `node` and
//! `workloads`; all of them if none
//! is named. It starts servers of its own, in folders that go away and in a network namespace of its own, so that
//! ports, pods and rules meet nobody else's.

mod connection;
mod floor;
mod load;
mod netns;
mod pods;
mod processes;
mod report;
mod scale;
mod schedule;
mod server;
mod watch;
mod workloads;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use report::{Takes, show, show_time};
use server::{Server, Shape};

/// What anything here comes to.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Concurrent clients of the load figures.
const CLIENTS: usize = 32;
/// Starts, of which the median counts.
const STARTS: usize = 5;
/// How often the main loads are measured.
const TAKES: usize = 5;
/// How far apart the changes are whose way to watchers is measured: with 200 watchers, 100,000 events a second.
const CHANGES_EVERY: Duration = Duration::from_millis(2);
/// Until a server without work counts as idle.
const SETTLED: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(gantry) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: bench PATH-TO-GANTRY [start|load|schedule|scale|node|workloads]…");
        return ExitCode::FAILURE;
    };
    let parts: Vec<String> = arguments.collect();
    let outcome = match netns::entered() {
        false => netns::run_inside(),
        true => inside(&gantry, &parts),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn inside(gantry: &Path, parts: &[String]) -> Outcome<()> {
    let gantry = gantry.canonicalize().map_err(|e| format!("cannot find {}: {e}", gantry.display()))?;
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if wanted("start") {
            start(&gantry).await?;
        }
        if wanted("load") {
            load(&gantry).await?;
        }
        if wanted("schedule") {
            schedule::run(&Server::start(&gantry, Shape::ControlPlane).await?, CLIENTS).await?;
        }
        if wanted("scale") {
            scale::run(Server::start(&gantry, Shape::ControlPlane).await?, CLIENTS).await?;
        }
        if wanted("node") {
            node(&gantry).await?;
        }
        if wanted("workloads") {
            workloads::run(&running_node(&gantry).await?).await?;
        }
        Ok(())
    })
}

async fn start(gantry: &Path) -> Outcome<()> {
    let size = std::fs::metadata(gantry)?.len();
    show("size of the binary", size as f64 / 1e6, "MB", "≤ 45");
    let (mut api, mut node) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let server = Server::start(gantry, Shape::WithNode).await?;
        api.push(server.started_in);
        node.push(server.node_ready().await?);
    }
    show_time("start → API ready", report::quantile(&mut api, 0.5), "≤ 500");
    show_time("start → node Ready, new cluster", report::quantile(&mut node, 0.5), "≤ 1500");
    Ok(())
}

async fn load(gantry: &Path) -> Outcome<()> {
    let server = Server::start(gantry, Shape::ControlPlane).await?;
    let busy = || server.memory().map(|memory| memory.busy.as_secs_f64() * 1e6);
    let mut takes = Takes::default();
    for take in 0..TAKES {
        let begun = busy()?;
        let creates = load::creates(&server, CLIENTS, take * 10_000, 10_000).await?;
        takes.add("creates (ConfigMaps of 1 KB)", creates, "/s", "≥ 8000");
        takes.add("  the server's CPU for each", (busy()? - begun) / 10_000.0, "µs", "");
        let begun = busy()?;
        takes.add("gets", load::gets(&server, CLIENTS, 30_000).await?, "/s", "≥ 25000");
        takes.add("  its CPU for each get", (busy()? - begun) / 30_000.0, "µs", "");
        let begun = busy()?;
        takes.add("merge patches", load::merge_patches(&server, CLIENTS, 10_000).await?, "/s", "≥ 6000");
        takes.add("  its CPU for each patch", (busy()? - begun) / 10_000.0, "µs", "");
        let begun = busy()?;
        takes.add("server-side applies", load::applies(&server, CLIENTS, 10_000).await?, "/s", "≥ 6000");
        takes.add("  its CPU for each apply", (busy()? - begun) / 10_000.0, "µs", "");
        let (events, slow) = load::watch_fan_out(&server, 200, 200, Duration::ZERO, take).await?;
        takes.add("watch events, 200 watchers", events, "/s", "≥ 100000");
        takes.add_time("  their way when writers do not wait, p99", slow, "");
        let (events, slow) = load::watch_fan_out(&server, 200, 200, CHANGES_EVERY, take).await?;
        takes.add("the same at 500 changes a second", events, "/s", "");
        takes.add_time("  their way from creation to watcher, p99", slow, "≤ 10");
        let floor = floor::fan_out(200, 200, CHANGES_EVERY).await?;
        takes.add_time("  the same bytes over bare TCP, p99", floor, "");
    }
    takes.show();
    let (lists, bytes) = load::lists(&server, CLIENTS, 400).await?;
    show(&format!("lists of 5,000 ({:.1} MB)", bytes as f64 / 1e6), lists, "/s", "≥ 100");
    show("the same in protobuf", load::protobuf_lists(&server, CLIENTS, 200).await?, "/s", "");
    let (events, slow) = load::watch_fan_out(&server, 1_000, 100, Duration::ZERO, 0).await?;
    show("watch events, 1,000 watchers", events, "/s", "");
    show_time("  with writers that do not wait, p99 of their way", slow, "");
    let [definitions, objects] = load::custom(&server, CLIENTS, 100, 10_000).await?;
    show("definitions made and their kind listed", definitions, "/s", "≥ 20");
    show("creates of custom objects (1 KB)", objects, "/s", "");
    show("RSS after 67,000 objects and all that", server.memory()?.resident, "MB", "");
    Ok(())
}

/// A node on which pods can be run.
async fn running_node(gantry: &Path) -> Outcome<Server> {
    let server = Server::start(gantry, Shape::WithNode).await?;
    server.node_ready().await?;
    server.default_account().await?;
    server.build_image(pods::IMAGE).await?;
    Ok(server)
}

async fn node(gantry: &Path) -> Outcome<()> {
    let server = running_node(gantry).await?;
    show("idle CPU", idle_cpu(&server).await?, "%", "");
    show("idle RSS, all processes", server.memory()?.resident, "MB", "≤ 60");
    pods::run(&server, CLIENTS).await
}

/// The share of one core that a server takes while nobody asks for anything, in percent.
async fn idle_cpu(server: &Server) -> Outcome<f64> {
    let before = server.memory()?.busy;
    tokio::time::sleep(SETTLED).await;
    let busy = server.memory()?.busy.saturating_sub(before);
    Ok(busy.as_secs_f64() / SETTLED.as_secs_f64() * 100.0)
}
