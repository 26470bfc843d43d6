//! What plugins are told (kubernetes/kubernetes, `pkg/scheduler/apis/config/types_pluginargs.go`; defaults in
//! `v1/defaults.go`).

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DefaultPreemptionArgs {
    pub(super) min_candidate_nodes_percentage: i64,
    pub(super) min_candidate_nodes_absolute: i64,
}

impl Default for DefaultPreemptionArgs {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct InterPodAffinityArgs {
    pub(super) hard_pod_affinity_weight: i64,
    pub(super) ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinityArgs {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeResourcesFitArgs {
    pub(super) ignored_resources: Vec<String>,
    pub(super) ignored_resource_groups: Vec<String>,
    pub(super) scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ScoringStrategy {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) resources: Vec<ResourceSpec>,
    pub(super) requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ratio {
    pub(super) shape: Vec<ShapePoint>,
}

/// How good it is that so much of a hundred is taken, of ten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ShapePoint {
    pub(crate) utilization: i64,
    pub(crate) score: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ResourceSpec {
    pub(crate) name: String,
    pub(crate) weight: i64,
}

impl ResourceSpec {
    /// Cores and memory, alike.
    pub(super) fn usual() -> Vec<Self> {
        ["cpu", "memory"].map(|name| Self { name: name.to_owned(), weight: 1 }).into()
    }

    /// With what upstream puts in for what is not said.
    pub(super) fn filled(list: Vec<Self>) -> Vec<Self> {
        if list.is_empty() {
            return Self::usual();
        }
        let weighed = |spec: Self| Self { weight: if spec.weight == 0 { 1 } else { spec.weight }, ..spec };
        list.into_iter().map(weighed).collect()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeResourcesBalancedAllocationArgs {
    pub(super) resources: Vec<ResourceSpec>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodTopologySpreadArgs {
    pub(super) default_constraints: Vec<TopologySpreadConstraint>,
    pub(super) defaulting_type: String,
}

impl Default for PodTopologySpreadArgs {
    fn default() -> Self {
        Self { default_constraints: Vec::new(), defaulting_type: "System".to_owned() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VolumeBindingArgs {
    pub(super) bind_timeout_seconds: i64,
    pub(super) shape: Option<Vec<ShapePoint>>,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { bind_timeout_seconds: 600, shape: None }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeAffinityArgs {
    pub(super) added_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DynamicResourcesArgs {
    pub(super) filter_timeout: Option<String>,
    pub(super) binding_timeout: Option<String>,
}

/// The arguments of all plugins that take some.
#[derive(Clone, Debug, Default)]
pub(super) struct AllArgs {
    pub(super) preemption: DefaultPreemptionArgs,
    pub(super) others: InterPodAffinityArgs,
    pub(super) fit: NodeResourcesFitArgs,
    pub(super) balanced: NodeResourcesBalancedAllocationArgs,
    pub(super) spread: PodTopologySpreadArgs,
    pub(super) volumes: VolumeBindingArgs,
    pub(super) nodes: NodeAffinityArgs,
    pub(super) devices: DynamicResourcesArgs,
}
