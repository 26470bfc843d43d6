//! What is to be done next (kubernetes/kubernetes, `pkg/controller/statefulset/stateful_set_control.go`,
//! `updateStatefulSet`).
//!
//! In order, a pod is made when all before it are available, and goes when all after it have gone; so at most one pod
//! is made or deleted in a step. In parallel nobody waits. Either way a rolling update takes one pod after the other, from
//! the last to the first, unless it is said how many may be missing (`maxUnavailable`, which upstream has behind a gate).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{PodView, is_deleting};
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::identity::{is_labelled, ordinal};
use crate::common::history::revision_of;
use crate::common::pods::{available_in, is_finished, phase};
use crate::common::scaled::scaled;

/// The revisions between which a set is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revisions<'a> {
    pub(super) current: &'a str,
    pub(super) update: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Ended,
    Scaled,
    Updated,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// The pod of this ordinal, of the current revision or of the one that is rolled out.
    Create {
        ordinal: i32,
        current: bool,
    },
    /// A pod that waits may wait for its claims.
    Provide(i32),
    Label(Arc<PodView>),
    Delete(Arc<PodView>, Why),
}

pub(super) fn min_ready(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

pub(super) fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1).max(0)
}

/// The ordinals that the set wants, without the last.
pub(super) fn ordinals(set: &StatefulSet) -> std::ops::Range<i32> {
    let start = set.spec.as_ref().and_then(|s| s.ordinals.as_ref()?.start).unwrap_or(0);
    start..start.saturating_add(replicas(set))
}

fn is_parallel(set: &StatefulSet) -> bool {
    set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref()) == Some("Parallel")
}

pub(super) fn is_rolling(set: &StatefulSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

fn rolling(set: &StatefulSet) -> Option<&RollingUpdateStatefulSetStrategy> {
    set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()
}

/// Ordinals below this one stay at the current revision.
fn partition(set: &StatefulSet) -> i32 {
    let partition = rolling(set).and_then(|r| r.partition).unwrap_or(0);
    ordinals(set).start.saturating_add(partition.max(0))
}

/// How many pods may be missing because of an update: at least one.
pub(super) fn max_unavailable(set: &StatefulSet) -> usize {
    let value = rolling(set).and_then(|r| r.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
    scaled(&value, replicas(set), f64::floor).max(1) as usize
}

/// Whether a new pod of this ordinal is still of the current revision.
fn is_behind(set: &StatefulSet, ordinal: i32) -> bool {
    if !is_rolling(set) {
        return false;
    }
    if rolling(set).is_some() {
        return ordinal < partition(set);
    }
    let current = set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
    ordinal < ordinals(set).start.saturating_add(current)
}

/// Whether a pod serves, and has for long enough.
pub(super) fn is_available(set: &StatefulSet, pod: &PodView, now: Timestamp) -> bool {
    phase(pod) == "Running"
        && !is_deleting(&pod.metadata)
        && available_in(pod, min_ready(set), now) == Some(Duration::ZERO)
}

/// A set's pods by ordinal.
type Pods = BTreeMap<i32, Arc<PodView>>;

/// Those that the set wants, and those that it does not.
pub(super) fn sort(set: &StatefulSet, pods: &[Arc<PodView>]) -> (Pods, Pods) {
    let numbered = pods.iter().filter_map(|pod| Some((ordinal(set, pod)?, pod.clone())));
    numbered.partition(|(ordinal, _)| ordinals(set).contains(ordinal))
}

pub(super) fn plan(
    set: &StatefulSet,
    revisions: Revisions<'_>,
    pods: &[Arc<PodView>],
    now: Timestamp,
) -> Vec<Step> {
    let (wanted, condemned) = sort(set, pods);
    let mut steps = Vec::new();
    let settled = keep(set, &wanted, now, &mut steps) && condemn(set, &condemned, now, &mut steps);
    if settled && is_rolling(set) {
        roll(set, revisions, &wanted, now, &mut steps);
    }
    steps
}

/// Makes what is missing, and replaces what has ended. Tells whether one may go on.
fn keep(set: &StatefulSet, wanted: &Pods, now: Timestamp, steps: &mut Vec<Step>) -> bool {
    let ordered = !is_parallel(set);
    for ordinal in ordinals(set) {
        let Some(pod) = wanted.get(&ordinal) else {
            steps.push(Step::Create { ordinal, current: is_behind(set, ordinal) });
            if ordered {
                return false;
            }
            continue;
        };
        let going = is_deleting(&pod.metadata);
        if is_finished(pod) {
            // The new one is made when this one is gone.
            if !going {
                steps.push(Step::Delete(pod.clone(), Why::Ended));
            }
            if ordered {
                return false;
            }
            continue;
        }
        if phase(pod) == "Pending" && !going {
            steps.push(Step::Provide(ordinal));
        }
        if ordered && !is_available(set, pod, now) {
            return false;
        }
        if !going && !is_labelled(pod) {
            steps.push(Step::Label(pod.clone()));
        }
    }
    true
}

/// Deletes what is too much, the last first.
fn condemn(set: &StatefulSet, condemned: &Pods, now: Timestamp, steps: &mut Vec<Step>) -> bool {
    let ordered = !is_parallel(set);
    let first_unavailable = condemned.iter().find(|(_, pod)| !is_available(set, pod, now)).map(|(n, _)| *n);
    for (ordinal, pod) in condemned.iter().rev() {
        if is_deleting(&pod.metadata) {
            if ordered {
                return false;
            }
            continue;
        }
        if ordered && !is_available(set, pod, now) && first_unavailable != Some(*ordinal) {
            return false;
        }
        steps.push(Step::Delete(pod.clone(), Why::Scaled));
        if ordered {
            return false;
        }
    }
    true
}

/// Deletes pods of other revisions, the last first.
fn roll(set: &StatefulSet, revisions: Revisions<'_>, wanted: &Pods, now: Timestamp, steps: &mut Vec<Step>) {
    if rolling(set).is_some_and(|r| r.max_unavailable.is_some()) {
        return roll_many(set, revisions, wanted, now, steps);
    }
    for ordinal in (partition(set)..ordinals(set).end).rev() {
        // One that is missing is waited for, and so is one that does not serve yet; those before it do not matter.
        let Some(pod) = wanted.get(&ordinal) else { return };
        if is_finished(pod) || is_deleting(&pod.metadata) {
            return;
        }
        if revision_of(pod) != Some(revisions.update) {
            return steps.push(Step::Delete(pod.clone(), Why::Updated));
        }
        if !is_available(set, pod, now) {
            return;
        }
    }
}

/// As many as may be missing. One that serves nobody anyway does not count: else a broken revision could never be
/// replaced.
fn roll_many(
    set: &StatefulSet,
    revisions: Revisions<'_>,
    wanted: &Pods,
    now: Timestamp,
    steps: &mut Vec<Step>,
) {
    let serving = wanted.values().filter(|pod| is_available(set, pod, now)).count();
    let missing = ordinals(set).len().saturating_sub(serving);
    let mut may_go = max_unavailable(set).saturating_sub(missing);
    for (_, pod) in wanted.range(partition(set)..).rev() {
        if revision_of(pod) == Some(revisions.update) || is_deleting(&pod.metadata) || is_finished(pod) {
            continue;
        }
        if is_available(set, pod, now) {
            if may_go == 0 {
                continue;
            }
            may_go -= 1;
        }
        steps.push(Step::Delete(pod.clone(), Why::Updated));
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
