//! A pod's status, from what the runtime says (kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`,
//! `generateAPIPodStatus`, `pkg/kubelet/status/generate.go`).

use std::collections::BTreeMap;

use base::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use runtime::{ContainerState, ContainerStatus, Exit};

use crate::plan::{is_sidecar, latest, remaining, restarts};

/// What the worker knows besides the runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) pod_ip: Option<String>,
    pub(crate) host_ip: String,
    /// Why containers wait, by name: reason and message.
    pub(crate) waiting: BTreeMap<String, (String, String)>,
    /// Image ids by container name.
    pub(crate) image_ids: BTreeMap<String, String>,
}

/// The status that the pod should have.
pub(crate) fn status_of(
    pod: &Pod,
    containers: &[ContainerStatus],
    known: &Known,
    now: Timestamp,
) -> core::PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let empty = core::PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let view = View { containers, known, now };
    let init: Vec<core::ContainerStatus> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| {
            view.container(
                c,
                if is_sidecar(c) {
                    "Always"
                } else if policy == "Never" {
                    "Never"
                } else {
                    "OnFailure"
                },
            )
        })
        .collect();
    let main: Vec<core::ContainerStatus> =
        spec.containers.iter().map(|c| view.container(c, policy)).collect();
    let initialized = spec.init_containers.iter().flatten().zip(&init).all(|(c, s)| {
        if is_sidecar(c) { is_running(s) } else { terminated(s).is_some_and(|t| t.exit_code == 0) }
    });
    let init_failed = policy == "Never"
        && spec
            .init_containers
            .iter()
            .flatten()
            .zip(&init)
            .any(|(c, s)| !is_sidecar(c) && terminated(s).is_some_and(|t| t.exit_code != 0));
    let phase = if init_failed { "Failed" } else { phase(&main, policy, initialized) };
    let over = matches!(phase, "Succeeded" | "Failed");
    let all_ready = !over && initialized && main.iter().all(|s| s.ready);
    let unready: Vec<&str> = main.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    let why = format!("containers with unready status: [{}]", unready.join(" "));
    let (reason, message) = match (all_ready, phase) {
        (true, _) => (None, None),
        (false, "Succeeded") => (Some("PodCompleted"), None),
        (false, "Failed") => (Some("PodFailed"), None),
        (false, _) => (Some("ContainersNotReady"), Some(why)),
    };
    let mut conditions: Vec<core::PodCondition> = old.conditions.clone().unwrap_or_default();
    let mut set = |kind: &str, holds: bool, reason: Option<&str>, message: Option<String>| {
        set_condition(&mut conditions, kind, holds, reason, message, now);
    };
    set("PodReadyToStartContainers", known.pod_ip.is_some() && !over, None, None);
    set(
        "Initialized",
        initialized || phase == "Succeeded",
        (!initialized && phase != "Succeeded").then_some("ContainersNotInitialized"),
        None,
    );
    set("Ready", all_ready, reason, message.clone());
    set("ContainersReady", all_ready, reason, message);
    core::PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        start_time: old.start_time.clone().or(Some(Time(whole(now)))),
        host_ip: Some(known.host_ip.clone()),
        host_ips: Some(vec![core::HostIP { ip: known.host_ip.clone() }]),
        pod_ips: known.pod_ip.clone().or(old.pod_ip.clone()).map(|ip| vec![core::PodIP { ip }]),
        pod_ip: known.pod_ip.clone().or(old.pod_ip.clone()),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        ..old
    }
}

/// Kubernetes writes times in whole seconds.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn is_running(status: &core::ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn terminated(status: &core::ContainerStatus) -> Option<&core::ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

/// The one word for the whole pod (upstream: `getPhase`).
fn phase(main: &[core::ContainerStatus], policy: &str, initialized: bool) -> &'static str {
    let (mut waiting, mut running, mut succeeded, mut failed) = (0, 0, 0, 0);
    for status in main {
        match &status.state {
            Some(core::ContainerState { running: Some(_), .. }) => running += 1,
            Some(core::ContainerState { terminated: Some(t), .. }) if t.exit_code == 0 => succeeded += 1,
            Some(core::ContainerState { terminated: Some(_), .. }) => failed += 1,
            // A container between two runs counts as running.
            _ if status.last_state.as_ref().is_some_and(|s| s.terminated.is_some()) => running += 1,
            _ => waiting += 1,
        }
    }
    match policy {
        _ if !initialized || waiting > 0 => "Pending",
        _ if running > 0 => "Running",
        "Always" => "Running",
        "OnFailure" if failed > 0 => "Running",
        _ if failed > 0 => "Failed",
        _ if succeeded > 0 => "Succeeded",
        _ => "Pending",
    }
}

fn set_condition(
    list: &mut Vec<core::PodCondition>,
    kind: &str,
    holds: bool,
    reason: Option<&str>,
    message: Option<String>,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let new = core::PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: Some(Time(whole(now))),
        ..Default::default()
    };
    match list.iter_mut().find(|c| c.type_ == kind) {
        Some(old) if old.status == new.status => {
            *old = core::PodCondition { last_transition_time: old.last_transition_time.clone(), ..new };
        }
        Some(old) => *old = new,
        None => list.push(new),
    }
}

struct View<'a> {
    containers: &'a [ContainerStatus],
    known: &'a Known,
    now: Timestamp,
}

impl View<'_> {
    fn container(&self, container: &core::Container, policy: &str) -> core::ContainerStatus {
        let name = &container.name;
        let current = latest(self.containers, name);
        let previous = current
            .and_then(|c| self.containers.iter().find(|p| p.name == *name && p.attempt + 1 == c.attempt));
        let mut status = core::ContainerStatus {
            name: name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: self.known.image_ids.get(name).cloned().unwrap_or_default(),
            restart_count: current.map_or(0, |c| c.attempt as i32),
            started: Some(false),
            ..Default::default()
        };
        if let Some(ContainerStatus { id, state: ContainerState::Exited(exit), .. }) = previous {
            status.last_state = Some(ended(id, exit));
        }
        let waiting = |reason: &str, message: Option<String>| core::ContainerState {
            waiting: Some(core::ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
            ..Default::default()
        };
        status.state = Some(match current {
            None => match self.known.waiting.get(name) {
                Some((reason, message)) => waiting(reason, Some(message.clone())),
                None => waiting("ContainerCreating", None),
            },
            Some(c) => {
                status.container_id = Some(format!("gantry://{}", c.id));
                match &c.state {
                    ContainerState::Created => waiting("ContainerCreating", None),
                    ContainerState::Running { started_at, .. } => {
                        status.started = Some(true);
                        status.ready = true;
                        let running =
                            core::ContainerStateRunning { started_at: Some(Time(whole(*started_at))) };
                        core::ContainerState { running: Some(running), ..Default::default() }
                    }
                    ContainerState::Exited(exit) => match self.known.waiting.get(name) {
                        Some((reason, message)) => {
                            status.last_state = Some(ended(&c.id, exit));
                            waiting(reason, Some(message.clone()))
                        }
                        None if restarts(policy, exit) && !remaining(c.attempt, exit, self.now).is_zero() => {
                            status.last_state = Some(ended(&c.id, exit));
                            let delay = crate::plan::backoff(c.attempt).as_secs();
                            waiting(
                                "CrashLoopBackOff",
                                Some(format!("back-off {delay}s restarting failed container={name}")),
                            )
                        }
                        None => ended(&c.id, exit),
                    },
                }
            }
        });
        status
    }
}

fn ended(id: &str, exit: &Exit) -> core::ContainerState {
    let reason = match exit {
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { lost: Some(_), .. } => "ContainerStatusUnknown",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    };
    let terminated = core::ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(reason.to_owned()),
        message: exit.lost.clone(),
        signal: exit.signal,
        started_at: Some(Time(whole(exit.started_at))),
        finished_at: Some(Time(whole(exit.finished_at))),
        container_id: Some(format!("gantry://{id}")),
    };
    core::ContainerState { terminated: Some(terminated), ..Default::default() }
}
