//! Ephemeral containers, as `kubectl debug` adds them to a pod that runs (kubernetes/kubernetes,
//! `pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `computePodActions`).
//!
//! They are started once, at any time while there is a sandbox. They are never started again, and neither the pod's
//! phase nor its readiness looks at them; they end with the pod.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use runtime::{ContainerState, ContainerStatus};

use crate::error::NodeError;
use crate::plan::latest;

/// The pod's ephemeral containers.
pub(crate) fn all(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

/// The ephemeral container of this name.
pub(crate) fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a EphemeralContainer> {
    all(pod).iter().find(|container| container.name == name)
}

/// What it has in common with other containers, which is all but its target.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        target_container_name: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = ephemeral.clone();
    Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    }
}

/// The run whose processes the container is to see, if it names one (`kuberuntime_container.go`, `getTargetID`).
///
/// # Errors
/// When nothing runs under that name: the start is tried again until something does.
pub(crate) fn target(pod: &Pod, name: &str, runs: &[ContainerStatus]) -> Result<Option<String>, NodeError> {
    let named = find(pod, name).and_then(|c| c.target_container_name.as_deref());
    let Some(target) = named.filter(|target| !target.is_empty()) else { return Ok(None) };
    match latest(runs, target) {
        Some(ContainerStatus { id, state: ContainerState::Running { .. }, .. }) => Ok(Some(id.clone())),
        Some(_) => Err(NodeError::Config(format!("target container {target:?} does not run"))),
        None => Err(NodeError::Config(format!("unable to find target container {target:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}], "ephemeralContainers": [
            {"name": "d", "image": "i", "tty": true, "targetContainerName": "a"}, {"name": "e"}]}}))
        .unwrap()
    }

    fn run(state: ContainerState) -> ContainerStatus {
        ContainerStatus {
            id: "a-0".into(),
            sandbox_id: "s".into(),
            name: "a".into(),
            attempt: 0,
            created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            state,
            image: "i".into(),
            labels: Default::default(),
            log_path: None,
        }
    }

    #[test]
    fn a_target_must_run() {
        let pod = pod();
        let runs =
            [run(ContainerState::Running { pid: 1, started_at: "2026-01-01T00:00:00Z".parse().unwrap() })];
        assert_eq!(target(&pod, "d", &runs).unwrap().as_deref(), Some("a-0"));
        assert_eq!(target(&pod, "e", &runs).unwrap(), None);
        let why = |runs: &[ContainerStatus]| target(&pod, "d", runs).unwrap_err().to_string();
        assert_eq!(why(&[]), "unable to find target container \"a\"");
        assert_eq!(why(&[run(ContainerState::Created)]), "target container \"a\" does not run");
    }

    #[test]
    fn all_that_is_common_is_taken_over() {
        let pod = pod();
        let ephemeral = serde_json::to_value(find(&pod, "d").unwrap()).unwrap();
        let mut container = serde_json::to_value(as_container(find(&pod, "d").unwrap())).unwrap();
        container["targetContainerName"] = "a".into();
        assert_eq!(container, ephemeral);
    }
}
