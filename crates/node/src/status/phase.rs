//! The one word for the whole pod (kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`, `getPhase`).

use k8s_openapi::api::core::v1 as core;

use crate::plan::is_sidecar;
use crate::restarts::policy;

/// The exit code of a container that has ended.
pub(super) fn exit_code(status: &core::ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

fn is_running(status: &core::ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

/// Whether another run follows the one that has ended.
fn restarts(spec: &core::PodSpec, status: &core::ContainerStatus) -> bool {
    let Some(container) = spec.containers.iter().find(|c| c.name == status.name) else { return false };
    match exit_code(status) {
        Some(code) => match policy(spec, container, code) {
            "Always" => true,
            "OnFailure" => code != 0,
            _ => false,
        },
        // Between two runs.
        None => status.last_state.as_ref().is_some_and(|s| s.terminated.is_some()),
    }
}

/// `over` is whether nothing will be started any more.
pub(super) fn phase<'a>(
    spec: &core::PodSpec,
    inits: impl Iterator<Item = (&'a core::Container, &'a core::ContainerStatus)>,
    main: &[core::ContainerStatus],
    initialized: bool,
    over: bool,
) -> &'static str {
    let (mut init_failed, mut sidecars_run) = (false, false);
    for (container, status) in inits {
        if is_sidecar(container) {
            sidecars_run |= is_running(status);
        } else if exit_code(status).is_some_and(|code| code != 0 && policy(spec, container, code) == "Never")
        {
            init_failed = true;
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in main {
        if is_running(status) {
            running += 1;
        } else if let Some(code) = exit_code(status) {
            stopped += 1;
            succeeded += usize::from(code == 0);
        } else if status.last_state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            // Between two runs.
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    if init_failed {
        return "Failed";
    }
    if over && running == 0 && !sidecars_run {
        // Whoever is ended before it began has not succeeded.
        return if waiting == 0 && stopped == succeeded && stopped > 0 { "Succeeded" } else { "Failed" };
    }
    match () {
        () if !initialized || waiting > 0 => "Pending",
        () if running > 0 => "Running",
        // Sidecars are ended first.
        () if sidecars_run => "Running",
        () if stopped == 0 => "Pending",
        () if main.iter().any(|status| restarts(spec, status)) => "Running",
        () if stopped == succeeded => "Succeeded",
        () => "Failed",
    }
}
