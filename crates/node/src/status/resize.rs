//! What the status says of a pod's resources (kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`,
//! `convertToAPIContainerStatuses`; `pkg/kubelet/status/status_manager.go`, `SetPodResizePendingCondition`,
//! `SetPodResizeInProgressCondition`).

use base::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::whole;
use crate::resize::Sizes;

const PENDING: &str = "PodResizePending";
const PROGRESS: &str = "PodResizeInProgress";
/// The conditions that go when they do not hold any more.
pub(crate) const PASSING: [&str; 2] = [PENDING, PROGRESS];

/// A container that runs shows what it runs with, another what it was promised.
pub(super) fn show(
    status: &mut ContainerStatus,
    container: &Container,
    runs_with: Option<&ResourceRequirements>,
) {
    let promised = container.resources.as_ref();
    status.allocated_resources = promised.and_then(|r| r.requests.clone());
    status.resources = Some(runs_with.or(promised).cloned().unwrap_or_default());
}

/// Adds, changes or takes away the conditions of a resize.
pub(super) fn conditions(list: &mut Vec<PodCondition>, pod: &Pod, sizes: &Sizes, now: Timestamp) {
    let pending = sizes.pending.as_ref().map(|why| (Some(why.reason), Some(why.message.clone())));
    let progress = sizes.progress.as_ref().map(|why| (why.as_ref().map(|_| "Error"), why.clone()));
    for (kind, verdict) in [(PENDING, pending), (PROGRESS, progress)] {
        let old = list.iter().position(|c| c.type_ == kind).map(|at| list.remove(at));
        let Some((reason, message)) = verdict else { continue };
        let since = old.filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
        list.push(PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            message,
            observed_generation: pod.metadata.generation,
            last_transition_time: since.or(Some(Time(whole(now)))),
            ..PodCondition::default()
        });
    }
}
