//! What to do next with a pod: pure.
//!
//! ```text
//! sandbox ─► init containers, one after the other ─► containers ─► all ended ─► sidecars end ─► sandbox stops
//!              (sidecars stay and let the next one begin once they have started up)
//! each container:  start ─► running ─► exited ─► back-off ─► start …
//!                              └─ a probe says it must be replaced ─► kill
//! ```

use std::collections::HashSet;
use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use runtime::{ContainerState, ContainerStatus, Exit};

use crate::probe::{Health, Healths, Kind};
use crate::restarts::{is_restartable, policy, restarts_all};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make the sandbox.
    StartSandbox,
    /// Start a container, the `attempt`th time; `streak` counts restarts since it last ran well.
    Start { container: String, attempt: u32, streak: u32 },
    /// End a container that runs. `message` is for the event.
    Kill { id: String, container: String, message: String, grace: u64 },
    /// End all containers, which then begin anew, because of how this one has ended.
    RestartAll { container: String },
    /// End everything: the pod has run for as long as it may.
    Expire,
    /// Nothing runs any more, nor will it: give the sandbox back.
    StopSandbox,
    /// Ask everything that runs to end within so many seconds, and clean up.
    Terminate { grace: u64 },
}

/// What to do, and when to look again if nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) again: Option<Duration>,
    /// Containers whose next run has to wait because of how the last ones ended.
    pub(crate) held_back: Vec<String>,
}

/// What there is.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Whether the sandbox can hold containers.
    pub(crate) sandbox: bool,
    /// Whether the pod may hold something that it needs no more once it is over.
    pub(crate) held: bool,
    /// As the runtime has them.
    pub(crate) containers: &'a [ContainerStatus],
    /// What the probes say.
    pub(crate) healths: &'a Healths,
    /// Containers that were ended to be replaced, whatever they returned.
    pub(crate) replaced: &'a HashSet<String>,
    pub(crate) now: Timestamp,
    /// The longest that a container which fails waits for its next run.
    pub(crate) longest: Duration,
}

impl View<'_> {
    /// How a run is; what is not probed is well.
    pub(crate) fn health(&self, container: &Container, id: &str) -> Health {
        self.healths.get(id).copied().unwrap_or_else(|| Health::unprobed(container))
    }

    /// Whether another run follows this one.
    pub(crate) fn restarts(&self, policy: &str, run: &ContainerStatus, exit: &Exit) -> bool {
        restarts(policy, exit) || (policy != "Never" && self.replaced.contains(&run.id))
    }
}

/// The first restart is immediate, then the delays double from here.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);

/// Whoever ran for so long begins anew (upstream: `flowcontrol.Backoff`, twice the longest delay).
const RAN_WELL: i64 = 600;

/// The label of a container that counts its restarts since it last ran well.
pub(crate) const STREAK: &str = "io.gantry.restart-streak";

/// The grace period of pods that name none.
const DEFAULT_GRACE: u64 = 30;

/// Decides from the pod as the API has it and its containers as the runtime has them.
pub(crate) fn plan(pod: &Pod, view: &View<'_>) -> Plan {
    let only = |action| Plan { actions: vec![action], ..Plan::default() };
    if pod.metadata.deletion_timestamp.is_some() {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30).max(0) as u64;
        return only(Action::Terminate { grace });
    }
    let Some(spec) = &pod.spec else { return Plan::default() };
    if is_over(pod) {
        return if view.sandbox || view.held { only(Action::StopSandbox) } else { Plan::default() };
    }
    let mut plan = Plan::default();
    if let Some(left) = time_left(pod, view.now) {
        if left.is_zero() {
            return only(Action::Expire);
        }
        plan.wait(left);
    }
    let finished = is_finished(spec, view);
    if !view.sandbox {
        // It was lost, with everything in it. What may not run twice does not.
        if finished || is_lost(pod, spec, view) {
            return plan;
        }
        plan.actions.push(Action::StartSandbox);
    }
    let view = &View { containers: if view.sandbox { view.containers } else { &[] }, ..*view };
    let step = Step { pod, spec, view };
    if finished {
        stop_sidecars(&mut plan, spec, view);
        return plan;
    }
    if step.restart_all(&mut plan) {
        return plan;
    }
    step.begin_ephemeral(&mut plan);
    if spec.containers.iter().all(|c| latest(view.containers, &c.name).is_none()) {
        if !step.initialize(&mut plan) {
            return plan;
        }
    } else {
        for sidecar in spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)) {
            step.next(&mut plan, sidecar);
        }
    }
    for container in &spec.containers {
        step.next(&mut plan, container);
    }
    plan
}

/// How often a container had been restarted when the API last heard of it, if it ran at all.
pub(crate) fn ran_before(pod: &Pod, name: &str) -> Option<u32> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    let found = all.find(|c| c.name == name && c.container_id.as_ref().is_some_and(|id| !id.is_empty()))?;
    u32::try_from(found.restart_count).ok()
}

/// Whether the sandbox of a pod was lost after its containers had begun, none of which may run again. The API need not
/// know yet that they have begun, nor the runtime how they have ended.
pub(crate) fn is_lost(pod: &Pod, spec: &PodSpec, view: &View<'_>) -> bool {
    let began =
        |c: &Container| latest(view.containers, &c.name).is_some() || ran_before(pod, &c.name).is_some();
    !view.sandbox
        && spec.containers.iter().any(began)
        && !spec.containers.iter().any(|c| is_restartable(spec, c))
}

struct Step<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    view: &'a View<'a>,
}

impl Step<'_> {
    /// Ephemeral containers begin whatever the others do, but only where the others are, and only once.
    fn begin_ephemeral(&self, plan: &mut Plan) {
        for container in crate::ephemeral::all(self.pod).iter().filter(|_| self.view.sandbox) {
            let began = latest(self.view.containers, &container.name).is_some();
            if !began && ran_before(self.pod, &container.name).is_none() {
                plan.actions.push(Action::Start { container: container.name.clone(), attempt: 0, streak: 0 });
            }
        }
    }

    /// Goes on with the init containers; true when the main ones may begin.
    fn initialize(&self, plan: &mut Plan) -> bool {
        let Self { spec, view, .. } = self;
        for container in spec.init_containers.iter().flatten() {
            // A sidecar is restarted whatever it says, and does not hold up what comes after it once it has started.
            let sidecar = is_sidecar(container);
            match latest(view.containers, &container.name) {
                Some(ContainerStatus { state: ContainerState::Exited(exit), .. })
                    if exit.code == 0 && !sidecar => {}
                Some(ContainerStatus { state: ContainerState::Running { .. }, id, .. })
                    if sidecar && view.health(container, id).is_started() =>
                {
                    self.next(plan, container);
                }
                _ => {
                    self.next(plan, container);
                    return false;
                }
            }
        }
        true
    }

    /// Whether a container has ended in a way that has all of them begin anew; at once, or after a while.
    fn restart_all(&self, plan: &mut Plan) -> bool {
        let Self { spec, view, .. } = self;
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        for container in all {
            let Some(run @ ContainerStatus { state: ContainerState::Exited(exit), .. }) =
                latest(view.containers, &container.name)
            else {
                continue;
            };
            if restarts_all(container, exit.code) {
                let wait = remaining(run, exit, view);
                match wait.is_zero() {
                    true => plan.actions.push(Action::RestartAll { container: container.name.clone() }),
                    false => plan.wait(wait),
                }
                return true;
            }
        }
        false
    }

    fn next(&self, plan: &mut Plan, container: &Container) {
        let Self { pod, spec, view } = self;
        let name = || container.name.clone();
        match latest(view.containers, &container.name) {
            None => {
                let attempt = ran_before(pod, &container.name).map_or(0, |n| n + 1);
                plan.actions.push(Action::Start { container: name(), attempt, streak: attempt });
            }
            Some(run @ ContainerStatus { state: ContainerState::Exited(exit), attempt, .. })
                if view.restarts(policy(spec, container, exit.code), run, exit) =>
            {
                let wait = remaining(run, exit, view);
                if wait.is_zero() {
                    let streak = streak(run, exit) + 1;
                    plan.actions.push(Action::Start { container: name(), attempt: attempt + 1, streak });
                } else {
                    plan.held_back.push(name());
                    plan.wait(wait);
                }
            }
            Some(ContainerStatus { state: ContainerState::Running { .. }, id, .. }) => {
                if let Some(kind) = view.health(container, id).fatal() {
                    plan.actions.push(replace(spec, container, id, kind));
                }
            }
            Some(_) => {}
        }
    }
}

/// Whether all main containers have ended for good.
fn is_finished(spec: &PodSpec, view: &View<'_>) -> bool {
    spec.containers.iter().all(|c| match latest(view.containers, &c.name) {
        Some(run @ ContainerStatus { state: ContainerState::Exited(exit), .. }) => {
            !view.restarts(policy(spec, c, exit.code), run, exit)
        }
        _ => false,
    })
}

/// Sidecars end in the reverse of the order in which they came.
fn stop_sidecars(plan: &mut Plan, spec: &PodSpec, view: &View<'_>) {
    for container in spec.init_containers.iter().flatten().rev().filter(|c| is_sidecar(c)) {
        if let Some(ContainerStatus { state: ContainerState::Running { .. }, id, .. }) =
            latest(view.containers, &container.name)
        {
            plan.actions.push(Action::Kill {
                id: id.clone(),
                container: container.name.clone(),
                message: format!("Stopping container {}", container.name),
                grace: grace_of(spec),
            });
        }
    }
}

impl Plan {
    fn wait(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |other| other.min(wait)));
    }
}

pub(crate) fn policy_of(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn grace_of(spec: &PodSpec) -> u64 {
    spec.termination_grace_period_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(DEFAULT_GRACE)
}

fn phase_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Whether the pod has ended for good.
pub(crate) fn is_over(pod: &Pod) -> bool {
    matches!(phase_of(pod), Some("Succeeded" | "Failed"))
}

/// How long the pod may still run, if that is limited (`pkg/kubelet/active_deadline.go`).
fn time_left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let limit = pod.spec.as_ref()?.active_deadline_seconds?;
    let began = pod.status.as_ref()?.start_time.as_ref()?;
    let left = limit.saturating_sub(now.as_second().saturating_sub(began.0.as_second()));
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// The container's most recent run.
pub(crate) fn latest<'a>(containers: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    containers.iter().filter(|c| c.name == name).max_by_key(|c| c.attempt)
}

/// Whether a run that ended this way is followed by another.
fn restarts(policy: &str, exit: &Exit) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit.code != 0,
        _ => true,
    }
}

/// The restarts that count for the delay after this run.
fn streak(run: &ContainerStatus, exit: &Exit) -> u32 {
    if exit.finished_at.as_second().saturating_sub(exit.started_at.as_second()) >= RAN_WELL {
        return 0;
    }
    run.labels.get(STREAK).and_then(|s| s.parse().ok()).unwrap_or(run.attempt)
}

/// How long the container waits between this run and the next, which is at most `longest`.
pub(crate) fn backoff(run: &ContainerStatus, exit: &Exit, longest: Duration) -> Duration {
    match streak(run, exit) {
        0 => Duration::ZERO,
        n => (FIRST_BACKOFF * (1 << (n - 1).min(8))).min(longest),
    }
}

/// What is left of the wait after a run that ended.
pub(crate) fn remaining(run: &ContainerStatus, exit: &Exit, view: &View<'_>) -> Duration {
    let now = view.now;
    let (wait, since) =
        (backoff(run, exit, view.longest), now.as_second().saturating_sub(exit.finished_at.as_second()));
    if since.unsigned_abs() > wait.as_secs() {
        // Long ago; or the clock was set back since, and nobody waits until it comes to that time again.
        return Duration::ZERO;
    }
    wait.saturating_sub(Duration::from_secs(since.max(0).unsigned_abs()))
}

/// Ends a container for the sake of a probe (`kuberuntime_manager.go`, `computePodActions`).
fn replace(spec: &PodSpec, container: &Container, id: &str, kind: Kind) -> Action {
    let probe = match kind {
        Kind::Startup => &container.startup_probe,
        Kind::Liveness | Kind::Readiness => &container.liveness_probe,
    };
    let own = probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
    let what = kind.title().to_lowercase();
    let then = if is_restartable(spec, container) { ", will be restarted" } else { "" };
    Action::Kill {
        id: id.to_owned(),
        container: container.name.clone(),
        message: format!("Container {} failed {what} probe{then}", container.name),
        grace: own.and_then(|s| u64::try_from(s).ok()).unwrap_or_else(|| grace_of(spec)),
    }
}

#[cfg(test)]
mod tests;
