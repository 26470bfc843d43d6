//! Counting each ended pod exactly once.
//!
//! A pod bears a finalizer until it is counted. Its UID goes into `status.uncountedTerminatedPods` (or its index into
//! `completedIndexes`), that status is written, the finalizer is taken off, and with the next write of the status the
//! UID becomes a number. Whoever is stopped in between sees by the finalizer how far it got (kubernetes/kubernetes,
//! `pkg/controller/job/job_controller.go`, `trackJobStatusAndRemoveFinalizers`).

use std::collections::HashSet;
use std::sync::Arc;

use client::{PodView, is_deleting};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};

use super::ask::*;
use super::policy::{action, counts};
use super::tally::{Pods, Tally, is_tracked};

/// At most so many pods are counted in one step, so that the status stays small (upstream: `MaxUncountedPods`).
const MOST: usize = 500;

/// The pods whose finalizers come off once the status is written.
#[derive(Default)]
pub(super) struct Tracked {
    pub(super) release: Vec<Arc<PodView>>,
    /// What rules of the failure policy said of pods that are noted now.
    pub(super) policy: Vec<String>,
    /// There are more pods to count.
    pub(super) more: bool,
}

/// Notes in the status which pods have ended.
pub(super) fn track(
    job: &Job,
    spec: &JobSpec,
    status: &mut JobStatus,
    pods: &Pods,
    released: &HashSet<String>,
    tally: &Tally,
    ended: Option<&JobCondition>,
) -> Tracked {
    let held = held(pods, released);
    settle(status, &held);
    let failing = ended.is_some_and(|condition| condition.type_ != "SuccessCriteriaMet");
    let mut tracked = Tracked::default();
    let mut indexes: Vec<u32> = Vec::new();
    let mut sorted: Vec<&Arc<PodView>> = pods.iter().filter(|pod| is_tracked(pod, released)).collect();
    if is_indexed(spec) {
        sorted.sort_by_key(|pod| index(pod));
    }
    for pod in sorted {
        let failed = has_failed(pod, spec);
        if !(is_deleting(&job.metadata)
            || ended.is_some()
            || has_succeeded(pod)
            || failed && !waits(tally, pod))
        {
            continue;
        }
        tracked.release.push(pod.clone());
        let fits = valid_index(pod, spec);
        let lists = status.uncounted_terminated_pods.get_or_insert_default();
        let noted = |list: &Option<Vec<String>>| list.iter().flatten().any(|known| known == uid(pod));
        if has_succeeded(pod) && !noted(&lists.failed) {
            match &tally.indexed {
                // The index is enough to tell that it was counted.
                Some(indexed) => indexes.extend(fits.filter(|index| !indexed.before.has(*index))),
                None if !noted(&lists.succeeded) => {
                    lists.succeeded.get_or_insert_default().push(uid(pod).into())
                }
                None => {}
            }
        } else if (failed || failing) && !noted(&lists.failed) && (fits.is_some() || !is_indexed(spec)) {
            tracked.policy.extend(action(spec, pod).map(str::to_owned));
            if !counts(spec, pod) {
                continue;
            }
            lists.failed.get_or_insert_default().push(uid(pod).into());
        }
        let count = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        if indexes.len() + count(&lists.succeeded) + count(&lists.failed) >= MOST {
            tracked.more = true;
            break;
        }
    }
    if let Some(indexed) = &tally.indexed {
        let succeeded = indexed.before.with(indexes);
        status.succeeded = positive(succeeded.total() as i32);
        status.completed_indexes = Some(succeeded.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = indexed.failed.as_ref().map(ToString::to_string);
    }
    tracked
}

/// Whether the failed pod stays until there is another one in its place.
fn waits(tally: &Tally, pod: &PodView) -> bool {
    let indexed = tally.indexed.as_ref();
    let waiting = index(pod).and_then(|index| indexed?.to_replace.get(&index));
    waiting.is_some_and(|waiting| waiting.metadata.uid == pod.metadata.uid)
}

/// The UIDs of the pods that have their finalizer.
pub(super) fn held(pods: &Pods, released: &HashSet<String>) -> HashSet<String> {
    pods.iter().filter(|pod| is_tracked(pod, released)).map(|pod| uid(pod).to_owned()).collect()
}

/// Makes numbers of the noted pods whose finalizers are off.
pub(super) fn settle(status: &mut JobStatus, held: &HashSet<String>) {
    let Some(lists) = &mut status.uncounted_terminated_pods else { return };
    for (list, number) in
        [(&mut lists.succeeded, &mut status.succeeded), (&mut lists.failed, &mut status.failed)]
    {
        let Some(uids) = list else { continue };
        let before = uids.len();
        uids.retain(|uid| held.contains(uid));
        *number = positive(number.unwrap_or(0) + (before - uids.len()) as i32);
        if uids.is_empty() {
            *list = None;
        }
    }
}

/// Whether no pod awaits being counted.
pub(super) fn is_settled(status: &JobStatus) -> bool {
    status.uncounted_terminated_pods.as_ref().is_none_or(|l| l.succeeded.is_none() && l.failed.is_none())
}

/// Zero is left out, as the server does.
pub(super) fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests;
