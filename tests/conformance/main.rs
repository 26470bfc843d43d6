//! What upstream's conformance suite demands, shown on a real cluster with the real kubectl.
//!
//! Each check names the entries of the suite that it covers; `upstream.txt` lists them all. A run holds
//! `docs/conformance.md` against what was found, and writes it anew when `WRITE_TABLE` is set (`make conformance`).
//! Checks run beside each other, each in a namespace of its own; those that change the node run alone at the end.

#[path = "../e2e/cluster.rs"]
#[allow(dead_code)]
mod cluster;

mod aggregation;
mod api;
mod containers;
mod definitions;
mod downward;
mod garbage;
mod hooks;
mod jobs;
mod kubectl;
mod lifecycle;
mod names;
mod node;
mod probes;
mod quotas;
mod scheduling;
mod services;
mod stateful;
mod table;
mod trial;
mod volumes;
mod watches;
mod webhooks;
mod workloads;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cluster::Cluster;
use table::Outcome;
use trial::Trial;

/// One check.
pub struct Check {
    /// Its module and function.
    pub name: &'static str,
    /// The entries of upstream's suite it covers, by name.
    pub covers: &'static [&'static str],
    /// Panics when something is not as it must be.
    pub run: fn(&Trial),
}

/// Lists checks: `checks![a_function: "An entry", "another one"; …]`.
#[macro_export]
macro_rules! checks {
    ($($name:ident: $($entry:literal),+;)+) => {
        &[$($crate::Check {
            name: concat!(module_path!(), "::", stringify!($name)),
            covers: &[$($entry),+],
            run: $name,
        }),+]
    };
}

/// The same check for several sources: `a_function = what(source);`.
#[macro_export]
macro_rules! for_each_source {
    ($($name:ident = $what:ident($source:ident);)+) => {
        $(fn $name(t: &Trial) {
            $what(t, $source);
        })+
    };
}

/// Checks mostly wait, so there are more of them at once than cores.
const AT_ONCE: usize = 6;

const TOGETHER: &[&[Check]] = &[
    // What takes long comes first.
    probes::CHECKS,
    services::CHECKS,
    stateful::CHECKS,
    webhooks::CHECKS,
    aggregation::CHECKS,
    api::CHECKS,
    containers::CHECKS,
    definitions::CHECKS,
    downward::CHECKS,
    garbage::CHECKS,
    jobs::CHECKS,
    kubectl::CHECKS,
    lifecycle::CHECKS,
    names::CHECKS,
    node::CHECKS,
    quotas::CHECKS,
    scheduling::CHECKS,
    volumes::CHECKS,
    watches::CHECKS,
    workloads::CHECKS,
];

const ALONE: &[&[Check]] = &[node::ALONE, scheduling::ALONE];

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let pick = |lists: &'static [&'static [Check]]| -> Vec<&'static Check> {
        let wanted =
            |check: &Check| filter.is_empty() || filter.iter().any(|f| check.name.contains(f.as_str()));
        lists.iter().copied().flatten().filter(|check| wanted(check)).collect()
    };
    let cluster = Cluster::start();
    trial::prepare(&cluster);
    let mut failed = Vec::new();
    let mut outcomes = run(&cluster, &pick(TOGETHER), AT_ONCE, &mut failed);
    outcomes.extend(run(&cluster, &pick(ALONE), 1, &mut failed));
    if !failed.is_empty() {
        cluster.show_log();
    }
    drop(cluster);
    let mut all = outcomes.len();
    if filter.is_empty() {
        all += 1;
        failed.extend(table::agrees(&outcomes).err().map(|why| ("docs/conformance.md", why)));
    }
    e2e::verdict(all, &failed)
}

/// Runs checks, so many at once. Adds what failed, and why.
fn run(
    cluster: &Cluster,
    checks: &[&'static Check],
    at_once: usize,
    failed: &mut Vec<(&'static str, String)>,
) -> Vec<Outcome> {
    println!("\nrunning {} tests", checks.len());
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let failed = Mutex::new(failed);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    // A thread of its own has the check's name in its message, and ends with it.
                    let outcome = std::thread::scope(|own| {
                        let thread = std::thread::Builder::new().name(check.name.to_owned());
                        let spawned =
                            thread.spawn_scoped(own, || (check.run)(&Trial::new(cluster, check.name)));
                        spawned.expect("a thread").join()
                    });
                    let ok = outcome.is_ok();
                    if let Err(panic) = outcome {
                        let why = (check.name, e2e::said(&*panic));
                        failed.lock().expect("no panic while it is held").push(why);
                    }
                    println!(
                        "test {} ... {} ({:.1} s)",
                        check.name,
                        if ok { "ok" } else { "FAILED" },
                        begun.elapsed().as_secs_f64()
                    );
                    outcomes.lock().expect("no panic while it is held").push((*check, ok));
                }
            });
        }
    });
    outcomes.into_inner().expect("no panic while it is held")
}
