//! What is to be done on which node (kubernetes/kubernetes, `pkg/controller/daemon/daemon_controller.go`,
//! `podsShouldBeOnNode`). How pods are replaced by newer ones is in `roll.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{PodView, is_deleting};
use k8s_openapi::api::apps::v1::DaemonSet;

use super::fit::Verdict;
use super::pods::node_of;
use crate::common::history::revision_of;
use crate::common::pods::{available_in, is_finished, is_ready, phase};

/// A set, its pods, and the nodes, at one moment.
pub(super) struct Scene<'a> {
    pub(super) set: &'a DaemonSet,
    /// The present revision.
    pub(super) hash: &'a str,
    pub(super) nodes: BTreeMap<&'a str, Verdict>,
    /// By the node they are on or for.
    pub(super) pods: BTreeMap<&'a str, Vec<Arc<PodView>>>,
    pub(super) now: Timestamp,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<PodView>>,
    /// Pods that have run to their end, and their nodes: they go, but those that failed not too fast one after another.
    pub(super) ended: Vec<(String, Arc<PodView>)>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        set: &'a DaemonSet,
        hash: &'a str,
        nodes: BTreeMap<&'a str, Verdict>,
        pods: &'a [Arc<PodView>],
        now: Timestamp,
    ) -> Self {
        let mut by_node: BTreeMap<&str, Vec<Arc<PodView>>> = BTreeMap::new();
        for pod in pods {
            // One that has ended and only waits for its removal is no longer in the way.
            if is_finished(pod) && is_deleting(&pod.metadata) {
                continue;
            }
            if let Some(node) = node_of(pod) {
                by_node.entry(node).or_default().push(pod.clone());
            }
        }
        for pods in by_node.values_mut() {
            oldest_first(pods);
        }
        Self { set, hash, nodes, pods: by_node, now }
    }

    pub(super) fn verdict(&self, node: &str) -> Verdict {
        self.nodes.get(node).copied().unwrap_or(Verdict::Avoid)
    }

    pub(super) fn is_new(&self, pod: &PodView) -> bool {
        revision_of(pod) == Some(self.hash)
    }

    pub(super) fn is_available(&self, pod: &PodView) -> bool {
        let wait = self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        available_in(pod, wait, self.now) == Some(Duration::ZERO)
    }

    /// Brings each node to the pod that it shall have, whatever revision that is of.
    pub(super) fn manage(&self, surges: bool) -> Plan {
        let mut plan = Plan::default();
        for (node, verdict) in &self.nodes {
            match (verdict, self.pods.get(node)) {
                (Verdict::Run, None) => plan.create.push((*node).to_owned()),
                (Verdict::Avoid, Some(pods)) => {
                    plan.delete.extend(pods.iter().filter(|pod| !is_deleting(&pod.metadata)).cloned());
                }
                (Verdict::Run | Verdict::Keep, Some(pods)) => {
                    self.tidy(node, *verdict, pods, surges, &mut plan);
                }
                (Verdict::Keep | Verdict::Avoid, None) => {}
            }
        }
        // Pods for nodes that are gone were never bound, so nobody else deletes them.
        let lost = self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(*node));
        let lost = lost.flat_map(|(_, pods)| pods).filter(|pod| pod.node_name.is_none());
        plan.delete.extend(lost.filter(|pod| !is_deleting(&pod.metadata)).cloned());
        plan
    }

    /// Keeps one pod on a node; while it surges, one of the old revision and one of the new.
    fn tidy(&self, node: &str, verdict: Verdict, pods: &[Arc<PodView>], surges: bool, plan: &mut Plan) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
            match phase(pod) {
                "Failed" | "Succeeded" => plan.ended.push((node.to_owned(), pod.clone())),
                _ => running.push(pod),
            }
        }
        if !surges {
            plan.delete.extend(running.into_iter().skip(1).cloned());
            return;
        }
        if running.is_empty() && verdict == Verdict::Run {
            plan.create.push(node.to_owned());
        }
        if running.len() <= 1 {
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| self.is_new(pod));
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| (*pod).clone()));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            plan.delete.push((*old).clone());
        }
    }
}

/// Bound ones first, then by age.
fn oldest_first(pods: &mut [Arc<PodView>]) {
    pods.sort_by_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (pod.node_name.is_none(), created, pod.metadata.name.clone())
    });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
