//! Which pods to make or to delete (kubernetes/kubernetes, `pkg/controller/job/job_controller.go`, `manageJob`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::PodView;
use k8s_openapi::api::batch::v1::JobSpec;

use super::ask::*;
use super::backoff::remaining_of_index;
use super::indexes::Indexes;
use super::tally::{Indexed, Pods, Tally};
use crate::common::pods::{is_ready, phase, ready_since, restarts};

/// At most so many pods are made or deleted in one step (upstream: `MaxPodCreateDeletePerSync`).
const BURST: usize = 500;

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// Pods failed lately.
    Wait(Duration),
    /// So many pods without an index.
    Create(usize),
    /// A pod for each of these indexes.
    CreateIndexes(Vec<u32>),
    Delete(Vec<Arc<PodView>>),
}

pub(super) fn plan(spec: &JobSpec, pods: &Pods, tally: &Tally, now: Timestamp) -> Step {
    let active = tally.active.len();
    if is_suspended(spec) {
        let all = tally.active.clone();
        return if all.is_empty() { Step::Nothing } else { Step::Delete(all) };
    }
    let parallelism = spec.parallelism.unwrap_or(1).max(0).unsigned_abs() as usize;
    let wanted = match completions(spec) {
        // Once one pod has succeeded, the others may end as they like.
        None if tally.succeeded > 0 => active,
        None => parallelism,
        Some(completions) => parallelism.min(completions.saturating_sub(tally.succeeded) as usize),
    };
    let mut victims = surplus(spec, &tally.active, active.saturating_sub(wanted));
    if !victims.is_empty() {
        victims.truncate(BURST);
        return Step::Delete(victims);
    }
    let leaving = if replaces_only_failed(spec) { tally.terminating.max(0) as usize } else { 0 };
    let missing = wanted.saturating_sub(leaving + active).min(BURST);
    if missing == 0 {
        return Step::Nothing;
    }
    if spec.backoff_limit_per_index.is_none() {
        let delay = tally.record.remaining(now);
        if !delay.is_zero() {
            return Step::Wait(delay);
        }
    }
    match &tally.indexed {
        None => Step::Create(missing),
        Some(indexed) => {
            let free = free_indexes(spec, pods, tally, indexed, missing);
            ready_indexes(free, indexed, now)
        }
    }
}

/// The first indexes that nobody works on and that are not over.
fn free_indexes(spec: &JobSpec, pods: &Pods, tally: &Tally, indexed: &Indexed, count: usize) -> Vec<u32> {
    let mut taken = indexed.succeeded.with(tally.active.iter().filter_map(|pod| index(pod)));
    if replaces_only_failed(spec) {
        taken = taken.with(pods.iter().filter(|pod| is_terminating(pod)).filter_map(|pod| index(pod)));
    }
    taken = taken.union(indexed.failed.as_ref().unwrap_or(&Indexes::default()));
    taken.missing(completions(spec).unwrap_or(0), count)
}

/// Those whose last pod failed long enough ago; each index waits for itself.
fn ready_indexes(free: Vec<u32>, indexed: &Indexed, now: Timestamp) -> Step {
    let delay = |index: &u32| {
        indexed.to_replace.get(index).map_or(Duration::ZERO, |failed| remaining_of_index(failed, now))
    };
    let (ready, waiting): (Vec<u32>, Vec<u32>) = free.into_iter().partition(|index| delay(index).is_zero());
    match waiting.iter().map(delay).min() {
        _ if !ready.is_empty() => Step::CreateIndexes(ready),
        Some(delay) => Step::Wait(delay),
        None => Step::Nothing,
    }
}

/// Active pods that are too many: those whose index another one has or that is none, and so many besides that `least`
/// go.
fn surplus(spec: &JobSpec, active: &Pods, least: usize) -> Vec<Arc<PodView>> {
    let mut sorted = active.to_vec();
    let (mut going, mut rest) = (Vec::new(), Vec::new());
    if is_indexed(spec) {
        let mut by_index: BTreeMap<u32, Vec<Arc<PodView>>> = BTreeMap::new();
        for pod in sorted {
            match valid_index(&pod, spec) {
                Some(index) => by_index.entry(index).or_default().push(pod),
                None => going.push(pod),
            }
        }
        for mut twins in by_index.into_values() {
            twins.sort_by_cached_key(|pod| worth(pod));
            rest.extend(twins.pop());
            going.extend(twins);
        }
        sorted = rest;
    }
    if going.len() < least {
        sorted.sort_by_cached_key(|pod| worth(pod));
        going.extend(sorted.into_iter().take(least - going.len()));
    }
    going
}

/// The pods that are missed least come first (kubernetes/kubernetes, `pkg/controller/controller_utils.go`,
/// `ActivePods`).
fn worth(pod: &PodView) -> impl Ord + use<> {
    let started = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    (
        pod.node_name.is_some(),
        started,
        is_ready(pod),
        Reverse(ready_since(pod)),
        Reverse(restarts(pod)),
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        pod.metadata.uid.clone(),
    )
}

#[cfg(test)]
mod tests;
