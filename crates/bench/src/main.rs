//! `make bench`: the figures of `docs/performance.md`, from a release build on this machine.
//!
//! Usage: `bench PATH-TO-GANTRY`. It starts servers of its own on free ports, in folders that go away.

mod connection;
mod load;
mod server;

use std::error::Error;
use std::path::PathBuf;

use server::Server;

/// Concurrent clients of the load figures.
const CLIENTS: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let gantry = std::env::args().nth(1).map(PathBuf::from).ok_or("usage: bench PATH-TO-GANTRY")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(gantry))
}

async fn run(gantry: PathBuf) -> Result<(), Box<dyn Error>> {
    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(Server::start(&gantry).await?.started_in);
    }
    starts.sort();
    println!("start → API ready           {:>10.0} ms (median of 5)", starts[2].as_secs_f64() * 1e3);
    let server = Server::start(&gantry).await?;
    println!("idle RSS, control plane     {:>10.1} MB", server.resident_megabytes());
    let creates = load::creates(&server, CLIENTS, 20_000).await?;
    println!("creates                     {creates:>10.0} /s   (ConfigMaps of 1 KB, {CLIENTS} clients, TLS)");
    let gets = load::gets(&server, CLIENTS, 60_000).await?;
    println!("gets                        {gets:>10.0} /s");
    let (lists, bytes) = load::lists(&server, CLIENTS.min(8), 200).await?;
    println!("lists of 5,000              {lists:>10.1} /s   ({:.1} MB each)", bytes as f64 / 1e6);
    let events = load::watch_fan_out(&server, 200, 200).await?;
    println!("watch events, 200 watchers  {events:>10.0} /s");
    println!(
        "RSS after all that          {:>10.1} MB   ({} objects)",
        server.resident_megabytes(),
        20_000 + 5_000 + 200
    );
    Ok(())
}
