use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Affinity, ContainerPort, PodIP, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A pod, as far as controllers and the scheduler look at one: a whole one takes ten times the memory, and a cluster has
/// many. The node agent, which runs pods, reads them whole.
///
/// The fields are those of `k8s_openapi`'s `Pod` under the same names. Whoever needs another one adds it here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodView {
    #[serde(deserialize_with = "without_managers")]
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
    pub conditions: Option<Vec<ConditionView>>,
    pub container_statuses: Option<Vec<ContainerStatusView>>,
    pub phase: Option<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIP>>,
}

/// What is true of a pod, without why.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConditionView {
    pub last_transition_time: Option<Time>,
    pub status: String,
    #[serde(rename = "type")]
    pub type_: String,
}

/// How a container is, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContainerStatusView {
    pub restart_count: i32,
}

/// Metadata without the owners of fields, which are as large as all the rest and would only be thrown away.
fn without_managers<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Meta {
        annotations: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
        deletion_timestamp: Option<Time>,
        finalizers: Option<Vec<String>>,
        generate_name: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        name: Option<String>,
        namespace: Option<String>,
        owner_references: Option<Vec<OwnerReference>>,
        resource_version: Option<String>,
        uid: Option<String>,
    }
    let meta = Meta::deserialize(from)?;
    Ok(ObjectMeta {
        annotations: meta.annotations,
        creation_timestamp: meta.creation_timestamp,
        deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        deletion_timestamp: meta.deletion_timestamp,
        finalizers: meta.finalizers,
        generate_name: meta.generate_name,
        generation: meta.generation,
        labels: meta.labels,
        managed_fields: None,
        name: meta.name,
        namespace: meta.namespace,
        owner_references: meta.owner_references,
        resource_version: meta.resource_version,
        self_link: None,
        uid: meta.uid,
    })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_view_keeps_what_is_looked_at_and_no_owners_of_fields() {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}, "finalizers": ["f"], "deletionGracePeriodSeconds": 30,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "v"}]},
            "spec": {"nodeName": "x", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True", "message": "m"}]}});
        let whole: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
        pod["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:spec": {}}}]);
        let view: PodView = serde_json::from_value(pod).unwrap();
        assert_eq!(view.metadata, whole.metadata);
        let (spec, status) = (view.spec.unwrap(), view.status.unwrap());
        assert_eq!((spec.node_name.as_deref(), spec.containers.len()), (Some("x"), 1));
        assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.0.0.1")));
        assert_eq!(status.conditions.unwrap()[0].status, "True");
    }
}
