//! Which taints follow from a node's conditions.

use base::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::{condition, ready};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

pub(super) fn of(node: &Node) -> Vec<Taint> {
    node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default()
}

/// Whether a taint is ours to put on and take off.
fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
                || PRESSURES.iter().any(|(_, key)| *key == taint.key)
        }
        _ => false,
    }
}

/// Whether pods are driven away because the node is ill.
pub(super) fn drives_away(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|t| t.effect == "NoExecute" && is_ours(t))
}

/// The taints that the node should have: others' as they are, and ours as its conditions say. Those that drive pods
/// away are put on only if `may_evict`.
pub(super) fn wanted(node: &Node, may_evict: bool, now: Timestamp) -> Vec<Taint> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    let ill = match ready(node) {
        "True" => None,
        "False" => Some(NOT_READY),
        // A node that has not said anything yet is new rather than unreachable.
        _ if condition(node, "Ready").is_none() => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    if let Some(key) = ill {
        keys.push((key, "NoSchedule"));
        if may_evict && condition(node, "Ready").is_some() {
            keys.push((key, "NoExecute"));
        }
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|c| c.status == "True") {
            keys.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        keys.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let mut taints = of(node);
    taints.retain(|t| !is_ours(t) || keys.contains(&(t.key.as_str(), t.effect.as_str())));
    for (key, effect) in keys {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(node: &Node, may_evict: bool) -> Vec<String> {
        let taints = wanted(node, may_evict, Timestamp::UNIX_EPOCH);
        taints
            .iter()
            .map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect))
            .collect()
    }

    #[test]
    fn follow_from_conditions_and_leave_others_alone() {
        let node = |ready: &str, pressure: &str| -> Node {
            testkit::object(json!({
                "metadata": {"name": "n"},
                "spec": {"unschedulable": true, "taints": [
                    {"key": "mine", "effect": "NoSchedule"},
                    {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]},
                "status": {"conditions": [
                    {"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": pressure}]},
            }))
        };
        let rest = "unschedulable:NoSchedule";
        assert_eq!(shown(&node("True", "False"), true), ["mine:NoSchedule", rest]);
        assert_eq!(
            shown(&node("False", "True"), true),
            [
                "mine:NoSchedule",
                "not-ready:NoSchedule",
                "not-ready:NoExecute",
                "disk-pressure:NoSchedule",
                rest
            ]
        );
        assert_eq!(
            shown(&node("Unknown", "Unknown"), false),
            ["mine:NoSchedule", "unreachable:NoSchedule", rest]
        );
    }
}
