//! How pods of older revisions are replaced (kubernetes/kubernetes, `pkg/controller/daemon/update.go`).
//!
//! Without surge, a pod goes before its successor comes, as many at a time as may be unavailable. With surge, the
//! successor comes first, and its predecessor goes when it is available.

use std::sync::Arc;

use client::{PodView, is_deleting};
use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fit::Verdict;
use super::plan::{Plan, Scene};
use crate::common::scaled::scaled;

pub(super) fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

fn rolling(set: &DaemonSet) -> Option<&RollingUpdateDaemonSet> {
    set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref().filter(|_| is_rolling(set))
}

/// How many pods there may be beyond one for each of the nodes.
fn max_surge(set: &DaemonSet, nodes: usize) -> usize {
    let value = rolling(set).and_then(|r| r.max_surge.as_ref());
    value.map_or(0, |value| scaled(value, nodes as i32, f64::ceil).max(0) as usize)
}

fn max_unavailable(set: &DaemonSet, nodes: usize) -> usize {
    let value = rolling(set).and_then(|r| r.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
    scaled(&value, nodes as i32, f64::ceil).max(0) as usize
}

/// Whether there may ever be two pods on a node.
pub(super) fn surges(set: &DaemonSet) -> bool {
    max_surge(set, 1) > 0
}

/// The pods of a node that stay, of the present revision and of another.
struct Pair<'a> {
    new: Option<&'a PodView>,
    old: Option<&'a Arc<PodView>>,
}

impl Scene<'_> {
    /// Replaces pods of older revisions.
    pub(super) fn roll(&self) -> Plan {
        let wanted = self.nodes.values().filter(|verdict| **verdict == Verdict::Run).count();
        let (surge, unavailable) = (max_surge(self.set, wanted), max_unavailable(self.set, wanted));
        if surge == 0 { self.replace(unavailable.max(1)) } else { self.surge(surge, wanted) }
    }

    /// Each node with a pod, or that shall have one. A node with more pods than there may be has none to show.
    fn pairs(&self) -> impl Iterator<Item = (&str, Option<Pair<'_>>)> {
        let wanted =
            self.nodes.iter().filter(|(_, verdict)| **verdict == Verdict::Run).map(|(node, _)| *node);
        let nodes: std::collections::BTreeSet<&str> = wanted.chain(self.pods.keys().copied()).collect();
        nodes.into_iter().map(|node| (node, self.pair(node)))
    }

    fn pair(&self, node: &str) -> Option<Pair<'_>> {
        let mut pair = Pair { new: None, old: None };
        let pods = self.pods.get(node).into_iter().flatten();
        for pod in pods.filter(|pod| !is_deleting(&pod.metadata)) {
            let taken = if self.is_new(pod) {
                pair.new.replace(&**pod).is_some()
            } else {
                pair.old.replace(pod).is_some()
            };
            if taken {
                return None;
            }
        }
        Some(pair)
    }

    fn replace(&self, max_unavailable: usize) -> Plan {
        let mut missing = 0;
        let (mut broken, mut candidates) = (Vec::new(), Vec::new());
        for (_, pair) in self.pairs() {
            match pair {
                Some(Pair { new: Some(new), old: None }) => missing += usize::from(!self.is_available(new)),
                Some(Pair { new: None, old: Some(old) }) if self.is_available(old) => {
                    candidates.push(old.clone());
                }
                // It serves nobody, so nobody misses it.
                Some(Pair { new: None, old: Some(old) }) => {
                    missing += 1;
                    broken.push(old.clone());
                }
                _ => missing += 1,
            }
        }
        candidates.truncate(max_unavailable.saturating_sub(missing));
        broken.extend(candidates);
        Plan { delete: broken, ..Plan::default() }
    }

    fn surge(&self, max_surge: usize, wanted: usize) -> Plan {
        let mut plan = Plan::default();
        let (mut surging, mut available) = (0, 0);
        let (mut candidates, mut unwanted) = (Vec::new(), Vec::new());
        for (node, pair) in self.pairs() {
            let Some(pair) = pair else {
                surging += 1;
                continue;
            };
            let shown = pair.old.map(|old| &**old).or(pair.new);
            available += usize::from(shown.is_some_and(|pod| self.is_available(pod)));
            match (pair.old, pair.new) {
                (None, _) => {}
                (Some(old), None) => match (self.is_available(old), self.verdict(node)) {
                    (false, Verdict::Run) => plan.create.push(node.to_owned()),
                    (false, _) => plan.delete.push(old.clone()),
                    (true, Verdict::Run) => candidates.push(node.to_owned()),
                    (true, _) => unwanted.push(old.clone()),
                },
                (Some(_), Some(new)) if !self.is_available(new) => surging += 1,
                (Some(old), Some(_)) => plan.delete.push(old.clone()),
            }
        }
        // What serves on a node that is no longer wanted goes when enough serve elsewhere.
        unwanted.truncate(available.saturating_sub(wanted));
        plan.delete.extend(unwanted);
        candidates.truncate(max_surge.saturating_sub(surging));
        plan.create.extend(candidates);
        plan
    }
}
