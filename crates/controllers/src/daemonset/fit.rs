//! Which nodes a set wants a pod on (kubernetes/kubernetes, `pkg/controller/daemon/daemon_controller.go`,
//! `NodeShouldRunDaemonPod`).

use client::{NodeNeeds, tolerates};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Toleration};

use super::pods::tolerations;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A pod shall run there.
    Run,
    /// One that runs there may stay.
    Keep,
    Avoid,
}

/// What a set asks of nodes.
pub(super) struct Fit {
    node_name: Option<String>,
    needs: NodeNeeds,
    tolerations: Vec<Toleration>,
}

impl Fit {
    pub(super) fn of(set: &DaemonSet) -> Self {
        let spec = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
        Self {
            needs: NodeNeeds::of(spec.node_selector.as_ref(), spec.affinity.as_ref()),
            tolerations: tolerations(&spec),
            node_name: spec.node_name.filter(|name| !name.is_empty()),
        }
    }

    pub(super) fn judge(&self, node: &Node) -> Verdict {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        if self.node_name.as_deref().is_some_and(|wanted| wanted != name) || !self.needs.admit(name, &labels)
        {
            return Verdict::Avoid;
        }
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let unwelcome = taints.filter(|taint| {
            let value = taint.value.as_deref().unwrap_or_default();
            !self.tolerations.iter().any(|t| tolerates(t, &taint.key, value, &taint.effect))
        });
        let mut verdict = Verdict::Run;
        for taint in unwelcome {
            match taint.effect.as_str() {
                "NoExecute" => return Verdict::Avoid,
                "NoSchedule" => verdict = Verdict::Keep,
                _ => {}
            }
        }
        verdict
    }
}

/// Whether anything has changed that a verdict depends on.
pub(super) fn differs(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn selectors_and_taints_decide() {
        let judge = |spec: Value, taints: Value| {
            let set: DaemonSet =
                testkit::object(json!({"spec": {"selector": {}, "template": {"spec": spec}}}));
            let node: Node = testkit::object(json!({"metadata": {"name": "a", "labels": {"disk": "ssd"}},
                "spec": {"taints": taints}}));
            Fit::of(&set).judge(&node)
        };
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        for (spec, taints, verdict) in [
            (json!({"containers": []}), json!([]), Verdict::Run),
            (json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), json!([]), Verdict::Run),
            (json!({"containers": [], "nodeSelector": {"disk": "hdd"}}), json!([]), Verdict::Avoid),
            (json!({"containers": [], "nodeName": "b"}), json!([]), Verdict::Avoid),
            (json!({"containers": []}), taint("own", "PreferNoSchedule"), Verdict::Run),
            (json!({"containers": []}), taint("own", "NoSchedule"), Verdict::Keep),
            (json!({"containers": []}), taint("own", "NoExecute"), Verdict::Avoid),
            // Daemons run where others do not.
            (
                json!({"containers": []}),
                taint("node.kubernetes.io/unschedulable", "NoSchedule"),
                Verdict::Run,
            ),
            (json!({"containers": []}), taint("node.kubernetes.io/not-ready", "NoExecute"), Verdict::Run),
            (
                json!({"containers": []}),
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                Verdict::Keep,
            ),
            (
                json!({"containers": [], "hostNetwork": true}),
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                Verdict::Run,
            ),
        ] {
            assert_eq!(judge(spec.clone(), taints.clone()), verdict, "{spec} {taints}");
        }
    }
}
