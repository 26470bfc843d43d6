//! What a pod asks of its node, made ready for many comparisons.

use std::collections::BTreeMap;

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use base::{Pool, Timestamp};
use client::{ContainerView, Key, NodeNeeds, NodeTerm, PodSpecView, PodView, ResourcesView, tolerates};
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// For scores, a pod that asks for nothing counts as if it asked for this much
/// (kubernetes/kubernetes, `pkg/scheduler/util/pod_resources.go`).
const SMALL_CPU: i64 = 100;
const SMALL_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of everything: thousandths of a core, bytes, pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) storage: i64,
    pub(crate) others: BTreeMap<String, i64>,
}

impl Amounts {
    pub(crate) fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            // The server lets nothing else in.
            let Ok(quantity) = quantity.0.parse::<types::Quantity>() else { continue };
            match name.as_str() {
                "cpu" => amounts.cpu = quantity.millis(),
                "memory" => amounts.memory = quantity.units(),
                "ephemeral-storage" => amounts.storage = quantity.units(),
                "pods" => {}
                other => drop(amounts.others.insert(other.to_owned(), quantity.units())),
            }
        }
        amounts
    }

    fn combine(&mut self, other: &Self, how: impl Fn(i64, i64) -> i64) {
        self.cpu = how(self.cpu, other.cpu);
        self.memory = how(self.memory, other.memory);
        self.storage = how(self.storage, other.storage);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = how(*mine, *amount);
        }
    }
}

/// A port that the pod wants on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) ip: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node. The wildcard address takes the port on all.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

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
    pub(crate) wants: Arc<Wants>,
}

/// What a pod asks for, the same for all pods of one specification.
#[derive(Debug)]
pub(crate) struct Wants {
    spec: Arc<PodSpecView>,
    pub(crate) requests: Amounts,
    /// As `requests`, with a little for those who ask for nothing.
    pub(crate) weight: (i64, i64),
    pub(crate) node: NodeNeeds,
    pub(crate) preferred: Vec<(i64, NodeTerm)>,
    pub(crate) ports: Vec<HostPort>,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: &PodView) -> Self {
        Self {
            key: Key::of(pod),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            priority: pod.spec.priority.unwrap_or(0),
            created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            wants: Wants::of(&pod.spec),
        }
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
        let requests = requests(&spec);
        let weight = (
            if requests.cpu == 0 { SMALL_CPU } else { requests.cpu },
            if requests.memory == 0 { SMALL_MEMORY } else { requests.memory },
        );
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let preferred =
            affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            requests,
            weight,
            node: NodeNeeds::of(spec.node_selector.as_ref(), spec.affinity.as_ref()),
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|p| (i64::from(p.weight), NodeTerm::of(&p.preference)))
                .collect(),
            ports: host_ports(&spec),
            spec,
        }
    }

    pub(crate) fn tolerations(&self) -> &[Toleration] {
        self.spec.tolerations.as_deref().unwrap_or_default()
    }

    /// Whether the pod tolerates a taint.
    pub(crate) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        self.tolerations().iter().any(|t| tolerates(t, key, value, effect))
    }
}

fn host_ports(spec: &PodSpecView) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            // On the host's own network every port is a host port.
            let port = p.host_port.filter(|port| *port > 0).or_else(|| {
                (spec.host_network == Some(true)).then_some(p.container_port).filter(|port| *port > 0)
            })?;
            Some(HostPort {
                ip: p.host_ip.clone().unwrap_or_default(),
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port,
            })
        })
        .collect()
}

fn is_sidecar(container: &ContainerView) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod needs at most at any one time (kubernetes/kubernetes, `component-helpers/resource/helpers.go`,
/// `PodRequests`): its containers together, or the hungriest of the init containers with the sidecars that run
/// already, plus overhead.
fn requests(spec: &PodSpecView) -> Amounts {
    let of = |r: Option<&ResourcesView>| Amounts::of(r.and_then(|r| r.requests.as_ref()));
    let mut total = Amounts::default();
    for container in &spec.containers {
        total.combine(&of(container.resources.as_ref()), |a, b| a.saturating_add(b));
    }
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needs = of(container.resources.as_ref());
        if is_sidecar(container) {
            total.combine(&needs, |a, b| a.saturating_add(b));
            sidecars.combine(&needs, |a, b| a.saturating_add(b));
            needs = sidecars.clone();
        } else {
            needs.combine(&sidecars, |a, b| a.saturating_add(b));
        }
        peak.combine(&needs, i64::max);
    }
    total.combine(&peak, i64::max);
    // What is said for the whole pod counts instead of the sum.
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let amounts = Amounts::of(Some(whole));
        if whole.contains_key("cpu") {
            total.cpu = amounts.cpu;
        }
        if whole.contains_key("memory") {
            total.memory = amounts.memory;
        }
        total.others.extend(amounts.others);
    }
    total.combine(&Amounts::of(spec.overhead.as_ref()), |a, b| a.saturating_add(b));
    total.others.retain(|_, amount| *amount > 0);
    total
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
        assert_eq!(info.wants.requests.cpu, 560);
        assert_eq!(info.wants.requests.others["gpu"], 3);
        assert_eq!(info.wants.weight, (560, SMALL_MEMORY));
    }
}
