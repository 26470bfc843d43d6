//! What breaks while a cluster works: killed processes, dead nodes, file systems that hang, memory and disks that run
//! out. Nothing is orphaned, nothing runs twice that must run once, and events say what happened.
//!
//! One cluster of two nodes serves all tests: `node-1` is the server's own, `node-2` an agent's that has joined. Two
//! seeds of the storm run always; `FAULTS_SEED=7 FAULTS_RUNS=50 cargo test -p e2e --test faults storm` looks further,
//! with `FAULTS_STEPS` faults each.

#[allow(dead_code)]
mod cluster;
#[allow(dead_code)]
mod yard;

#[path = "faults/beside.rs"]
mod beside;
#[path = "faults/census.rs"]
mod census;
#[path = "faults/full.rs"]
mod full;
#[path = "faults/hung.rs"]
mod hung;
#[path = "faults/lost.rs"]
mod lost;
#[path = "faults/single.rs"]
mod single;
#[path = "faults/storm.rs"]
mod storm;

use std::process::ExitCode;

use beside::Beside;
use cluster::Cluster;

/// Two nodes and what is known of them.
pub struct World {
    /// The cluster with the first one.
    pub cluster: Cluster,
    /// The second node.
    pub beside: Beside,
}

type Test = (&'static str, fn(&World));

fn main() -> ExitCode {
    let tests: Vec<Test> = [single::TESTS, full::TESTS, hung::TESTS, storm::TESTS, lost::TESTS].concat();
    let tests = e2e::picked(tests);
    if tests.is_empty() {
        return e2e::verdict(0, &[]);
    }
    let cluster = Cluster::start_with(&["--node-monitor-grace-period=20s"]);
    build_images(&cluster);
    let beside = Beside::join(&cluster);
    let world = World { cluster, beside };
    let failed = e2e::run(&tests, |test| test(&world), || world.cluster.show_state());
    if !failed.is_empty() {
        world.cluster.show_log();
        world.beside.show_log();
    }
    // The node goes before the cluster that its pods belong to.
    let World { cluster, beside } = world;
    drop(beside);
    drop(cluster);
    e2e::verdict(tests.len(), &failed)
}

/// Busybox with a `flock`: a lock ends with who holds it, whatever ends that.
fn build_images(cluster: &Cluster) {
    let folder = cluster.folder("locker-1");
    for file in ["/usr/bin/flock", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"] {
        let name = std::path::Path::new(file).file_name().expect("a file");
        std::fs::copy(file, folder.join(name)).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    let dockerfile = "FROM busybox:1\nCOPY flock /bin/flock\nCOPY libc.so.6 /lib/x86_64-linux-gnu/libc.so.6\n\
        COPY ld-linux-x86-64.so.2 /lib64/ld-linux-x86-64.so.2\n";
    cluster.build("locker:1", dockerfile);
}
