//! What is counted of jobs (kubernetes/kubernetes, `pkg/controller/job/metrics/metrics.go`).

use std::time::Duration;

use base::metrics::{Counter, Family, Histogram, Page};

use super::counter;

const SECONDS: &[f64] = &[
    0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768,
    65.536,
];

static SYNCS: Family<Counter> = Family::new();
static SYNC_SECONDS: Family<Histogram> = Family::new();
static FINISHED: Family<Counter> = Family::new();
static PODS_FINISHED: Family<Counter> = Family::new();
static INDEXES_FINISHED: Family<Counter> = Family::new();
static PODS_CREATED: Family<Counter> = Family::new();
static POLICY: Family<Counter> = Family::new();
static HELD: Family<Counter> = Family::new();
static ELSEWHERE: Family<Counter> = Family::new();

fn mode(indexed: bool) -> &'static str {
    if indexed { "Indexed" } else { "NonIndexed" }
}

/// What `result` and `status` say.
fn outcome(success: bool) -> &'static str {
    if success { "succeeded" } else { "failed" }
}

fn add(family: &Family<Counter>, labels: &str, count: i64) {
    if let Ok(count) = u64::try_from(count)
        && count > 0
    {
        counter(family, labels).add(count);
    }
}

/// A look at a job, and what it did: `reconciling`, `pods_created` or `pods_deleted`.
pub(crate) fn job_synced(indexed: bool, action: &str, success: bool, took: Duration) {
    let result = if success { "success" } else { "error" };
    let labels = format!("action=\"{action}\",completion_mode=\"{}\",result=\"{result}\"", mode(indexed));
    counter(&SYNCS, &labels).inc();
    SYNC_SECONDS.of(&labels, || Histogram::new(SECONDS)).observe(took.as_secs_f64());
}

/// A job is over.
pub(crate) fn job_finished(indexed: bool, success: bool, reason: &str) {
    let (mode, result) = (mode(indexed), outcome(success));
    counter(&FINISHED, &format!("completion_mode=\"{mode}\",reason=\"{reason}\",result=\"{result}\"")).inc();
}

/// So many more pods of a job are counted as finished.
pub(crate) fn job_pods_finished(indexed: bool, success: bool, count: i32) {
    let labels = format!("completion_mode=\"{}\",result=\"{}\"", mode(indexed), outcome(success));
    add(&PODS_FINISHED, &labels, count.into());
}

/// So many more indexes are done or lost; whether each has a limit of its own.
pub(crate) fn job_indexes_finished(success: bool, per_index: bool, count: i64) {
    let limit = if per_index { "perIndex" } else { "global" };
    let labels = format!("backoffLimit=\"{limit}\",status=\"{}\"", outcome(success));
    add(&INDEXES_FINISHED, &labels, count);
}

/// So many pods were to be made, because they are new or in the place of others.
pub(crate) fn job_pods_created(reason: &str, success: bool, count: i64) {
    add(&PODS_CREATED, &format!("reason=\"{reason}\",status=\"{}\"", outcome(success)), count);
}

/// A rule of a failure policy has spoken about a pod.
pub(crate) fn job_policy_applied(action: &str) {
    counter(&POLICY, &format!("action=\"{action}\"")).inc();
}

/// There is one more pod that has ended and awaits being counted, or one less.
pub(crate) fn job_pod_awaits(more: bool) {
    let event = if more { "add" } else { "delete" };
    counter(&HELD, &format!("event=\"{event}\"")).inc();
}

/// A job came that another controller looks after.
pub(crate) fn job_managed_by(controller: &str) {
    let controller = controller.replace(['\\', '"', '\n'], "_");
    counter(&ELSEWHERE, &format!("controller_name=\"{controller}\"")).inc();
}

pub(super) fn page(page: &mut Page) {
    page.counters("job_controller_job_syncs_total", "The number of job syncs", &SYNCS);
    page.histograms(
        "job_controller_job_sync_duration_seconds",
        "The time it took to sync a job",
        &SYNC_SECONDS,
    );
    page.counters("job_controller_jobs_finished_total", "The number of finished jobs", &FINISHED);
    page.counters(
        "job_controller_job_pods_finished_total",
        "The number of finished Pods that are fully tracked",
        &PODS_FINISHED,
    );
    page.counters(
        "job_controller_job_finished_indexes_total",
        "The number of finished indexes",
        &INDEXES_FINISHED,
    );
    page.counters(
        "job_controller_job_pods_creation_total",
        "The number of Pods created by the Job controller labelled with a reason for the Pod creation",
        &PODS_CREATED,
    );
    page.counters(
        "job_controller_pod_failures_handled_by_failure_policy_total",
        "The number of failed Pods handled by failure policy",
        &POLICY,
    );
    page.counters(
        "job_controller_terminated_pods_tracking_finalizer_total",
        "The number of terminated pods that have the finalizer batch.kubernetes.io/job-tracking",
        &HELD,
    );
    page.counters(
        "job_controller_jobs_by_external_controller_total",
        "The number of Jobs managed by an external controller",
        &ELSEWHERE,
    );
}
