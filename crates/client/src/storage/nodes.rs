use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;

use crate::meta::Labels;
use crate::nodes::NodeTerm;

/// The nodes on which a volume can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeNodes(Option<Vec<NodeTerm>>);

impl VolumeNodes {
    /// Reads a volume.
    pub fn of(volume: &PersistentVolume) -> Self {
        let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| affinity.required.as_ref());
        Self(required.map(|required| required.node_selector_terms.iter().map(NodeTerm::of).collect()))
    }

    /// Whether nodes with these labels are among them. Their names do not count (kubernetes/kubernetes,
    /// `component-helpers/storage/volume/helpers.go`, `CheckNodeAffinity`).
    pub fn admit(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_none_or(|terms| terms.iter().any(|term| term.holds("", labels)))
    }
}

/// Where volumes of a class can be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopologyTerms(Vec<Vec<(String, BTreeSet<String>)>>);

impl TopologyTerms {
    /// Reads a class.
    pub fn of(class: &StorageClass) -> Self {
        let terms = class.allowed_topologies.iter().flatten();
        let conditions = terms.map(|term| {
            let all = term.match_label_expressions.iter().flatten();
            all.map(|e| (e.key.clone(), e.values.iter().cloned().collect())).collect()
        });
        Self(conditions.collect())
    }

    /// Whether they can be made for nodes with these labels; anywhere, if nothing is said (kubernetes/kubernetes,
    /// `component-helpers/scheduling/corev1/helpers.go`, `MatchTopologySelectorTerms`).
    pub fn admit(&self, labels: &Labels) -> bool {
        let holds = |(key, values): &(String, BTreeSet<String>)| {
            labels.get(key).is_some_and(|value| values.contains(value))
        };
        self.0.is_empty() || self.0.iter().any(|term| !term.is_empty() && term.iter().all(holds))
    }
}
