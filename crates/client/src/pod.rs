use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Affinity, ContainerPort, PodCondition, PodIP, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// A pod, as far as controllers and the scheduler look at one: a whole one takes ten times the memory, and a cluster has
/// many. The node agent, which runs pods, reads them whole.
///
/// The fields are those of `k8s_openapi`'s `Pod` under the same names. Whoever needs another one adds it here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodView {
    pub metadata: ObjectMeta,
    pub spec: Option<PodSpecView>,
    pub status: Option<PodStatusView>,
}

/// What a pod shall be, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodSpecView {
    pub affinity: Option<Box<Affinity>>,
    pub containers: Vec<ContainerView>,
    pub host_network: Option<bool>,
    pub hostname: Option<String>,
    pub init_containers: Option<Vec<ContainerView>>,
    pub node_name: Option<String>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub overhead: Option<BTreeMap<String, Quantity>>,
    pub priority: Option<i32>,
    pub resources: Option<ResourcesView>,
    pub scheduler_name: Option<String>,
    pub scheduling_gates: Option<Vec<GateView>>,
    pub subdomain: Option<String>,
    pub tolerations: Option<Vec<Toleration>>,
}

/// A container, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContainerView {
    pub ports: Option<Vec<ContainerPort>>,
    pub resources: Option<ResourcesView>,
    pub restart_policy: Option<String>,
}

/// What a container asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ResourcesView {
    pub requests: Option<BTreeMap<String, Quantity>>,
}

/// Something that a pod waits for before it is scheduled; that there is one is all that counts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct GateView {}

/// How a pod is, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodStatusView {
    pub conditions: Option<Vec<PodCondition>>,
    pub container_statuses: Option<Vec<ContainerStatusView>>,
    pub phase: Option<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIP>>,
}

/// How a container is, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContainerStatusView {
    pub restart_count: i32,
}

impl Resource for PodView {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
