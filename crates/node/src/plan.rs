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
const FIRST_BACKOFF: u64 = 10;
const MOST_BACKOFF: u64 = 300;

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
                let wait = remaining(run, exit, view.now);
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
                let wait = remaining(run, exit, view.now);
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

/// How long the container waits between this run and the next.
pub(crate) fn backoff(run: &ContainerStatus, exit: &Exit) -> Duration {
    match streak(run, exit) {
        0 => Duration::ZERO,
        n => Duration::from_secs((FIRST_BACKOFF << (n - 1).min(8)).min(MOST_BACKOFF)),
    }
}

/// What is left of the wait after a run that ended.
pub(crate) fn remaining(run: &ContainerStatus, exit: &Exit, now: Timestamp) -> Duration {
    let (wait, since) = (backoff(run, exit), now.as_second().saturating_sub(exit.finished_at.as_second()));
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
        Action::Start { container: container.into(), attempt, streak: attempt }
    }

    fn with(pod: &Pod, sandbox: bool, containers: &[ContainerStatus], healths: &Healths) -> Plan {
        let (replaced, now) = (&HashSet::new(), NOW.parse().unwrap());
        plan(pod, &View { sandbox, held: false, containers, healths, replaced, now })
    }

    fn planned(spec: Value, containers: &[ContainerStatus]) -> Plan {
        with(&pod(spec), true, containers, &Healths::new())
    }

    #[test]
    fn init_containers_come_first_and_in_order() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(
            with(&pod(spec.clone()), false, &[], &Healths::new()).actions,
            [Action::StartSandbox, start("i", 0)]
        );
        assert_eq!(planned(spec.clone(), &[running("i")]).actions, []);
        let done = |name: &str| exited(name, 0, 0, NOW);
        assert_eq!(planned(spec.clone(), &[done("i")]).actions, [start("j", 0)]);
        assert_eq!(planned(spec.clone(), &[done("i"), done("j")]).actions, [start("a", 0), start("b", 0)]);
        assert_eq!(planned(spec, &[exited("i", 0, 1, NOW)]).actions, [start("i", 1)]);
    }

    #[test]
    fn exits_may_have_rules_of_their_own() {
        let spec = |action: &str| {
            let codes = json!({"operator": "In", "values": [42]});
            json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "b"},
                {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [{"action": action, "exitCodes": codes}]}]})
        };
        let with_code =
            |action: &str, code| planned(spec(action), &[running("b"), exited("a", 0, code, NOW)]).actions;
        assert_eq!(with_code("Restart", 42), [start("a", 1)]);
        assert_eq!((with_code("Restart", 1), with_code("Restart", 0)), (vec![], vec![]));
        let all = Action::RestartAll { container: "a".into() };
        assert_eq!(with_code("RestartAllContainers", 42), [all]);
        assert_eq!(with_code("RestartAllContainers", 0), []);
    }

    #[test]
    fn a_sidecar_runs_beside() {
        let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
        assert_eq!(planned(spec.clone(), &[running("s")]).actions, [start("a", 0)]);
        assert_eq!(planned(spec, &[exited("s", 0, 0, NOW)]).actions, [start("s", 1)]);
    }

    #[test]
    fn an_ephemeral_container_begins_once_whatever_the_others_do() {
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
            "ephemeralContainers": [{"name": "d"}]});
        assert_eq!(planned(spec.clone(), &[running("i")]).actions, [start("d", 0)]);
        assert_eq!(planned(spec.clone(), &[running("a")]).actions, [start("d", 0)]);
        for code in [0, 1] {
            assert_eq!(planned(spec.clone(), &[running("a"), exited("d", 0, code, NOW)]).actions, []);
        }
        assert_eq!(
            with(&pod(spec.clone()), false, &[], &Healths::new()).actions,
            [Action::StartSandbox, start("i", 0)]
        );
        // Neither does it after its sandbox was lost.
        let mut lost = pod(spec);
        let statuses = json!({"ephemeralContainerStatuses": [{"name": "d", "containerID": "x", "image": "",
            "imageID": "", "ready": false, "restartCount": 0}]});
        lost.status = Some(serde_json::from_value(statuses).unwrap());
        assert_eq!(with(&lost, true, &[running("a")], &Healths::new()).actions, []);
    }

    #[test]
    fn an_ephemeral_container_does_not_hold_the_end_up() {
        let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}], "ephemeralContainers": [{"name": "d"}, {"name": "e"}]});
        let actions = planned(spec, &[running("s"), running("d"), exited("a", 0, 0, NOW)]).actions;
        assert!(matches!(&actions[..], [Action::Kill { container, .. }] if container == "s"), "{actions:?}");
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
    }

    #[test]
    fn delays_double_and_are_forgotten_after_a_good_run() {
        let wait = |attempt, streak: Option<u32>, began: &str| {
            let mut run = exited("a", attempt, 1, NOW);
            let ContainerState::Exited(exit) = &mut run.state else { panic!() };
            exit.started_at = began.parse().unwrap();
            let exit = exit.clone();
            run.labels.extend(streak.map(|s| (STREAK.to_owned(), s.to_string())));
            backoff(&run, &exit).as_secs()
        };
        let waits: Vec<u64> = (0..8).map(|n| wait(n, None, NOW)).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(wait(20, Some(2), NOW), 20);
        assert_eq!(wait(20, None, "2026-01-01T00:00:00Z"), 0);
        let spec = json!({"containers": [{"name": "a"}]});
        let mut long = exited("a", 7, 1, NOW);
        let ContainerState::Exited(exit) = &mut long.state else { panic!() };
        exit.started_at = "2026-01-01T00:00:00Z".parse().unwrap();
        let again = Action::Start { container: "a".into(), attempt: 8, streak: 1 };
        assert_eq!(planned(spec, &[long]).actions, [again]);
    }

    #[test]
    fn a_failed_probe_replaces_the_container() {
        let spec = json!({"terminationGracePeriodSeconds": 7,
            "containers": [{"name": "a", "livenessProbe": {}, "startupProbe": {"terminationGracePeriodSeconds": 3}}]});
        let after = |spec: &Value, health: Health| {
            with(&pod(spec.clone()), true, &[running("a")], &[("a-0".to_owned(), health)].into()).actions
        };
        let well = Health { started: Some(true), live: Some(true), ready: Some(false) };
        assert_eq!(after(&spec, well), []);
        let kill = |message: &str, grace| {
            [Action::Kill { id: "a-0".into(), container: "a".into(), message: message.into(), grace }]
        };
        let dead = Health { live: Some(false), ..well };
        assert_eq!(after(&spec, dead), kill("Container a failed liveness probe, will be restarted", 7));
        let stuck = Health { started: Some(false), ..well };
        assert_eq!(after(&spec, stuck), kill("Container a failed startup probe, will be restarted", 3));
        let mut never = spec;
        never["restartPolicy"] = "Never".into();
        assert_eq!(after(&never, dead), kill("Container a failed liveness probe", 7));
    }

    #[test]
    fn a_replaced_container_restarts_whatever_it_returned() {
        let pod = pod(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]}));
        let containers = [exited("a", 0, 0, NOW)];
        let replaced = HashSet::from(["a-0".to_owned()]);
        let healths = Healths::new();
        let view = View {
            sandbox: true,
            held: true,
            containers: &containers,
            healths: &healths,
            replaced: &replaced,
            now: NOW.parse().unwrap(),
        };
        assert_eq!(plan(&pod, &view).actions, [start("a", 1)]);
    }

    #[test]
    fn what_ran_in_a_lost_sandbox_does_not_run_twice() {
        let with = |policy: &str, containers: &[ContainerStatus]| {
            let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
            with(&pod, false, containers, &Healths::new()).actions
        };
        // Nobody knows yet how it has ended, and the API not even that it has begun.
        assert_eq!(with("Never", &[running("a")]), []);
        assert_eq!(with("Never", &[exited("a", 0, 137, NOW)]), []);
        let anew = [Action::StartSandbox, start("a", 0), start("b", 0)];
        assert_eq!((with("Never", &[]), with("OnFailure", &[running("a")])), (anew.to_vec(), anew.to_vec()));
    }

    #[test]
    fn a_clock_that_steps_holds_nothing_back() {
        let spec = json!({"containers": [{"name": "a"}]});
        let again = |finished: &str| planned(spec.clone(), &[exited("a", 1, 1, finished)]);
        let (soon, late) = (again("2026-01-01T00:09:58Z"), again("2026-01-01T00:10:02Z"));
        assert_eq!((soon.actions, soon.again), (vec![], Some(Duration::from_secs(8))));
        // Clocks may differ a little.
        assert_eq!((late.actions, late.again), (vec![], Some(Duration::from_secs(10))));
        // It was set back, or forward, by hours.
        for finished in ["2026-01-01T05:10:00Z", "2025-12-31T19:10:00Z"] {
            assert_eq!(again(finished).actions, [start("a", 2)], "{finished}");
        }
    }

    #[test]
    fn a_pod_that_is_over_gives_back_what_a_lost_sandbox_left() {
        let mut pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
        pod.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
        let (healths, replaced) = (Healths::new(), HashSet::new());
        let now = NOW.parse().unwrap();
        let with = |held| {
            let view =
                View { sandbox: false, held, containers: &[], healths: &healths, replaced: &replaced, now };
            plan(&pod, &view).actions
        };
        assert_eq!((with(true), with(false)), (vec![Action::StopSandbox], vec![]));
    }

    #[test]
    fn sidecars_end_when_all_else_has() {
        let spec = json!({"restartPolicy": "Never", "initContainers": [
            {"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}]});
        let actions = planned(spec, &[running("s"), running("t"), exited("a", 0, 0, NOW)]).actions;
        let names: Vec<&str> = actions
            .iter()
            .filter_map(
                |a| if let Action::Kill { container, .. } = a { Some(container.as_str()) } else { None },
            )
            .collect();
        assert_eq!(names, ["t", "s"]);
    }

    #[test]
    fn a_pod_has_its_time() {
        let mut pod = pod(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a"}]}));
        let began = |at: &str| serde_json::from_value(json!({"startTime": at})).unwrap();
        pod.status = Some(began("2026-01-01T00:09:30Z"));
        let early = with(&pod, true, &[running("a")], &Healths::new());
        assert_eq!((early.actions, early.again), (vec![], Some(Duration::from_secs(30))));
        pod.status = Some(began("2026-01-01T00:09:00Z"));
        assert_eq!(with(&pod, true, &[running("a")], &Healths::new()).actions, [Action::Expire]);
        pod.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
        assert_eq!(with(&pod, true, &[], &Healths::new()).actions, [Action::StopSandbox]);
    }

    #[test]
    fn a_deleted_pod_ends() {
        let mut pod = pod(json!({"containers": [{"name": "a"}]}));
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW.parse().unwrap()));
        pod.metadata.deletion_grace_period_seconds = Some(5);
        let plan = with(&pod, true, &[running("a")], &Healths::new());
        assert_eq!(plan.actions, [Action::Terminate { grace: 5 }]);
    }
}
