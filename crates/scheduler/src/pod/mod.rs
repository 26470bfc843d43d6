//! What a pod asks of its node, made ready for many comparisons.

mod ports;
mod rules;
mod weight;

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use base::{Pool, Timestamp};
use client::{
    ClaimName, Disk, Key, Labelled, Labels, NodeNeeds, NodeTerm, PodSpecView, PodView, VolumeView,
    controller_of, is_deleting,
};
use k8s_openapi::api::core::v1::Toleration;

use crate::config::Profile;
use crate::features::Features;

pub(crate) use client::Amounts;
pub(crate) use ports::HostPort;
pub(crate) use rules::{Matcher, PodTerm, Rules, Spread};

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: Key,
    /// The pod's UID.
    pub uid: Arc<str>,
    /// The higher, the sooner.
    pub priority: i32,
    /// When it was made; the older, the sooner.
    pub created: Timestamp,
    pub(crate) generation: i64,
    /// When it began to run.
    pub(crate) started: Option<Timestamp>,
    /// Its deletion has begun.
    pub(crate) deleting: bool,
    /// It has to make room for another one.
    pub(crate) preempted: bool,
    /// Its conditions say already that it has no node.
    pub(crate) told: bool,
    /// The node that was promised to it.
    pub(crate) nominated: Option<Arc<str>>,
    pub(crate) kind: Arc<PodKind>,
    /// How it is placed.
    pub(crate) profile: Arc<Profile>,
}

/// What all pods have in common that are alike for the scheduler.
#[derive(Clone, Debug)]
pub(crate) struct PodKind {
    pub(crate) namespace: Arc<str>,
    pub(crate) labels: Option<Arc<Labels>>,
    pub(crate) owner: Option<Owner>,
    pub(crate) wants: Arc<Wants>,
    pub(crate) rules: Rules,
    /// The claims and disks it uses.
    pub(crate) uses: Vec<Use>,
    /// The claims of devices that it uses.
    pub(crate) devices: Vec<DeviceUse>,
}

/// A claim of devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DeviceUse {
    /// One that is there by itself.
    Named(Arc<str>),
    /// One that was made for the pod.
    Made(Arc<str>),
    /// One that is to be made.
    Awaited,
}

impl DeviceUse {
    fn of(pod: &PodView) -> Vec<Self> {
        let uses = pod.resource_claims().filter_map(|(_, name)| match name {
            ClaimName::Named(name) => Some(Self::Named(name.into())),
            ClaimName::Made(name) => Some(Self::Made(name.into())),
            ClaimName::Awaited => Some(Self::Awaited),
            ClaimName::Needless => None,
        });
        let mut known: Vec<Self> = Vec::new();
        for used in uses {
            // Two of a pod's claims may be the same object.
            if used == Self::Awaited || !known.contains(&used) {
                known.push(used);
            }
        }
        known
    }
}

/// A volume that is more than its node's own affair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    Claim {
        name: Arc<str>,
        /// It is made for the pod.
        own: bool,
    },
    Disk(Disk),
}

impl Use {
    fn of(pod: &PodView) -> Vec<Self> {
        let uses = pod.volumes.iter().flatten().map(|volume| match volume {
            VolumeView::Claim(name) => Self::Claim { name: name.clone(), own: false },
            VolumeView::Ephemeral(volume) => Self::Claim { name: pod.own_claim(volume).into(), own: true },
            VolumeView::Disk(disk) => Self::Disk(disk.clone()),
        });
        let mut known: Vec<Self> = Vec::new();
        for used in uses {
            // A claim may be mounted twice.
            if !known.contains(&used) {
                known.push(used);
            }
        }
        known
    }
}

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) kind: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// What a pod asks of a node, the same for all pods of one specification.
#[derive(Clone, Debug)]
pub(crate) struct Wants {
    spec: Arc<PodSpecView>,
    pub(crate) requests: Amounts,
    /// Cores and memory, with a little for those who ask for nothing.
    pub(crate) weight: (i64, i64),
    /// What a node must be.
    pub(crate) needs: NodeNeeds,
    /// The only nodes in question, by name.
    pub(crate) pinned: Option<Vec<String>>,
    pub(crate) preferred: Vec<(i64, NodeTerm)>,
    pub(crate) ports: Vec<HostPort>,
    /// What a node must be able to do.
    pub(crate) features: Features,
    /// As the status of nodes names them.
    pub(crate) images: Vec<String>,
}

static TEXTS: LazyLock<Pool<str>> = LazyLock::new(Pool::default);

impl PodInfo {
    /// The same pod, which will do with nodes that have this label and value alone.
    pub(crate) fn within(&self, key: &str, value: &str) -> Self {
        let (mut kind, mut wants) = ((*self.kind).clone(), (*self.kind.wants).clone());
        wants.needs = wants.needs.and_label(key, value);
        kind.wants = Arc::new(wants);
        Self { kind: Arc::new(kind), ..self.clone() }
    }

    /// Reads a pod.
    pub fn new(pod: &PodView) -> Self {
        let status = pod.status.as_ref();
        // Upstream: `pkg/scheduler/framework/plugins/defaultpreemption`, `podTerminatingByPreemption`.
        let is_preemption = |c: &client::ConditionView| {
            c.type_.as_deref() == Some("DisruptionTarget")
                && c.status.as_deref() == Some("True")
                && c.reason.as_deref() == Some("PreemptionByScheduler")
        };
        Self {
            key: Key::of(pod),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            priority: pod.spec.priority.unwrap_or(0),
            created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            generation: pod.metadata.generation.unwrap_or_default(),
            started: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            deleting: is_deleting(&pod.metadata),
            preempted: status
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|all| all.iter().any(is_preemption)),
            told: status.and_then(|s| s.conditions.as_ref()).is_some_and(|all| {
                let no_node = |c: &client::ConditionView| {
                    c.type_.as_deref() == Some("PodScheduled") && c.status.as_deref() == Some("False")
                };
                all.iter().any(no_node)
            }),
            nominated: status.and_then(|s| s.nominated_node_name.clone()).filter(|n| !n.is_empty()),
            kind: PodKind::of(pod),
            profile: Profile::standard().clone(),
        }
    }

    /// The same, placed by this profile.
    pub(crate) fn placed_by(self, profile: &Arc<Profile>) -> Self {
        Self { profile: profile.clone(), ..self }
    }

    /// The PodGroup that it belongs to.
    pub(crate) fn group(&self) -> Option<Key> {
        let name = self.wants().spec.scheduling_group.as_ref()?.pod_group_name.as_deref()?;
        Some(Key::new(self.key.namespace(), name))
    }

    pub(crate) fn wants(&self) -> &Wants {
        &self.kind.wants
    }
}

impl PodKind {
    fn of(pod: &PodView) -> Arc<Self> {
        static KNOWN: LazyLock<Pool<PodKind>> = LazyLock::new(Pool::default);
        let wants = Wants::of(pod.counting());
        let labels = pod.labels.as_ref();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let owner = controller_of(&pod.metadata).map(|o| (o.kind.as_str(), o.name.as_str()));
        let (uses, devices) = (Use::of(pod), DeviceUse::of(pod));
        KNOWN.share(
            |hasher| {
                let labels = labels.map(Arc::as_ptr);
                (Arc::as_ptr(&wants), labels, namespace, owner, &uses, &devices).hash(hasher);
            },
            // As long as they are held, nothing else can be in their places.
            |known| {
                Arc::ptr_eq(&known.wants, &wants)
                    && known.labels.as_ref().map(Arc::as_ptr) == labels.map(Arc::as_ptr)
                    && *known.namespace == *namespace
                    && known.owner.as_ref().map(|o| (&*o.kind, &*o.name)) == owner
                    && known.uses == uses
                    && known.devices == devices
            },
            || {
                Arc::new(Self {
                    namespace: TEXTS.text(namespace),
                    labels: labels.cloned(),
                    owner: owner.map(|(kind, name)| Owner { kind: TEXTS.text(kind), name: TEXTS.text(name) }),
                    rules: Rules::of(&pod.spec, namespace, pod.labels()),
                    wants: wants.clone(),
                    uses: uses.clone(),
                    devices: devices.clone(),
                })
            },
        )
    }
}

impl Wants {
    /// What is asked for by a specification, of which there is one for all pods that have it.
    fn of(spec: &Arc<PodSpecView>) -> Arc<Self> {
        static KNOWN: LazyLock<Pool<Wants>> = LazyLock::new(Pool::default);
        KNOWN.share(
            |hasher| Arc::as_ptr(spec).hash(hasher),
            // As long as it is held, nothing else can be in its place.
            |known| Arc::ptr_eq(&known.spec, spec),
            || Arc::new(Self::new(spec.clone())),
        )
    }

    fn new(spec: Arc<PodSpecView>) -> Self {
        let requests = client::pod_requests(&spec);
        let needs = NodeNeeds::of(spec.node_selector.as_ref(), spec.affinity.as_ref());
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let preferred =
            affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        Self {
            weight: weight::weight(&spec, &requests),
            requests,
            pinned: needs.names(),
            needs,
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|p| (i64::from(p.weight), NodeTerm::of(&p.preference)))
                .collect(),
            ports: ports::host_ports(&spec),
            features: Features::needed(&spec),
            images: containers.filter_map(|c| c.image.as_deref()).map(with_tag).collect(),
            spec,
        }
    }

    pub(crate) fn spec(&self) -> &PodSpecView {
        &self.spec
    }

    pub(crate) fn tolerations(&self) -> &[Toleration] {
        self.spec.tolerations.as_deref().unwrap_or_default()
    }

    /// Whether a container asks for one of these resources.
    pub(crate) fn asks_for(&self, resources: &[String]) -> bool {
        let containers = self.spec.containers.iter().chain(self.spec.init_containers.iter().flatten());
        let mut requests = containers.filter_map(|c| c.resources.as_ref()?.requests.as_ref());
        requests.any(|list| resources.iter().any(|name| list.contains_key(name)))
    }

    /// Whether the pod may have others evicted.
    pub(crate) fn preempts(&self) -> bool {
        self.spec.preemption_policy.as_deref() != Some("Never")
    }

    /// Whether the pod tolerates a taint.
    pub(crate) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        self.tolerations().iter().any(|toleration| client::tolerates(toleration, key, value, effect))
    }
}

/// Kubernetes/kubernetes, `pkg/scheduler/framework/plugins/imagelocality/image_locality.go`, `normalizedImageName`.
fn with_tag(image: &str) -> String {
    match (image.rfind(':'), image.rfind('/')) {
        (Some(colon), slash) if slash.is_none_or(|slash| colon > slash) => image.to_owned(),
        _ => format!("{image}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_by_their_peak() {
        let container = |cpu: &str, restart: Option<&str>| json!({"name": "c", "restartPolicy": restart, "resources": {"requests": {"cpu": cpu, "gpu": "1"}}});
        let pod: PodView = testkit::object(json!({"spec": {
            "containers": [container("100m", None), container("200m", None)],
            "initContainers": [container("250m", None), container("50m", Some("Always")), container("500m", None)],
            "overhead": {"cpu": "10m"},
        }}));
        let info = PodInfo::new(&pod);
        assert_eq!(info.wants().requests.cpu, 560);
        assert_eq!(info.wants().requests.others["gpu"], 3);
        assert_eq!(info.wants().weight, (560, 3 * weight::SMALL_MEMORY));
    }

    #[test]
    fn a_pod_takes_what_it_holds_while_it_becomes_smaller() {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = |actual: &str| -> PodView {
            testkit::object(json!({"spec": {"containers": [{"name": "c", "resources": resources("1")}]},
                "status": {"containerStatuses": [{"name": "c", "resources": resources(actual)}]}}))
        };
        let (larger, done) = (PodInfo::new(&pod("3")), PodInfo::new(&pod("1")));
        assert_eq!([larger.wants().requests.cpu, done.wants().requests.cpu], [3000, 1000]);
        assert!(!Arc::ptr_eq(&larger.kind, &done.kind), "others are told when it is done");
    }

    #[test]
    fn tolerations() {
        let pod = |toleration: serde_json::Value| {
            PodInfo::new(&testkit::object(json!({"spec": {"containers": [], "tolerations": [toleration]}})))
        };
        for (toleration, want) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "w"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            assert_eq!(
                pod(toleration.clone()).wants().tolerates("k", "v", "NoSchedule"),
                want,
                "{toleration}"
            );
        }
    }
}
