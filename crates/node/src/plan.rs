//! What to do next with a pod: pure.

use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerState, ContainerStatus, Exit};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make the sandbox.
    StartSandbox,
    /// Start a container, the `attempt`th time.
    Start { container: String, attempt: u32 },
    /// Ask everything that runs to end within so many seconds, and clean up.
    Terminate { grace: u64 },
}

/// What to do, and when to look again if nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) again: Option<Duration>,
}

/// The first restart is immediate, then the delays double from here.
const FIRST_BACKOFF: u64 = 10;
const MOST_BACKOFF: u64 = 300;

/// Decides from the pod as the API has it and its containers as the runtime has them.
pub(crate) fn plan(pod: &Pod, sandbox: bool, containers: &[ContainerStatus], now: Timestamp) -> Plan {
    if pod.metadata.deletion_timestamp.is_some() {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30).max(0) as u64;
        return Plan { actions: vec![Action::Terminate { grace }], again: None };
    }
    let Some(spec) = &pod.spec else { return Plan::default() };
    if matches!(phase_of(pod), Some("Succeeded" | "Failed")) {
        return Plan::default();
    }
    let mut plan = Plan::default();
    if !sandbox {
        plan.actions.push(Action::StartSandbox);
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    for container in spec.init_containers.iter().flatten() {
        // A sidecar is restarted whatever it says, and does not hold up what comes after it once it runs.
        let sidecar = is_sidecar(container);
        let init_policy = if sidecar || policy == "Always" { "Always" } else { policy };
        match latest(containers, &container.name) {
            Some(ContainerStatus { state: ContainerState::Exited(exit), .. })
                if exit.code == 0 && !sidecar => {}
            Some(ContainerStatus { state: ContainerState::Running { .. }, .. }) if sidecar => {}
            found => {
                next(
                    &mut plan,
                    container,
                    found,
                    if sidecar { "Always" } else { retry_policy(init_policy) },
                    now,
                );
                return plan;
            }
        }
    }
    for container in &spec.containers {
        next(&mut plan, container, latest(containers, &container.name), policy, now);
    }
    plan
}

/// An init container that failed is tried again unless the pod never restarts anything; success ends it always.
fn retry_policy(policy: &str) -> &'static str {
    if policy == "Never" { "Never" } else { "OnFailure" }
}

pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn phase_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// The container's most recent run.
pub(crate) fn latest<'a>(containers: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    containers.iter().filter(|c| c.name == name).max_by_key(|c| c.attempt)
}

/// Whether a run that ended this way is followed by another.
pub(crate) fn restarts(policy: &str, exit: &Exit) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit.code != 0,
        _ => true,
    }
}

/// How long the container waits before the run after `attempt`.
pub(crate) fn backoff(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::ZERO,
        n => Duration::from_secs((FIRST_BACKOFF << (n - 1).min(8)).min(MOST_BACKOFF)),
    }
}

/// What is left of the wait after a run that ended.
pub(crate) fn remaining(attempt: u32, exit: &Exit, now: Timestamp) -> Duration {
    let since = now.as_second().saturating_sub(exit.finished_at.as_second()).max(0) as u64;
    backoff(attempt).saturating_sub(Duration::from_secs(since))
}

fn next(
    plan: &mut Plan,
    container: &Container,
    found: Option<&ContainerStatus>,
    policy: &str,
    now: Timestamp,
) {
    let start = |attempt| Action::Start { container: container.name.clone(), attempt };
    match found {
        None => plan.actions.push(start(0)),
        Some(ContainerStatus { state: ContainerState::Exited(exit), attempt, .. })
            if restarts(policy, exit) =>
        {
            let wait = remaining(*attempt, exit, now);
            if wait.is_zero() {
                plan.actions.push(start(attempt + 1));
            } else {
                plan.again = Some(plan.again.map_or(wait, |other| other.min(wait)));
            }
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:10:00Z";

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn exited(name: &str, attempt: u32, code: i32, finished: &str) -> ContainerStatus {
        let at: Timestamp = finished.parse().unwrap();
        let exit =
            Exit { code, signal: None, oom_killed: false, started_at: at, finished_at: at, lost: None };
        status(name, attempt, ContainerState::Exited(exit))
    }

    fn running(name: &str) -> ContainerStatus {
        status(name, 0, ContainerState::Running { pid: 1, started_at: NOW.parse().unwrap() })
    }

    fn status(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
        ContainerStatus {
            id: format!("{name}-{attempt}"),
            sandbox_id: "s".into(),
            name: name.into(),
            attempt,
            created_at: NOW.parse().unwrap(),
            state,
            image: "i".into(),
            labels: Default::default(),
            log_path: None,
        }
    }

    fn start(container: &str, attempt: u32) -> Action {
        Action::Start { container: container.into(), attempt }
    }

    fn planned(spec: Value, containers: &[ContainerStatus]) -> Plan {
        plan(&pod(spec), true, containers, NOW.parse().unwrap())
    }

    #[test]
    fn init_containers_come_first_and_in_order() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(
            plan(&pod(spec.clone()), false, &[], NOW.parse().unwrap()).actions,
            [Action::StartSandbox, start("i", 0)]
        );
        assert_eq!(planned(spec.clone(), &[running("i")]).actions, []);
        let done = |name: &str| exited(name, 0, 0, NOW);
        assert_eq!(planned(spec.clone(), &[done("i")]).actions, [start("j", 0)]);
        assert_eq!(planned(spec.clone(), &[done("i"), done("j")]).actions, [start("a", 0), start("b", 0)]);
        assert_eq!(planned(spec, &[exited("i", 0, 1, NOW)]).actions, [start("i", 1)]);
    }

    #[test]
    fn a_sidecar_runs_beside() {
        let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
        assert_eq!(planned(spec.clone(), &[running("s")]).actions, [start("a", 0)]);
        assert_eq!(planned(spec, &[exited("s", 0, 0, NOW)]).actions, [start("s", 1)]);
    }

    #[test]
    fn restarts_wait_longer_each_time() {
        let always = json!({"containers": [{"name": "a"}]});
        assert_eq!(planned(always.clone(), &[exited("a", 0, 0, NOW)]).actions, [start("a", 1)]);
        let waiting = planned(always.clone(), &[exited("a", 2, 1, "2026-01-01T00:09:55Z")]);
        assert_eq!((waiting.actions.len(), waiting.again), (0, Some(Duration::from_secs(15))));
        assert_eq!(planned(always, &[exited("a", 2, 1, "2026-01-01T00:09:00Z")]).actions, [start("a", 3)]);
        let once = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
        assert_eq!(planned(once, &[exited("a", 0, 1, NOW)]), Plan::default());
        let on_failure = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]});
        assert_eq!(planned(on_failure.clone(), &[exited("a", 0, 0, NOW)]), Plan::default());
        assert_eq!(planned(on_failure, &[exited("a", 0, 2, NOW)]).actions, [start("a", 1)]);
        assert_eq!(backoff(20), Duration::from_secs(300));
    }

    #[test]
    fn a_deleted_pod_ends() {
        let mut pod = pod(json!({"containers": [{"name": "a"}]}));
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW.parse().unwrap()));
        pod.metadata.deletion_grace_period_seconds = Some(5);
        let plan = plan(&pod, true, &[running("a")], NOW.parse().unwrap());
        assert_eq!(plan.actions, [Action::Terminate { grace: 5 }]);
    }
}
