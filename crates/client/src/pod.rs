mod held;
mod resource_claims;
mod volumes;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use base::Pool;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Affinity, ContainerPort, PodIP, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::meta::{Labelled, Labels};

pub use resource_claims::{ClaimName, ExtendedClaimView, PodClaimStatusView, PodClaimView};
pub use volumes::{Disk, VolumeView};

/// A pod, as far as controllers and the scheduler look at one: a whole one takes thirty times the memory, and a cluster
/// has many. The node agent, which runs pods, reads them whole.
///
/// What the pods of one owner have in common is kept once for all of them. The fields are those of `k8s_openapi`'s `Pod`
/// under the same names, but for what tells such pods apart, which is not in `spec`, and the labels, which are not in
/// `metadata`. Whoever needs another field adds it here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "PodText")]
pub struct PodView {
    /// The metadata without labels, the owners of fields, and any annotations but those of [`ANNOTATIONS`].
    pub metadata: ObjectMeta,
    /// The labels, if there are any.
    pub labels: Option<Arc<Labels>>,
    /// `spec.nodeName`; there is none before the pod is bound.
    pub node_name: Option<Arc<str>>,
    /// `spec.hostname`.
    pub hostname: Option<String>,
    /// `spec.volumes`, as far as they are more than the node's own affair. Not shared: the pods of a stateful set each
    /// have a claim of their own.
    pub volumes: Option<Box<[VolumeView]>>,
    /// What the pod shall be, in part.
    pub spec: Arc<PodSpecView>,
    /// The same with what its containers hold, while that is not what they ask for.
    pub held: Option<Arc<PodSpecView>>,
    /// How the pod is, in part.
    pub status: Option<PodStatusView>,
}

/// The annotations that somebody looks at.
const ANNOTATIONS: [&str; 4] = [
    "controller.kubernetes.io/pod-deletion-cost",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-index-failure-count",
    "batch.kubernetes.io/job-index-ignored-failure-count",
];

/// What a pod shall be, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodSpecView {
    /// Taken out before it is shared; so are the hostname and the volumes.
    #[serde(deserialize_with = "shared_text")]
    node_name: Option<Arc<str>>,
    hostname: Option<String>,
    #[serde(deserialize_with = "volumes::kept")]
    volumes: Option<Box<[VolumeView]>>,
    pub affinity: Option<Affinity>,
    pub containers: Vec<ContainerView>,
    pub host_network: Option<bool>,
    pub init_containers: Option<Vec<ContainerView>>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub overhead: Option<BTreeMap<String, Quantity>>,
    #[serde(deserialize_with = "shared_text")]
    pub preemption_policy: Option<Arc<str>>,
    pub priority: Option<i32>,
    pub resource_claims: Option<Vec<PodClaimView>>,
    pub resources: Option<ResourcesView>,
    pub scheduler_name: Option<String>,
    pub scheduling_group: Option<GroupView>,
    pub scheduling_gates: Option<Vec<GateView>>,
    pub subdomain: Option<String>,
    pub tolerations: Option<Vec<Toleration>>,
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
}

/// A container, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContainerView {
    #[serde(deserialize_with = "shared_text")]
    pub image: Option<Arc<str>>,
    #[serde(deserialize_with = "shared_text")]
    pub name: Option<Arc<str>>,
    pub ports: Option<Vec<ContainerPort>>,
    pub resources: Option<ResourcesView>,
    pub restart_policy: Option<String>,
    /// Whether one of its rules has all containers of the pod start anew.
    #[serde(rename = "restartPolicyRules", deserialize_with = "restarts_all")]
    pub restarts_all: bool,
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

/// The group that a pod is placed together with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GroupView {
    #[serde(deserialize_with = "shared_text")]
    pub pod_group_name: Option<Arc<str>>,
}

/// How a pod is, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodStatusView {
    pub conditions: Option<Vec<ConditionView>>,
    /// Taken out once it is known what the pod holds; so are the resources.
    #[serde(deserialize_with = "held::requests")]
    allocated_resources: Option<Box<ResourcesView>>,
    resources: Option<Box<ResourcesView>>,
    pub container_statuses: Option<Vec<ContainerStatusView>>,
    pub extended_resource_claim_status: Option<Box<ExtendedClaimView>>,
    pub init_container_statuses: Option<Vec<ContainerStatusView>>,
    #[serde(deserialize_with = "shared_text")]
    pub nominated_node_name: Option<Arc<str>>,
    #[serde(deserialize_with = "shared_text")]
    pub phase: Option<Arc<str>>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIP>>,
    #[serde(deserialize_with = "shared_text")]
    pub reason: Option<Arc<str>>,
    pub resource_claim_statuses: Option<Vec<PodClaimStatusView>>,
    pub start_time: Option<Time>,
}

/// What is true of a pod, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConditionView {
    pub last_transition_time: Option<Time>,
    #[serde(deserialize_with = "shared_text")]
    pub reason: Option<Arc<str>>,
    #[serde(deserialize_with = "shared_text")]
    pub status: Option<Arc<str>>,
    #[serde(rename = "type", deserialize_with = "shared_text")]
    pub type_: Option<Arc<str>>,
}

/// How a container is, in part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContainerStatusView {
    /// Taken out once it is known what the pod holds; so are the resources.
    #[serde(deserialize_with = "held::requests")]
    allocated_resources: Option<Box<ResourcesView>>,
    resources: Option<Box<ResourcesView>>,
    #[serde(deserialize_with = "shared_text")]
    pub name: Option<Arc<str>>,
    pub restart_count: i32,
    /// `state.terminated`.
    #[serde(rename = "state", deserialize_with = "terminated")]
    pub terminated: Option<TerminatedView>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TerminatedView {
    pub exit_code: i32,
    pub finished_at: Option<Time>,
}

fn terminated<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TerminatedView>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct State {
        terminated: Option<TerminatedView>,
    }
    Ok(Option::<State>::deserialize(from)?.unwrap_or_default().terminated)
}

static TEXTS: LazyLock<Pool<str>> = LazyLock::new(Pool::default);
static LABELS: LazyLock<Pool<Labels>> = LazyLock::new(Pool::default);
static SPECS: LazyLock<Pool<PodSpecView>> = LazyLock::new(Pool::default);

fn shared_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<str>>, D::Error> {
    Ok(Option::<Cow<'_, str>>::deserialize(from)?.map(|text| TEXTS.text(&text)))
}

/// Of a container's rules, that there is such a one is all that counts.
fn restarts_all<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    struct Rule<'a> {
        #[serde(default, borrow)]
        action: Cow<'a, str>,
    }
    let rules = Option::<Vec<Rule<'_>>>::deserialize(from)?;
    Ok(rules.iter().flatten().any(|rule| rule.action == "RestartAllContainers"))
}

impl PodSpecView {
    /// The pool's own specification that equals this one.
    fn shared(self) -> Arc<Self> {
        let spec = Arc::new(self);
        SPECS.share(|hasher| spec.digest(hasher), |known| *known == *spec, || spec.clone())
    }

    /// What tells most specifications apart.
    fn digest(&self, hasher: &mut impl Hasher) {
        let containers = self.containers.iter().chain(self.init_containers.iter().flatten());
        for container in containers {
            container.image.hash(hasher);
            let requests = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
            requests.for_each(|(name, amount)| (name, &amount.0).hash(hasher));
            let ports = container.ports.iter().flatten();
            ports.for_each(|port| (port.container_port, port.host_port, &port.name).hash(hasher));
        }
        (&self.node_selector, self.priority, &self.scheduler_name, &self.subdomain).hash(hasher);
        self.scheduling_group.iter().for_each(|group| group.pod_group_name.hash(hasher));
        self.tolerations.iter().flatten().for_each(|t| (&t.key, &t.value, t.toleration_seconds).hash(hasher));
        // Few pods have any.
        let spread = self.topology_spread_constraints.as_ref().filter(|spread| !spread.is_empty());
        if self.affinity.is_some() || spread.is_some() {
            let mut text = String::new();
            let _ = write!(text, "{:?} {spread:?}", self.affinity);
            text.hash(hasher);
        }
    }
}

/// A pod as it comes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PodText {
    metadata: MetadataText,
    spec: PodSpecView,
    status: Option<PodStatusView>,
}

/// Without the owners of fields, which are as large as all the rest and would only be thrown away.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetadataText {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    generate_name: Option<String>,
    generation: Option<i64>,
    labels: Option<Labels>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    uid: Option<String>,
}

impl From<PodText> for PodView {
    fn from(PodText { metadata, mut spec, mut status }: PodText) -> Self {
        let mut annotations = metadata.annotations;
        if let Some(annotations) = &mut annotations {
            annotations.retain(|name, _| ANNOTATIONS.contains(&name.as_str()));
        }
        let labels = metadata.labels.map(|labels| LABELS.get(labels));
        let metadata = ObjectMeta {
            annotations: annotations.filter(|annotations| !annotations.is_empty()),
            creation_timestamp: metadata.creation_timestamp,
            deletion_grace_period_seconds: metadata.deletion_grace_period_seconds,
            deletion_timestamp: metadata.deletion_timestamp,
            finalizers: metadata.finalizers,
            generate_name: metadata.generate_name,
            generation: metadata.generation,
            labels: None,
            managed_fields: None,
            name: metadata.name,
            namespace: metadata.namespace,
            owner_references: metadata.owner_references,
            resource_version: metadata.resource_version,
            self_link: None,
            uid: metadata.uid,
        };
        let (hostname, node_name) = (spec.hostname.take(), spec.node_name.take());
        let volumes = spec.volumes.take();
        let node_name = node_name.filter(|name| !name.is_empty());
        let held = status.as_mut().and_then(|status| held::take(&spec, status)).map(PodSpecView::shared);
        Self { metadata, labels, node_name, hostname, volumes, spec: spec.shared(), held, status }
    }
}

impl PodView {
    /// The specification with the requests that count on the pod's node: while it is resized, what it holds may be more, and
    /// what it asks for in vain does not count.
    pub fn counting(&self) -> &Arc<PodSpecView> {
        self.held.as_ref().unwrap_or(&self.spec)
    }
}

impl Labelled for PodView {
    fn labels(&self) -> Option<&Labels> {
        self.labels.as_deref()
    }
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
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "n", "uid": "u", "resourceVersion": "7",
            "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"], "deletionGracePeriodSeconds": 30,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "v"}]},
            "spec": {"nodeName": node, "hostname": name, "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}],
                "conditions": [{"type": "Ready", "status": "True", "message": "m"}]}})
    }

    #[test]
    fn a_view_keeps_what_is_looked_at_and_no_owners_of_fields() {
        let mut pod = pod("p", "x");
        let whole: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
        pod["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:spec": {}}}]);
        pod["metadata"]["labels"] = json!({"a": "b"});
        pod["metadata"]["annotations"] = json!({"large": "x"});
        let view: PodView = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!(view.metadata, whole.metadata);
        assert_eq!(view.labels().unwrap()["a"], "b");
        assert_eq!((view.node_name.as_deref(), view.spec.containers.len()), (Some("x"), 1));
        let mut status = view.status.unwrap();
        let ended = status.container_statuses.take().unwrap().remove(0);
        assert_eq!((ended.name.as_deref(), ended.terminated.map(|t| t.exit_code)), (Some("c"), Some(3)));
        assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.0.0.1")));
        assert_eq!(status.conditions.unwrap()[0].status.as_deref(), Some("True"));
        pod["spec"]["preemptionPolicy"] = json!("Never");
        pod["spec"]["containers"][0]["image"] = json!("app:v1");
        pod["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule"}]);
        pod["status"]["nominatedNodeName"] = json!("y");
        pod["status"]["startTime"] = json!("2026-01-01T00:00:01Z");
        let scheduled: PodView = serde_json::from_value(pod.clone()).unwrap();
        assert!(!Arc::ptr_eq(&scheduled.spec, &view.spec));
        assert_eq!(scheduled.spec.preemption_policy.as_deref(), Some("Never"));
        assert_eq!(scheduled.spec.containers[0].image.as_deref(), Some("app:v1"));
        assert_eq!(scheduled.spec.topology_spread_constraints.as_ref().unwrap()[0].max_skew, 1);
        let waiting = scheduled.status.unwrap();
        assert_eq!(waiting.nominated_node_name.as_deref(), Some("y"));
        assert!(waiting.start_time.is_some());
        pod["spec"]["volumes"] = json!([{"name": "token", "projected": {}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "own", "ephemeral": {}},
            {"name": "disk", "awsElasticBlockStore": {"volumeID": "v", "readOnly": true}}]);
        pod["metadata"]["annotations"] = json!({ANNOTATIONS[0]: "1", "large": "x"});
        let view: PodView = serde_json::from_value(pod).unwrap();
        let claims: Vec<_> = view.claims().collect();
        assert_eq!(claims, [("c".into(), false), ("p-own".into(), true)]);
        let disk = Disk { id: "aws//v".into(), read_only: false };
        assert_eq!(view.volumes.as_deref().unwrap()[2], VolumeView::Disk(disk));
        assert_eq!(view.metadata.annotations.unwrap(), [(ANNOTATIONS[0].to_owned(), "1".to_owned())].into());
    }

    #[test]
    fn pods_of_one_kind_share_what_they_have_in_common() {
        let view = |mut pod: Value, priority: i32| -> PodView {
            pod["metadata"]["labels"] = json!({"app": "web"});
            pod["spec"]["priority"] = priority.into();
            pod["spec"]["affinity"] = json!({"podAffinity": {}});
            // As text, as it comes: borrowed texts are another way.
            serde_json::from_str(&pod.to_string()).unwrap()
        };
        let (one, two, other) = (view(pod("p1", "x"), 1), view(pod("p2", "y"), 1), view(pod("p3", "x"), 2));
        assert!(Arc::ptr_eq(&one.spec, &two.spec) && !Arc::ptr_eq(&one.spec, &other.spec));
        assert!(Arc::ptr_eq(one.labels.as_ref().unwrap(), two.labels.as_ref().unwrap()));
        assert!(Arc::ptr_eq(one.node_name.as_ref().unwrap(), other.node_name.as_ref().unwrap()));
        assert_eq!((one.hostname.as_deref(), two.node_name.as_deref()), (Some("p1"), Some("y")));
    }
}
