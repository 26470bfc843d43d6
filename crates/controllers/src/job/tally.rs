//! What a job's pods amount to (kubernetes/kubernetes, `pkg/controller/job/job_controller.go`, `syncJob`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use client::PodView;
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};

use super::ask::*;
use super::backoff::{Record, finished_at};
use super::indexes::Indexes;
use super::policy::{Failure, counts, failure};
use crate::common::pods::{is_active, is_ready};

pub(super) type Pods = [Arc<PodView>];

/// What there is, the pods that ended since the status was written included.
pub(super) struct Tally {
    pub(super) active: Vec<Arc<PodView>>,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
    /// With an indexed job.
    pub(super) indexed: Option<Indexed>,
    pub(super) record: Record,
}

/// How it stands with the indexes.
#[derive(Default)]
pub(super) struct Indexed {
    /// As the status says.
    pub(super) before: Indexes,
    pub(super) succeeded: Indexes,
    /// With a limit for each index.
    pub(super) failed: Option<Indexes>,
    /// The failed pods that stay until there are others in their place, because those continue their count.
    pub(super) to_replace: BTreeMap<u32, Arc<PodView>>,
}

/// Whether the pod still awaits being counted: `released` are those whose finalizer was taken off, whether or not the
/// cache shows that already.
pub(super) fn is_tracked(pod: &PodView, released: &HashSet<String>) -> bool {
    has_finalizer(pod) && !released.contains(uid(pod))
}

fn set(list: Option<&Vec<String>>) -> HashSet<&str> {
    list.into_iter().flatten().map(String::as_str).collect()
}

/// The UIDs that are noted as succeeded, and as failed.
fn uncounted(status: &JobStatus) -> (HashSet<&str>, HashSet<&str>) {
    let lists = status.uncounted_terminated_pods.as_ref();
    (set(lists.and_then(|l| l.succeeded.as_ref())), set(lists.and_then(|l| l.failed.as_ref())))
}

fn number(count: Option<i32>) -> u32 {
    count.unwrap_or(0).max(0).unsigned_abs()
}

pub(super) fn tally(
    spec: &JobSpec,
    status: &JobStatus,
    pods: &Pods,
    released: &HashSet<String>,
    record: Record,
) -> Tally {
    let active: Vec<Arc<PodView>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let fits = |pod: &PodView| !is_indexed(spec) || valid_index(pod, spec).is_some();
    let (counted_succeeded, counted_failed) = uncounted(status);
    let fresh = || pods.iter().map(|pod| &**pod).filter(|pod| is_tracked(pod, released) && fits(pod));
    let succeeded = || fresh().filter(|pod| has_succeeded(pod) && !counted_succeeded.contains(uid(pod)));
    let failed = || fresh().filter(|pod| has_failed(pod, spec) && !counted_failed.contains(uid(pod)));
    let mut tally = Tally {
        ready: active.iter().filter(|pod| is_ready(pod)).count() as i32,
        terminating: pods.iter().filter(|pod| is_terminating(pod)).count() as i32,
        succeeded: number(status.succeeded) + (succeeded().count() + counted_succeeded.len()) as u32,
        failed: number(status.failed)
            + (failed().filter(|pod| counts(spec, pod)).count() + counted_failed.len()) as u32,
        record: record.after(succeeded(), failed()),
        indexed: None,
        active,
    };
    if is_indexed(spec) {
        let indexed = indexed(spec, status, pods, released, &tally.active);
        tally.succeeded = indexed.succeeded.total();
        tally.indexed = Some(indexed);
    }
    tally
}

fn indexed(
    spec: &JobSpec,
    status: &JobStatus,
    pods: &Pods,
    released: &HashSet<String>,
    active: &Pods,
) -> Indexed {
    let known = |text: &Option<String>| {
        Indexes::parse(text.as_deref().unwrap_or_default(), completions(spec).unwrap_or(0))
    };
    let with_finalizer = || pods.iter().filter(|pod| has_finalizer(pod));
    let before = known(&status.completed_indexes);
    let done = with_finalizer().filter(|pod| has_succeeded(pod));
    let succeeded = before.with(done.filter_map(|pod| valid_index(pod, spec)));
    let Some(limit) = spec.backoff_limit_per_index else {
        return Indexed { before, succeeded, ..Indexed::default() };
    };
    let lost = with_finalizer().filter(|pod| has_lost_index(spec, pod, limit));
    let failed = known(&status.failed_indexes).with(lost.filter_map(|pod| valid_index(pod, spec)));
    let running = Indexes::default().with(active.iter().filter_map(|pod| index(pod)));
    let mut to_replace: BTreeMap<u32, Arc<PodView>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_tracked(pod, released) && has_failed(pod, spec)) {
        let Some(index) = valid_index(pod, spec) else { continue };
        if succeeded.has(index) || failed.has(index) || running.has(index) {
            continue;
        }
        let order = |pod: &PodView| (total_failures(pod), finished_at(pod));
        match to_replace.get(&index) {
            Some(other) if order(other) > order(pod) => {}
            _ => drop(to_replace.insert(index, pod.clone())),
        }
    }
    Indexed { before, succeeded, failed: Some(failed), to_replace }
}

fn total_failures(pod: &PodView) -> i32 {
    let (counted, ignored) = earlier_failures(pod);
    counted.saturating_add(ignored)
}

fn has_lost_index(spec: &JobSpec, pod: &PodView, limit: i32) -> bool {
    has_failed(pod, spec)
        && match failure(spec, pod) {
            Failure::Index => true,
            Failure::Ignored => false,
            Failure::Counts | Failure::Job(_) => earlier_failures(pod).0 >= limit,
        }
}
