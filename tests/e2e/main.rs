//! A real cluster out of the built binary, and the real kubectl against it.
//!
//! One cluster serves all tests; each test works in a Kubernetes namespace of its own. The cluster lives in a
//! network namespace of its own, so nothing on the machine notices it.

mod agent;
mod certificates;
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
mod managing;
mod metrics;
mod migrations;
mod node_life;
mod pods;
mod podspec;
mod reservations;
mod resize;
mod scheduling;
mod snapshots;
mod starts;
mod storage;
mod streams;
mod tasks;
mod tutorial;
mod volumes;
mod workloads;

use std::process::ExitCode;

use cluster::Cluster;

/// A test's name and what it does.
pub type Test = (&'static str, fn(&Cluster));

fn main() -> ExitCode {
    let tests = [
        demo::TESTS,
        kubectl::TESTS,
        pods::TESTS,
        scheduling::TESTS,
        managing::TESTS,
        podspec::TESTS,
        starts::TESTS,
        agent::TESTS,
        certificates::TESTS,
        storage::TESTS,
        devices::TESTS,
        dra::TESTS,
        snapshots::TESTS,
        volumes::TESTS,
        metrics::TESTS,
        streams::TESTS,
        debug::TESTS,
        resize::TESTS,
        crds::TESTS,
        cri::TESTS,
        clients::TESTS,
        tutorial::TESTS,
        tasks::TESTS,
        workloads::TESTS,
        failures::TESTS,
        migrations::TESTS,
        reservations::TESTS,
        // The last one ends all pods.
        node_life::TESTS,
    ]
    .concat();
    let tests = e2e::picked(tests);
    let cluster = Cluster::start();
    let failed = e2e::run(&tests, |test| test(&cluster), || cluster.show_state());
    if !failed.is_empty() {
        cluster.show_log();
    }
    drop(cluster);
    e2e::verdict(tests.len(), &failed)
}
