//! Who has been heard, and what is said about those who have not.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a node may be silent (upstream: `--node-monitor-grace-period`), and how long a new one until its first
/// word (`--node-startup-grace-period`).
const GRACE: Duration = Duration::from_secs(50);
const STARTUP_GRACE: Duration = Duration::from_secs(60);
const TYPES: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When each node was last heard, by our own clock: theirs may be wrong.
#[derive(Default)]
pub(super) struct Heartbeats(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    last: HashMap<String, Instant>,
    /// The nodes that say that they are ready.
    well: HashSet<String>,
    blackout: bool,
}

impl Heartbeats {
    pub(super) fn beat(&self, node: &str) {
        self.0.lock().last.insert(node.to_owned(), Instant::now());
    }

    /// Takes note of whether a node is well. Tells whether it is the first one that is, or was the last one.
    pub(super) fn set_well(&self, node: &str, well: bool) -> bool {
        let all = &mut self.0.lock().well;
        let had_any = !all.is_empty();
        if well {
            all.insert(node.to_owned());
        } else {
            all.remove(node);
        }
        had_any == all.is_empty()
    }

    /// Whether any node is well.
    pub(super) fn any_well(&self) -> bool {
        !self.0.lock().well.is_empty()
    }

    /// Forgets when a node was heard.
    pub(super) fn forget(&self, node: &str) {
        self.0.lock().last.remove(node);
    }

    /// How long the node may stay silent from now on.
    pub(super) fn left(&self, node: &Node) -> Duration {
        let grace = if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
        let mut heard = self.0.lock();
        let last = heard.last.entry(node.name_any()).or_insert_with(Instant::now);
        grace.saturating_sub(last.elapsed())
    }

    pub(super) fn note_blackout(&self) {
        self.0.lock().blackout = true;
    }

    /// Whether a blackout was on until now.
    pub(super) fn end_blackout(&self) -> bool {
        std::mem::take(&mut self.0.lock().blackout)
    }
}

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// `True`, `False` or `Unknown`.
pub(super) fn ready(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |c| c.status.as_str())
}

/// What changes with each report of the node's.
pub(super) fn heartbeat(node: &Node) -> Option<Timestamp> {
    condition(node, "Ready")?.last_heartbeat_time.as_ref().map(|t| t.0)
}

/// The conditions of a node that has fallen silent, if they do not say so already.
pub(super) fn silent(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut changed = false;
    for kind in TYPES {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(old) if old.status == "Unknown" => continue,
            Some(old) => {
                old.status = "Unknown".into();
                old.reason = Some("NodeStatusUnknown".into());
                old.message = Some("Kubelet stopped posting node status.".into());
                old.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
        changed = true;
    }
    changed.then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_and_the_last_well_node_matter_to_all() {
        let heard = Heartbeats::default();
        assert!(!heard.set_well("a", false) && !heard.any_well());
        assert!(heard.set_well("a", true) && heard.any_well());
        assert!(!heard.set_well("a", true) && !heard.set_well("b", true) && !heard.set_well("a", false));
        assert!(heard.set_well("b", false) && !heard.any_well());
    }
}
