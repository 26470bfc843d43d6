//! A set's pods and their nodes (kubernetes/kubernetes, `pkg/controller/daemon/util/daemonset_util.go`).

use client::PodView;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::common::history::REVISION;
use crate::common::template::pod_of;

const NAME: &str = "metadata.name";

/// The tolerations of a set's pods: daemons run on nodes that others must leave.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let on_host = spec.host_network == Some(true);
    let own = [
        ("not-ready", "NoExecute", true),
        ("unreachable", "NoExecute", true),
        ("disk-pressure", "NoSchedule", true),
        ("memory-pressure", "NoSchedule", true),
        ("pid-pressure", "NoSchedule", true),
        ("unschedulable", "NoSchedule", true),
        ("network-unavailable", "NoSchedule", on_host),
    ];
    for (key, effect, _) in own.into_iter().filter(|(_, _, wanted)| *wanted) {
        let toleration = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Default::default()
        };
        // One with a limit of time gives way.
        all.retain(|t| Toleration { toleration_seconds: None, ..t.clone() } != toleration);
        all.push(toleration);
    }
    all
}

/// The pod for a node. The scheduler binds it; nothing but that node will do.
pub(super) fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut pod = pod_of(set, &template);
    pod.metadata.labels.get_or_insert_default().insert(REVISION.into(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let term = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NAME.into(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        }]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

/// The node that a pod is on or for.
pub(super) fn node_of(pod: &PodView) -> Option<&str> {
    if let Some(name) = &pod.node_name {
        return Some(name);
    }
    let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let mut names = fields.filter(|f| f.key == NAME && f.operator == "In");
    match names.next()?.values.as_deref()? {
        [name] => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_for_one_node() {
        let set: DaemonSet = testkit::object(json!({"metadata": {"name": "d"}, "spec": {"selector": {},
            "template": {"spec": {"containers": [], "tolerations": [{"key": "own", "operator": "Exists"},
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
                "affinity": {"podAffinity": {}, "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}}}}}));
        let pod = pod_for(&set, "node-1", "abc");
        assert_eq!(pod.metadata.labels.as_ref().unwrap()[REVISION], "abc");
        let tolerations = pod.spec.as_ref().unwrap().tolerations.as_ref().unwrap();
        assert_eq!(tolerations.len(), 7);
        assert!(tolerations.iter().all(|t| t.toleration_seconds.is_none()));
        assert!(pod.spec.as_ref().unwrap().affinity.as_ref().unwrap().pod_affinity.is_some());
        let mut view: PodView = testkit::object(json!(pod));
        assert_eq!(node_of(&view), Some("node-1"));
        view.node_name = Some("node-2".into());
        assert_eq!(node_of(&view), Some("node-2"));
        assert_eq!(node_of(&PodView::default()), None);
    }
}
