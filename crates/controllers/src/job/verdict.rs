//! Whether a job is over, and why (kubernetes/kubernetes, `pkg/controller/job/job_controller.go`, `syncJob`).

use std::time::Duration;

use base::Timestamp;
use client::PodView;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};

use super::ask::*;
use super::conditions::condition;
use super::policy::{Failure, failure, success};
use super::tally::{Pods, Tally};
use crate::common::pods::phase;

/// Why the job is to end, or ends: one of the conditions `FailureTarget`, `Failed` and `SuccessCriteriaMet`.
pub(super) fn verdict(
    job: &Job,
    spec: &JobSpec,
    status: &JobStatus,
    pods: &Pods,
    tally: &Tally,
    now: Timestamp,
) -> Option<JobCondition> {
    if let Some(met) = holding(job, "SuccessCriteriaMet") {
        return Some(met.clone());
    }
    if let Some(target) = holding(job, "FailureTarget") {
        return Some(JobCondition { type_: "Failed".into(), ..target.clone() });
    }
    let failed = |reason: &str, message: &str| Some(condition("FailureTarget", reason, message, now));
    let lost = pods.iter().filter(|pod| has_failed(pod, spec)).find_map(|pod| match failure(spec, pod) {
        Failure::Job(why) => Some(why),
        _ => None,
    });
    if let Some(why) = lost {
        return failed("PodFailurePolicy", &why);
    }
    let limit = spec.backoff_limit.unwrap_or(6).max(0).unsigned_abs();
    if tally.failed > limit || restarts_exceed(limit, spec, pods) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if until_deadline(spec, status, now).is_some_and(|left| left.is_zero()) {
        return failed("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let indexed = tally.indexed.as_ref()?;
    let completions = completions(spec).unwrap_or(0);
    if let Some(lost) = indexed.failed.as_ref().map(|failed| failed.total()) {
        if spec.max_failed_indexes.is_some_and(|most| lost > most.max(0).unsigned_abs()) {
            let why = "Job has exceeded the specified maximal number of failed indexes";
            return failed("MaxFailedIndexesExceeded", why);
        }
        if lost > 0 && lost + indexed.succeeded.total() >= completions {
            return failed("FailedIndexes", "Job has failed indexes");
        }
    }
    let why = success(spec.success_policy.as_ref()?, completions, &indexed.succeeded)?;
    Some(condition("SuccessCriteriaMet", "SuccessPolicy", &why, now))
}

/// Containers that start again in their pods count as failures too.
fn restarts_exceed(limit: u32, spec: &JobSpec, pods: &Pods) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let alive = pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let restarts: u32 = alive.map(|pod| all_restarts(pod)).sum();
    restarts >= limit.max(1)
}

fn all_restarts(pod: &PodView) -> u32 {
    let status = pod.status.iter();
    let containers =
        status.flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    containers.map(|c| c.restart_count.max(0).unsigned_abs()).sum()
}

/// How long the job may still be active, if there is a limit and it is active.
pub(super) fn until_deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let allowed = spec.active_deadline_seconds.filter(|_| !is_suspended(spec))?.max(0).unsigned_abs();
    let since = status.start_time.as_ref()?.0;
    let active = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    Some(Duration::from_secs(allowed).saturating_sub(active))
}

/// Whether everything that was asked for has been done, with so many pods still active.
pub(super) fn is_complete(spec: &JobSpec, tally: &Tally, active: i32) -> bool {
    // Without a number the job is done when one pod has found it so and the others have ended.
    active == 0 && tally.succeeded >= completions(spec).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::backoff::Record;
    use super::super::tally::tally;
    use super::*;

    fn judge(spec: Value, status: Value, pods: &[Value]) -> Option<String> {
        let mut object =
            json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure", "containers": []}}}});
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        object["status"] = status;
        let job: Job = testkit::object(object);
        let pods: Vec<Arc<PodView>> =
            pods.iter().map(|pod| testkit::object(pod.clone())).map(Arc::new).collect();
        let (spec, status) = (job.spec.clone().unwrap(), job.status.clone().unwrap());
        let tally = tally(&spec, &status, &pods, &HashSet::new(), Record::default());
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let ended = verdict(&job, &spec, &status, &pods, &tally, now)?;
        Some(format!("{} {}", ended.type_, ended.reason.unwrap_or_default()))
    }

    #[test]
    fn why_a_job_is_over() {
        let restarted = |times: u32, phase: &str| {
            json!({"status": {"phase": phase, "containerStatuses": [{"restartCount": times}],
                "initContainerStatuses": [{"restartCount": 1}]}})
        };
        let indexed = |more: Value| {
            let mut spec = json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1});
            more.as_object().unwrap().iter().for_each(|(field, value)| spec[field] = value.clone());
            spec
        };
        let noted = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "reason": "R"}]});
        let begun = json!({"startTime": "2026-01-01T00:00:00Z"});
        for (spec, status, pods, why) in [
            (json!({}), json!({}), vec![], None),
            (json!({}), json!({"failed": 6}), vec![], None),
            (json!({}), json!({"failed": 7}), vec![], Some("FailureTarget BackoffLimitExceeded")),
            // Containers that start again count, once they have reached the limit.
            (json!({"backoffLimit": 4}), json!({}), vec![restarted(2, "Running")], None),
            (
                json!({"backoffLimit": 4}),
                json!({}),
                vec![restarted(2, "Running"), restarted(0, "Pending")],
                Some("FailureTarget BackoffLimitExceeded"),
            ),
            (json!({"backoffLimit": 4}), json!({}), vec![restarted(9, "Succeeded")], None),
            (
                json!({"backoffLimit": 0}),
                json!({}),
                vec![restarted(0, "Running")],
                Some("FailureTarget BackoffLimitExceeded"),
            ),
            (json!({"activeDeadlineSeconds": 61}), begun.clone(), vec![], None),
            (
                json!({"activeDeadlineSeconds": 60}),
                begun.clone(),
                vec![],
                Some("FailureTarget DeadlineExceeded"),
            ),
            (json!({"activeDeadlineSeconds": 60, "suspend": true}), begun, vec![], None),
            (json!({}), noted("FailureTarget"), vec![], Some("Failed R")),
            (json!({}), noted("SuccessCriteriaMet"), vec![], Some("SuccessCriteriaMet R")),
            (indexed(json!({})), json!({"failedIndexes": "1", "completedIndexes": "0"}), vec![], None),
            (
                indexed(json!({})),
                json!({"failedIndexes": "1", "completedIndexes": "0,2"}),
                vec![],
                Some("FailureTarget FailedIndexes"),
            ),
            (
                indexed(json!({"maxFailedIndexes": 0})),
                json!({"failedIndexes": "1"}),
                vec![],
                Some("FailureTarget MaxFailedIndexesExceeded"),
            ),
            (
                indexed(json!({"successPolicy": {"rules": [{"succeededCount": 1}]}})),
                json!({"completedIndexes": "2"}),
                vec![],
                Some("SuccessCriteriaMet SuccessPolicy"),
            ),
        ] {
            assert_eq!(judge(spec.clone(), status.clone(), &pods).as_deref(), why, "{spec} {status}");
        }
    }
}
