//! What a pod needs its node to be able to do, beyond what every node can (kubernetes/kubernetes,
//! `pkg/scheduler/framework/plugins/nodedeclaredfeatures`, `component-helpers/nodedeclaredfeatures/features`). A node that
//! declares nothing, because it is older or another's, is taken at its word.

use client::PodSpecView;

/// The features that a pod can need when it is placed; those that only a change of a running pod needs are the admission's
/// affair. Each has its bit by its place.
const NAMES: [&str; 1] = ["RestartAllContainersOnContainerExits"];

/// Some of the features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features(u8);

impl Features {
    /// What a specification needs (`InferForPodScheduling`).
    pub(crate) fn needed(spec: &PodSpecView) -> Self {
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        Self(u8::from(containers.any(|container| container.restarts_all)))
    }

    /// What a node says that it can do. What nobody asks for is passed over (`TryMap`).
    pub(crate) fn declared(names: &[String]) -> Self {
        let bits = NAMES.iter().enumerate().filter(|(_, name)| names.iter().any(|n| n == *name));
        Self(bits.fold(0, |all, (place, _)| all | 1 << place))
    }

    /// Whether all of these are among those that a node has.
    pub(crate) fn are_in(self, declared: Self) -> bool {
        self.0 & !declared.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::pod::PodInfo;
    use crate::preempt::{Decision, Terms, decide};
    use crate::view::{ClusterView, NodeChange};

    const NAME: &str = "RestartAllContainersOnContainerExits";

    fn node(name: &str, declared: Value) -> k8s_openapi::api::core::v1::Node {
        let mut node = testkit::node(name, 4, 8, 10);
        node.status.get_or_insert_default().declared_features = serde_json::from_value(declared).unwrap();
        node
    }

    fn pod(list: &str, action: &str) -> PodInfo {
        let container = json!({"name": "c", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart"}, {"action": action}]});
        let mut spec = json!({"containers": [{"name": "main"}], "priority": 9});
        spec[list] = json!([container]);
        let metadata = json!({"name": "p", "namespace": "n", "uid": "p"});
        PodInfo::new(&testkit::object::<client::PodView>(json!({"metadata": metadata, "spec": spec})))
    }

    fn outcome(pod: &PodInfo, view: &mut ClusterView) -> String {
        let terms = Terms { budgets: &[], may_preempt: true, bargains: false };
        match decide(pod, view, &terms, &mut |_| {}) {
            Decision::Node(node) => node.to_string(),
            Decision::Nowhere { why, .. } => why.to_string(),
            other => panic!("nobody has to leave: {other:?}"),
        }
    }

    #[test]
    fn a_pod_goes_where_its_features_are_and_nowhere_else() {
        let mut view = ClusterView::new();
        view.set_node(&node("older", Value::Null));
        view.set_node(&node("foreign", json!(["SomethingElse"])));
        for list in ["containers", "initContainers"] {
            assert_eq!(
                outcome(&pod(list, "RestartAllContainers"), &mut view),
                "0/2 nodes are available: 2 node(s) didn't match Pod's required features. no new claims to deallocate, \
                 preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
            );
        }
        assert_eq!(outcome(&pod("containers", "Restart"), &mut view), "foreign", "it needs nothing");
        view.set_node(&node("newer", json!(["Another", NAME])));
        assert_eq!(outcome(&pod("containers", "RestartAllContainers"), &mut view), "newer");
    }

    #[test]
    fn only_a_change_of_what_matters_is_a_change() {
        let mut view = ClusterView::new();
        view.set_node(&node("n", json!(["Unheard"])));
        assert_eq!(view.update_node(&node("n", json!(["Another"]))), NodeChange::None);
        assert_eq!(view.update_node(&node("n", json!([NAME, "Another"]))), NodeChange::Some);
        assert_eq!(view.update_node(&node("n", json!([NAME]))), NodeChange::None);
        assert_eq!(view.update_node(&node("n", Value::Null)), NodeChange::Some);
    }
}
