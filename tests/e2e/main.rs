//! A real cluster out of the built binary, and the real kubectl against it.
//!
//! One cluster serves all tests; each test works in a Kubernetes namespace of its own. The cluster lives in a
//! network namespace of its own, so nothing on the machine notices it.

mod agent;
mod clients;
mod cluster;
mod crds;
mod cri;
mod debug;
mod demo;
mod devices;
mod dra;
mod failures;
mod kubectl;
mod metrics;
mod node_life;
mod pods;
mod podspec;
mod scheduling;
mod snapshots;
mod storage;
mod streams;
mod tasks;
mod tutorial;
mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use cluster::Cluster;

/// A test's name and what it does.
pub type Test = (&'static str, fn(&Cluster));

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let picked = |name: &str| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()));
    let tests: Vec<Test> = [
        demo::TESTS,
        kubectl::TESTS,
        pods::TESTS,
        scheduling::TESTS,
        podspec::TESTS,
        agent::TESTS,
        storage::TESTS,
        devices::TESTS,
        dra::TESTS,
        snapshots::TESTS,
        metrics::TESTS,
        streams::TESTS,
        debug::TESTS,
        crds::TESTS,
        cri::TESTS,
        clients::TESTS,
        tutorial::TESTS,
        tasks::TESTS,
        workloads::TESTS,
        failures::TESTS,
        // The last one ends all pods.
        node_life::TESTS,
    ]
    .concat()
    .into_iter()
    .filter(|(n, _)| picked(n))
    .collect();
    let cluster = Cluster::start();
    let mut failed = 0;
    println!("\nrunning {} tests", tests.len());
    for (name, test) in &tests {
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| test(&cluster))).is_ok();
        if !passed {
            failed += 1;
            cluster.show_state();
        }
        println!(
            "test {name} ... {} ({:.1} s)",
            if passed { "ok" } else { "FAILED" },
            begun.elapsed().as_secs_f64()
        );
    }
    if failed > 0 {
        cluster.show_log();
    }
    drop(cluster);
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
        tests.len() - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
