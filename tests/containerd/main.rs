//! Pods run by a real containerd, as Debian packages it, instead of the built-in runtime.
//!
//! One machine serves all tests, which follow each other: the last ones take the cluster down.

mod joined;
mod life;
mod machine;
mod pods;
mod streams;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use machine::{Guest, Machine};
use serde_json::Value;

/// The machine, and its container runtime while that runs.
struct Place {
    machine: Machine,
    containerd: Option<Guest>,
}

type Test = (&'static str, fn(&mut Place));

const TESTS: &[Test] = &[
    ("the_node_is_as_ready_as_its_runtime", life::the_node_is_as_ready_as_its_runtime),
    ("pods_are_what_they_say", pods::pods_are_what_they_say),
    ("containers_restart_and_are_probed", pods::containers_restart_and_are_probed),
    ("hooks_and_grace", pods::hooks_and_grace),
    ("streams_go_through", streams::streams_go_through),
    ("usage_is_measured", streams::usage_is_measured),
    ("what_it_cannot_do_is_said", life::what_it_cannot_do_is_said),
    ("images_are_looked_for", life::images_are_looked_for),
    ("restarts_are_survived", life::restarts_are_survived),
    ("nothing_is_left", life::nothing_is_left),
    ("a_node_alone_runs_its_own_pods", life::a_node_alone_runs_its_own_pods),
    ("an_agent_joins_with_it", joined::an_agent_joins_with_it),
];

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let picked = |name: &str| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()));
    // The cluster comes up with the first one and goes down with this one; those after it have their own.
    let needed = |name: &str| [TESTS[0].0, TESTS[9].0].contains(&name);
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| picked(name) || needed(name)).collect();
    println!("\nrunning {} tests", tests.len());
    let mut place = Place { machine: Machine::new(), containerd: None };
    let mut failed = 0;
    for (name, test) in &tests {
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| test(&mut place))).is_ok();
        if !passed {
            failed += 1;
            let state = ["get", "pods,events,nodes", "-A", "-o", "wide"];
            println!("{}\n{}", place.machine.kubectl(&state).out, place.machine.logs());
        }
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    drop(place.containerd.take());
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let passed = tests.len() - failed;
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A pod of one busybox shell script; `more` are fields of the container, `spec` of the pod.
fn pod(name: &str, script: &str, more: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{
            terminationGracePeriodSeconds: 5, {spec} containers: [{{name: main, image: 'busybox:1', {more}
            command: [/bin/busybox, sh, -c], args: [{}]}}]}}}}",
        serde_json::to_string(script).expect("text")
    )
}

const SLEEP: &str = "exec /bin/busybox sleep 1000";

fn main_status(m: &Machine, name: &str) -> Value {
    m.get(&["pod", name])["status"]["containerStatuses"][0].clone()
}

/// Waits until `kubectl describe pod` shows all of these.
fn describes(m: &Machine, name: &str, parts: &[&str]) {
    m.wait_for(&format!("{name} to show {parts:?}"), || {
        let text = m.must(&["describe", "pod", name]);
        parts.iter().all(|part| text.contains(part))
    });
}

fn gone(m: &Machine) {
    m.must(&["delete", "pods", "--all", "--timeout=60s"]);
}
