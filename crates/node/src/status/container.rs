//! One container's part of the status (kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`,
//! `convertToAPIContainerStatuses`).

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use runtime::{ContainerState, ContainerStatus, Exit};

use super::{Known, whole};
use crate::plan::{View, backoff, is_lost, is_sidecar, latest, ran_before, remaining};
use crate::restarts;

/// How the ids of containers begin in the API: what runs them.
#[derive(Clone, Debug)]
pub(crate) struct Scheme(Arc<str>);

impl Scheme {
    pub(crate) fn new(runtime: &str) -> Self {
        Self(runtime.into())
    }

    /// A container's id in the API.
    pub(crate) fn of(&self, id: &str) -> String {
        format!("{}://{id}", self.0)
    }
}

impl Default for Scheme {
    fn default() -> Self {
        Self::new("gantry")
    }
}

pub(super) struct Teller<'a> {
    pub(super) pod: &'a Pod,
    pub(super) view: &'a View<'a>,
    pub(super) known: &'a Known,
    pub(super) has_init: bool,
}

impl Teller<'_> {
    pub(super) fn tell(
        &self,
        container: &core::Container,
        policy: Option<&str>,
        init: bool,
    ) -> core::ContainerStatus {
        let name = &container.name;
        let current = latest(self.view.containers, name);
        let old = self.old(name);
        let mut status = core::ContainerStatus {
            name: name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: match self.known.image_ids.get(name) {
                Some(id) => id.clone(),
                None => old.map(|o| o.image_id.clone()).unwrap_or_default(),
            },
            started: Some(false),
            ..Default::default()
        };
        match current {
            Some(run) => self.of_run(&mut status, container, policy, run, init, old),
            None => self.of_none(&mut status, name, init, old),
        }
        let running = current.filter(|run| matches!(run.state, ContainerState::Running { .. }));
        let runs_with = running.and_then(|run| self.known.sizes.running.get(&run.id));
        super::resize::show(&mut status, container, runs_with);
        status
    }

    fn old(&self, name: &str) -> Option<&core::ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists.into_iter().flatten().flatten().find(|c| c.name == name)
    }

    fn of_run(
        &self,
        status: &mut core::ContainerStatus,
        container: &core::Container,
        policy: Option<&str>,
        run: &ContainerStatus,
        init: bool,
        old: Option<&core::ContainerStatus>,
    ) {
        let name = &container.name;
        status.restart_count = run.attempt as i32;
        // One that has not begun may never do so: what the API knows of is what has run.
        status.container_id = match run.state {
            ContainerState::Created => old.and_then(|o| o.container_id.clone()),
            _ => Some(self.known.scheme.of(&run.id)),
        };
        status.volume_mounts = super::extras::mounts(self.pod, container, self.known);
        status.stop_signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
        let same_run = old.filter(|o| o.container_id == status.container_id);
        status.user = self.known.users.get(&run.id).or_else(|| same_run?.user.as_ref()).cloned();
        let mut runs = self.view.containers.iter();
        match runs.find(|p| p.name == *name && p.attempt + 1 == run.attempt) {
            Some(ContainerStatus { id, state: ContainerState::Exited(exit), .. }) => {
                status.last_state = Some(self.ended(id, exit));
            }
            // It was cleared away since: the API remembers.
            _ => status.last_state = old.and_then(|o| self.earlier(o, &run.id)),
        }
        let state = match &run.state {
            ContainerState::Created => waiting("ContainerCreating", None),
            ContainerState::Running { started_at, .. } => {
                let health = self.view.health(container, &run.id);
                status.started = Some(health.is_started());
                // An ordinary init container is ready when it is through.
                status.ready = (!init || is_sidecar(container)) && health.is_ready();
                let running = core::ContainerStateRunning { started_at: Some(Time(whole(*started_at))) };
                core::ContainerState { running: Some(running), ..Default::default() }
            }
            ContainerState::Exited(exit) => {
                status.ready = init && !is_sidecar(container) && exit.code == 0;
                let ending = self.known.ending.is_some() || self.pod.metadata.deletion_timestamp.is_some();
                let spec = self.pod.spec.as_ref();
                let policy = policy.or_else(|| Some(restarts::policy(spec?, container, exit.code)));
                // An init container that has succeeded is through.
                let through = init && !is_sidecar(container) && exit.code == 0;
                let policy = policy.filter(|_| !through).unwrap_or("Never");
                let again = !ending && self.view.restarts(policy, run, exit);
                match self.known.waiting.get(name) {
                    Some((reason, message)) if again => {
                        status.last_state = Some(self.ended(&run.id, exit));
                        waiting(reason, Some(message.clone()))
                    }
                    _ if again && !remaining(run, exit, self.view).is_zero() => {
                        status.last_state = Some(self.ended(&run.id, exit));
                        let delay = go_duration(backoff(run, exit, self.view.longest).as_secs());
                        let why = format!(
                            "back-off {delay} restarting failed container={name} pod={}",
                            full_name(self.pod)
                        );
                        waiting("CrashLoopBackOff", Some(why))
                    }
                    _ => self.ended(&run.id, exit),
                }
            }
        };
        status.state = Some(state);
    }

    fn of_none(
        &self,
        status: &mut core::ContainerStatus,
        name: &str,
        init: bool,
        old: Option<&core::ContainerStatus>,
    ) {
        if let Some(restarts) = ran_before(self.pod, name) {
            // It ran, and nothing is left of it: its sandbox was lost.
            status.restart_count = i32::try_from(restarts).unwrap_or(i32::MAX);
            status.container_id = old.and_then(|o| o.container_id.clone());
            let ended = old.and_then(|o| o.state.clone()).filter(|s| s.terminated.is_some());
            status.state = Some(ended.unwrap_or_else(|| unknown(status.container_id.clone())));
            if let Some((reason, message)) = self.known.waiting.get(name) {
                status.last_state = status.state.take();
                status.state = Some(waiting(reason, Some(message.clone())));
            }
            return;
        }
        let lost = self.pod.spec.as_ref().is_some_and(|spec| is_lost(self.pod, spec, self.view));
        if lost && !init {
            // The others have begun, in a sandbox that was lost, and it never will.
            status.state = Some(unknown(None));
            return;
        }
        status.state = Some(match self.known.waiting.get(name) {
            Some((reason, message)) => waiting(reason, Some(message.clone())),
            None if init || self.has_init => waiting("PodInitializing", None),
            None => waiting("ContainerCreating", None),
        });
    }

    /// The end of the run before `id`, as the API has it.
    fn earlier(&self, old: &core::ContainerStatus, id: &str) -> Option<core::ContainerState> {
        let ended = |state: &Option<core::ContainerState>| state.clone().filter(|s| s.terminated.is_some());
        if old.container_id.as_deref() == Some(&self.known.scheme.of(id)) {
            ended(&old.last_state)
        } else {
            ended(&old.state).or_else(|| ended(&old.last_state))
        }
    }

    fn ended(&self, id: &str, exit: &Exit) -> core::ContainerState {
        let reason = match exit {
            Exit { oom_killed: true, .. } => "OOMKilled",
            exit if exit.is_unstarted() => "StartError",
            Exit { lost: Some(_), .. } => "ContainerStatusUnknown",
            Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        let terminated = core::ContainerStateTerminated {
            exit_code: exit.code,
            reason: Some(reason.to_owned()),
            message: self.known.last_words.get(id).filter(|m| !m.is_empty()).cloned().or(exit.lost.clone()),
            signal: exit.signal,
            started_at: Some(Time(whole(exit.started_at))),
            finished_at: Some(Time(whole(exit.finished_at))),
            container_id: Some(self.known.scheme.of(id)),
        };
        core::ContainerState { terminated: Some(terminated), ..Default::default() }
    }
}

/// The end of a container of which nothing is left.
fn unknown(container_id: Option<String>) -> core::ContainerState {
    let terminated = core::ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        container_id,
        ..Default::default()
    };
    core::ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn waiting(reason: &str, message: Option<String>) -> core::ContainerState {
    let waiting = core::ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    core::ContainerState { waiting: Some(waiting), ..Default::default() }
}

/// A pod as messages call it (`pkg/kubelet/util/format`).
pub(crate) fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// Seconds as Go writes a duration.
fn go_duration(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}
