//! What metrics are told of jobs and their pods.

use client::{Change, PodView};
use k8s_openapi::api::batch::v1::{Job, JobStatus};

use super::Look;
use super::ask::*;
use super::indexes::Indexes;
use crate::common::pods::is_finished;

/// Counts the pods that have ended and await being counted.
pub(super) fn count_awaiting(change: &Change<PodView>) {
    let awaits = |pod: &PodView| is_finished(pod) && has_finalizer(pod);
    let (was, is) = match change {
        Change::Added(pod) => (false, awaits(pod)),
        Change::Updated { old, new } => (awaits(old), awaits(new)),
        Change::Deleted(pod) => (awaits(pod), false),
    };
    if was != is {
        crate::metrics::job_pod_awaits(is);
    }
}

/// Whether pods are made for the first time or in the place of others, as metrics name it.
pub(super) fn why_new(look: &Look<'_>) -> &'static str {
    match replaces_only_failed(look.spec) {
        true if look.tally.failed > 0 && look.tally.terminating == 0 => "recreate_failed",
        false if look.tally.failed > 0 || look.tally.terminating > 0 => "recreate_terminating_or_failed",
        _ => "new",
    }
}

/// Counts the indexes that are over since the job was written last.
pub(super) fn count_indexes(job: &Job, status: &JobStatus) {
    let Some(spec) = job.spec.as_ref().filter(|spec| is_indexed(spec)) else { return };
    let per_index = spec.backoff_limit_per_index.is_some();
    let total = |text: Option<&String>| {
        let all = Indexes::parse(text.map_or("", String::as_str), completions(spec).unwrap_or(0));
        i64::from(all.total())
    };
    let before = job.status.clone().unwrap_or_default();
    let done = total(status.completed_indexes.as_ref()) - total(before.completed_indexes.as_ref());
    let lost = total(status.failed_indexes.as_ref()) - total(before.failed_indexes.as_ref());
    crate::metrics::job_indexes_finished(true, per_index, done);
    crate::metrics::job_indexes_finished(false, per_index, lost);
}
