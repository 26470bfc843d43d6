//! Saying what happened: events and the pod's status.

use client::{EventKind, Key, Recorder, reference};
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::error::NodeError;
use crate::plan::{Action, View, is_over};
use crate::probe::{Kind, Outcome};
use crate::status::{BY_AGENT, DISRUPTED, OWN_CONDITIONS, PASSING_CONDITIONS, status_of};
use crate::worker::{Agent, uid_of};

/// A container of a pod, as events point at it.
pub(crate) fn about(pod: &Pod, container: &Container) -> ObjectReference {
    let spec = pod.spec.as_ref();
    let init =
        spec.into_iter().flat_map(|s| s.init_containers.iter().flatten()).any(|c| c.name == container.name);
    let list = match init {
        true => "initContainers",
        false if crate::ephemeral::find(pod, &container.name).is_some() => "ephemeralContainers",
        false => "containers",
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{}}}", container.name)), ..reference(pod) }
}

/// What a probe found (kubernetes/kubernetes, `pkg/kubelet/prober/prober.go`, `probe`).
pub(crate) fn tell_probe(recorder: &Recorder, about: &ObjectReference, kind: Kind, outcome: &Outcome) {
    let title = kind.title();
    let (reason, message) = match outcome {
        Outcome::Passed => return,
        Outcome::Warned(why) => ("ProbeWarning", format!("{title} probe warning: {why}")),
        Outcome::Failed(why) => ("Unhealthy", format!("{title} probe failed: {why}")),
        Outcome::Errored(why) => {
            ("Unhealthy", format!("{title} probe errored and resulted in unknown state: {why}"))
        }
    };
    recorder.say(about.clone(), EventKind::Warning, reason, message);
}

impl Agent {
    /// Says that something went as it should with a container.
    pub(crate) fn say(&self, pod: &Pod, container: &Container, reason: &str, message: impl Into<String>) {
        self.recorder.say(about(pod, container), EventKind::Normal, reason, message);
    }

    /// Says that something went wrong with a container.
    pub(crate) fn warn(&self, pod: &Pod, container: &Container, reason: &str, message: impl Into<String>) {
        self.recorder.say(about(pod, container), EventKind::Warning, reason, message);
    }

    /// Remembers for the status why a container waits, and says it in an event.
    pub(crate) fn note_failure(&self, pod: &Pod, action: &Action, error: &NodeError) {
        let message = error.to_string();
        let reason = error.waiting_reason();
        let named = match action {
            Action::Start { container, .. } | Action::Kill { container, .. } => {
                crate::worker::named_container(pod, container)
            }
            _ => None,
        };
        // Volumes are the pod's.
        let mount = error.is_mount();
        let named = named.filter(|_| !mount);
        let about = named.map_or_else(|| reference(pod), |c| about(pod, &c));
        let (kind, event, text) = match error {
            NodeError::Image { reason: "ImagePullBackOff", .. } => {
                (EventKind::Normal, "BackOff", message.clone())
            }
            NodeError::Volume(_) if mount => (EventKind::Warning, "FailedMount", message.clone()),
            // It has been said.
            NodeError::Hook { .. } => (EventKind::Normal, "", String::new()),
            NodeError::Dra(why) if matches!(action, Action::StartSandbox) => (
                EventKind::Warning,
                "FailedPrepareDynamicResources",
                format!("Failed to prepare dynamic resources: prepare dynamic resources: {why}"),
            ),
            _ => match action {
                Action::StartSandbox => {
                    let text = format!("Failed to create pod sandbox: {message}");
                    (EventKind::Warning, "FailedCreatePodSandBox", text)
                }
                Action::Kill { .. } | Action::Expire | Action::StopSandbox | Action::RestartAll { .. } => {
                    (EventKind::Warning, "FailedKillPod", format!("error killing pod: {message}"))
                }
                _ => (EventKind::Warning, "Failed", format!("Error: {message}")),
            },
        };
        if !event.is_empty() {
            self.recorder.say(about, kind, event, text);
        }
        // A volume that is not there yet is no news in the status, as upstream has it.
        // One that could not be started does not wait: it has ended.
        if let Action::Start { container, .. } = action
            && !mount
            && !error.is_unstarted()
        {
            let why = (reason.to_owned(), message);
            self.note(uid_of(pod), |known| drop(known.waiting.insert(container.clone(), why)));
        }
    }

    pub(crate) async fn write_status(&self, pod: &Pod) -> Result<(), NodeError> {
        let uid = uid_of(pod);
        let ip = self.pod_ip(pod);
        self.note(uid, |known| {
            known.pod_ip = ip;
            known.host_ip = self.config.ip.to_string();
        });
        if is_over(pod) && crate::ephemeral::all(pod).is_empty() {
            return Ok(());
        }
        let sandbox = self.is_sandbox_ready(pod).await;
        let containers = self.runtime.containers(uid);
        // A pod whose end has been written is not written again: what has ended by now is told with its last words.
        self.hear_last_words(pod, &containers);
        let mut known = self.known(pod);
        known.devices = self.device_health(pod);
        let healths = self.probers.healths(uid);
        let (replaced, now) = (&known.replaced, self.clock.now());
        let held = !known.released;
        let longest = self.config.kubelet.containers.max_restart_period;
        let view = View { sandbox, held, containers: &containers, healths: &healths, replaced, now, longest };
        let mut status = status_of(pod, &view, &known);
        if is_over(pod) {
            // Only those that nobody waited for may still have ended.
            let ended = status.ephemeral_container_statuses.take();
            let before = pod.status.clone().unwrap_or_default();
            status = PodStatus { ephemeral_container_statuses: ended, ..before };
        }
        if pod.status.as_ref() == Some(&status) {
            return Ok(());
        }
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) && !is_over(pod) {
            // Whoever waits for its devices may have them once its end is known.
            self.dra.unprepare(uid).await?;
        }
        if is_running(Some(&status)) && !is_running(pod.status.as_ref()) {
            let since = pod.metadata.creation_timestamp.as_ref().map(|at| now.duration_since(at.0));
            self.meters.pod_started(since.and_then(|s| s.try_into().ok()).unwrap_or_default());
        }
        if self.pods.is_own(pod) {
            self.pods.report(pod, status);
            // As the API's word of it would.
            self.queue.add(Key::of(pod));
            return Ok(());
        }
        send_status(&self.client, pod, status).await
    }
}

/// Writes a pod's status, unless the API has it already. `pod` is as the API has it.
pub(crate) async fn send_status(client: &Client, pod: &Pod, status: PodStatus) -> Result<(), NodeError> {
    if pod.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<Pod> =
        Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let status = own_part(serde_json::to_value(&status).map_err(kube::Error::SerdeError)?, pod);
    let patch = json!({"metadata": {"uid": uid_of(pod)}, "status": status});
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
        other => other.map(drop).map_err(Into::into),
    }
}

fn is_running(status: Option<&PodStatus>) -> bool {
    status.and_then(|s| s.phase.as_deref()) == Some("Running")
}

/// A status as a strategic patch: conditions are merged by type, so only the agent's own are sent, and what they do
/// not say is taken away.
fn own_part(mut status: Value, pod: &Pod) -> Value {
    let is_own = |kind: &str| OWN_CONDITIONS.contains(&kind) || PASSING_CONDITIONS.contains(&kind);
    let before = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let passed = before.map(|c| c.type_.as_str()).filter(|kind| PASSING_CONDITIONS.contains(kind));
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|c| {
            let ours = c["type"].as_str().is_some_and(is_own);
            ours || (c["type"] == DISRUPTED && c["reason"] == BY_AGENT)
        });
        for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
            for field in ["reason", "message"] {
                condition.entry(field).or_insert(Value::Null);
            }
        }
        let gone: Vec<&str> = passed.filter(|kind| !conditions.iter().any(|c| c["type"] == *kind)).collect();
        conditions.extend(gone.into_iter().map(|kind| json!({"$patch": "delete", "type": kind})));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_conditions_are_written() {
        let status =
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "gate", "status": "True"}]});
        let want =
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]});
        assert_eq!(own_part(status, &Pod::default()), want);
    }

    #[test]
    fn what_has_passed_is_taken_away() {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "r", "message": "m"});
        let before = [condition("PodResizePending"), condition("PodResizeInProgress"), condition("gate")];
        let pod = serde_json::from_value(json!({"status": {"conditions": before}})).unwrap();
        let status = json!({"conditions": [condition("PodResizeInProgress"), condition("gate")]});
        let gone = json!({"$patch": "delete", "type": "PodResizePending"});
        assert_eq!(own_part(status, &pod), json!({"conditions": [condition("PodResizeInProgress"), gone]}));
    }

    #[test]
    fn events_point_at_the_container() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
            "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
                "ephemeralContainers": [{"name": "d"}]}}))
        .unwrap();
        let path = |name: &str| {
            about(&pod, &Container { name: name.into(), ..Default::default() }).field_path.unwrap()
        };
        assert_eq!(path("d"), "spec.ephemeralContainers{d}");
        assert_eq!(
            (path("a").as_str(), path("i").as_str()),
            ("spec.containers{a}", "spec.initContainers{i}")
        );
    }
}
