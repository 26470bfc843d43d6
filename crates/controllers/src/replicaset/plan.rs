//! How many pods too few or too many, and which of them go first.

use client::PodView;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use super::kinds::Replicating;
use crate::common::pods::{is_active, is_ready, phase, ready_since, restarts};
use base::Timestamp;

/// At most so many pods are created or deleted in one step (upstream: `BurstReplicas`).
const BURST: usize = 500;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<PodView>>),
}

/// What brings the number of active pods to what the set says. `siblings` are asked for only when pods must go.
pub(super) fn plan(
    set: &impl Replicating,
    active: &[Arc<PodView>],
    siblings: impl FnOnce() -> Vec<Arc<PodView>>,
    now: Timestamp,
) -> Step {
    let wanted = set.replicas().unwrap_or(1).max(0) as usize;
    match active.len().cmp(&wanted) {
        Ordering::Equal => Step::Nothing,
        Ordering::Less => Step::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(BURST);
            let mut victims = active.to_vec();
            // With none left over there is nothing to choose.
            if surplus < victims.len() {
                rank(&mut victims, &siblings(), now);
                victims.truncate(surplus);
            }
            Step::Delete(victims)
        }
    }
}

/// Sorts so that the pods that are missed least come first (kubernetes/kubernetes,
/// `pkg/controller/controller_utils.go`, `ActivePodsWithRanks`).
fn rank(pods: &mut [Arc<PodView>], siblings: &[Arc<PodView>], now: Timestamp) {
    let mut crowds: HashMap<&str, u32> = HashMap::new();
    for pod in siblings.iter().filter(|pod| is_active(pod)) {
        *crowds.entry(node(pod)).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let started = match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let ready = is_ready(pod);
        let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (
            !node(pod).is_empty(),
            started,
            ready,
            cost(pod),
            Reverse(crowds.get(node(pod)).copied().unwrap_or(0)),
            // The younger go first; ages of one order of magnitude count as equal.
            if ready { ready_since(pod).map_or(0, |since| magnitude(since, now)) } else { 0 },
            Reverse(restarts(pod)),
            created.map_or(0, |created| magnitude(created, now)),
            pod.metadata.uid.clone(),
        )
    });
}

/// How many times as old as the youngest ready pod each ready one is that goes (upstream:
/// `reportSortingDeletionAgeRatioMetric`).
pub(super) fn age_ratios(active: &[Arc<PodView>], going: &[Arc<PodView>], now: Timestamp) -> Vec<f64> {
    let age = |pod: &Arc<PodView>| {
        let since = ready_since(pod).and(pod.metadata.creation_timestamp.as_ref())?.0;
        Some(now.duration_since(since).as_secs_f64())
    };
    let youngest = active.iter().filter_map(age).fold(f64::INFINITY, f64::min);
    going.iter().filter_map(age).filter(|_| youngest > 0.0).map(|age| age / youngest).collect()
}

fn node(pod: &PodView) -> &str {
    pod.node_name.as_deref().unwrap_or_default()
}

fn cost(pod: &PodView) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    let seconds = now.duration_since(since).as_secs().max(0).unsigned_abs();
    u64::BITS - seconds.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready: bool, cost: &str, age: u32) -> Arc<PodView> {
        let created = format!("2026-01-01T00:{:02}:00Z", 59 - age);
        Arc::new(testkit::object(json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": created,
                "annotations": {DELETION_COST: cost}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase, "conditions": [{"type": "Ready",
                "status": if ready { "True" } else { "False" }, "lastTransitionTime": created}]},
        })))
    }

    fn names(pods: &[Arc<PodView>]) -> Vec<&str> {
        pods.iter().map(|p| p.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn the_least_missed_go_first() {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let pods = vec![
            pod("old", "a", "Running", true, "0", 50),
            pod("young", "a", "Running", true, "0", 1),
            pod("crowded", "b", "Running", true, "0", 50),
            pod("cheap", "a", "Running", true, "-5", 50),
            pod("unready", "a", "Running", false, "0", 50),
            pod("pending", "a", "Pending", false, "0", 50),
            pod("unassigned", "", "Pending", false, "0", 50),
        ];
        let mut siblings = pods.clone();
        for n in 0..9 {
            siblings.push(pod(&n.to_string(), "b", "Running", true, "0", 5));
        }
        let (old, young) = (pods[0].clone(), pods[1].clone());
        assert_eq!(age_ratios(&[old.clone(), young.clone()], &[old, young], now), [51.0 / 2.0, 1.0]);
        let set = testkit::replica_set("x", 1);
        let Step::Delete(victims) = plan(&set, &pods, || siblings, now) else { panic!("nothing to delete") };
        assert_eq!(names(&victims), ["unassigned", "pending", "unready", "cheap", "crowded", "young"]);
    }

    #[test]
    fn counts() {
        let now = Timestamp::UNIX_EPOCH;
        let pods = vec![pod("a", "a", "Running", true, "0", 1)];
        assert_eq!(plan(&testkit::replica_set("x", 3), &pods, Vec::new, now), Step::Create(2));
        assert_eq!(plan(&testkit::replica_set("x", 9999), &pods, Vec::new, now), Step::Create(BURST));
        assert_eq!(plan(&testkit::replica_set("x", 1), &pods, Vec::new, now), Step::Nothing);
        assert_eq!(plan(&testkit::replica_set("x", 0), &pods, Vec::new, now), Step::Delete(pods));
    }
}
