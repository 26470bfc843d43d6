//! Questions about jobs and their pods.

use client::{PodView, is_deleting};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};

use crate::common::pods::phase;

/// What keeps a job's pod in being until it has been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The annotation and the label with a pod's completion index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often pods of the index have failed before this one.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often pods of the index have failed before this one in ways that do not count.
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// How `managedBy` names us.
const OURSELVES: &str = "kubernetes.io/job-controller";

/// The condition of this type, if it holds.
pub(crate) fn holding<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind && c.status == "True")
}

/// The condition that says that the job is over.
pub(crate) fn ending(job: &Job) -> Option<&JobCondition> {
    holding(job, "Complete").or_else(|| holding(job, "Failed"))
}

/// Whether some other controller looks after the job.
pub(super) fn is_managed_elsewhere(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_some_and(|by| by != OURSELVES)
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

pub(super) fn completions(spec: &JobSpec) -> Option<u32> {
    spec.completions.map(|n| n.max(0).unsigned_abs())
}

/// Whether a pod is replaced only when it has ended, not when it begins to.
pub(super) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

pub(super) fn has_finalizer(pod: &PodView) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

pub(super) fn uid(pod: &PodView) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(super) fn has_succeeded(pod: &PodView) -> bool {
    phase(pod) == "Succeeded"
}

/// Whether the pod is on its way out and has not ended.
pub(super) fn is_terminating(pod: &PodView) -> bool {
    is_deleting(&pod.metadata) && !crate::common::pods::is_finished(pod)
}

/// Whether the pod counts as failed. One that was deleted may never come to say so itself.
pub(super) fn has_failed(pod: &PodView, spec: &JobSpec) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => is_deleting(&pod.metadata) && !replaces_only_failed(spec),
    }
}

fn annotated<N: std::str::FromStr>(pod: &PodView, name: &str) -> Option<N> {
    pod.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// The completion index.
pub(super) fn index(pod: &PodView) -> Option<u32> {
    annotated::<i32>(pod, INDEX).and_then(|n| u32::try_from(n).ok())
}

/// The completion index, if the job has such a one.
pub(super) fn valid_index(pod: &PodView, spec: &JobSpec) -> Option<u32> {
    index(pod).filter(|index| *index < completions(spec).unwrap_or(0))
}

/// How often the index had failed before this pod; and how often besides, in ways that do not count.
pub(super) fn earlier_failures(pod: &PodView) -> (i32, i32) {
    let read = |name| annotated::<i32>(pod, name).filter(|n| *n >= 0).unwrap_or(0);
    (read(FAILURES), read(IGNORED))
}
