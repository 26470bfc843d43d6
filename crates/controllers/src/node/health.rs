//! Who has been heard, and what is said about those who have not.

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::settings::NodeSettings;

const TYPES: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When each node was last heard, by our own clock: theirs may be wrong.
pub(super) struct Heartbeats {
    heard: Mutex<Heard>,
    grace: Duration,
    startup_grace: Duration,
}

#[derive(Default)]
struct Heard {
    last: HashMap<String, Instant>,
    blackout: bool,
}

impl Heartbeats {
    pub(super) fn new(settings: &NodeSettings) -> Self {
        Self { heard: Mutex::default(), grace: settings.monitor_grace, startup_grace: settings.startup_grace }
    }

    pub(super) fn beat(&self, node: &str) {
        self.heard.lock().last.insert(node.to_owned(), Instant::now());
    }

    /// Forgets when a node was heard.
    pub(super) fn forget(&self, node: &str) {
        self.heard.lock().last.remove(node);
    }

    /// How long the node may stay silent from now on.
    pub(super) fn left(&self, node: &Node) -> Duration {
        let grace = if condition(node, "Ready").is_some() { self.grace } else { self.startup_grace };
        let mut heard = self.heard.lock();
        let last = heard.last.entry(node.name_any()).or_insert_with(Instant::now);
        grace.saturating_sub(last.elapsed())
    }

    pub(super) fn note_blackout(&self) {
        self.heard.lock().blackout = true;
    }

    /// Whether a blackout was on until now.
    pub(super) fn end_blackout(&self) -> bool {
        std::mem::take(&mut self.heard.lock().blackout)
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
