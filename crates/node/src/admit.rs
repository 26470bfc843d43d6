//! Whether the node takes a pod that was bound to it (kubernetes/kubernetes, `pkg/kubelet/lifecycle/predicate.go`): whoever
//! binds past the scheduler, or while another one does, finds out here.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Amounts, NodeNeeds, tolerates};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;

use crate::plan::{is_over, is_sidecar};
use crate::requests::requests;
use crate::worker::uid_of;

/// Why a pod is not taken: a word for programs, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Refusal {
    fn predicate(name: &str, why: &str) -> Self {
        Self { reason: name.to_owned(), message: format!("Predicate {name} failed: {why}") }
    }
}

/// What the node has too little of for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Lack {
    /// How much more there would have to be (`GetInsufficientAmount`).
    pub(crate) fn amount(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }

    fn refusal(&self) -> Refusal {
        let Self { resource, requested, used, capacity } = self;
        Refusal {
            reason: format!("OutOf{resource}"),
            message: format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        }
    }
}

/// All that stands against a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) lacks: Vec<Lack>,
    /// What room would not help against.
    pub(crate) other: Option<Refusal>,
}

impl Denied {
    /// What is said of it; of a critical pod what room would not help against, for room could be made.
    pub(crate) fn refusal(self, critical: bool) -> Refusal {
        let lack = self.lacks.first().map(Lack::refusal);
        let (first, second) = if critical { (self.other, lack) } else { (lack, self.other) };
        first.or(second).unwrap_or_else(|| Refusal::predicate("Unknown", "nobody knows why"))
    }
}

/// What the pods that were taken have of the node.
#[derive(Default)]
pub(crate) struct Taken(Mutex<HashMap<String, Arc<Share>>>);

/// What one pod has.
#[derive(Debug, Default)]
struct Share {
    amounts: Amounts,
    ports: Vec<Port>,
}

/// A port of the node.
#[derive(Debug, PartialEq, Eq)]
struct Port {
    protocol: String,
    /// Empty for all addresses.
    ip: String,
    port: i32,
}

impl Taken {
    /// Takes a pod, or says why not. `pods` are all that are bound to the node; those that have ended, and those that were
    /// never taken, are in nobody's way.
    pub(crate) fn take(&self, pod: &Pod, pods: &[Arc<Pod>], node: &Node) -> Result<(), Denied> {
        let share = Share::of(pod);
        let mut taken = self.0.lock();
        let others: Vec<Arc<Share>> = pods
            .iter()
            .filter(|other| uid_of(other) != uid_of(pod) && !is_over(other))
            .filter_map(|other| taken.get(uid_of(other)).cloned())
            .collect();
        fits(pod, &share, &others, node)?;
        // What is gone is forgotten once there is more of it than of what is there.
        if taken.len() > 2 * pods.len() + 16 {
            taken.retain(|uid, _| pods.iter().any(|pod| uid_of(pod) == uid));
        }
        taken.insert(uid_of(pod).to_owned(), Arc::new(share));
        Ok(())
    }

    /// Notes that a pod that was taken has been promised something else.
    pub(crate) fn resized(&self, pod: &Pod) {
        self.0.lock().insert(uid_of(pod).to_owned(), Arc::new(Share::of(pod)));
    }

    /// Notes a pod that was taken before this agent began.
    pub(crate) fn note(&self, pod: &Pod) {
        self.0.lock().entry(uid_of(pod).to_owned()).or_insert_with(|| Arc::new(Share::of(pod)));
    }
}

impl Share {
    fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let inits = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten());
        let containers = spec.into_iter().flat_map(|s| &s.containers).chain(inits.filter(|c| is_sidecar(c)));
        let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|port| {
            Some(Port {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ip: port.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default(),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        });
        Self { ports: ports.collect(), amounts: requests(pod) }
    }
}

impl Port {
    fn clashes(&self, other: &Self) -> bool {
        let same_ip = self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip;
        self.port == other.port && self.protocol == other.protocol && same_ip
    }
}

fn fits(pod: &Pod, share: &Share, others: &[Arc<Share>], node: &Node) -> Result<(), Denied> {
    let denied = Denied { lacks: lacks(share, others, node), other: suits(pod, share, others, node).err() };
    if denied == Denied::default() { Ok(()) } else { Err(denied) }
}

/// What the node has too little of.
fn lacks(share: &Share, others: &[Arc<Share>], node: &Node) -> Vec<Lack> {
    let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    let has = Amounts::of(allocatable);
    let places = allocatable.and_then(|all| all.get("pods")?.0.parse().ok()).unwrap_or(i64::MAX);
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let mut used = Amounts::default();
    others.iter().for_each(|other| used.combine(&other.amounts, i64::saturating_add));
    let wants = &share.amounts;
    let mut all = Vec::new();
    let mut check = |name: &str, requested: i64, used: i64, capacity: i64| {
        if requested > 0 && requested > capacity.saturating_sub(used) {
            all.push(Lack { resource: name.to_owned(), requested, used, capacity });
        }
    };
    check("pods", 1, count, places);
    check("cpu", wants.cpu, used.cpu, has.cpu);
    check("memory", wants.memory, used.memory, has.memory);
    check("ephemeral-storage", wants.storage, used.storage, has.storage);
    for (name, amount) in &wants.others {
        // What the node does not know is not its to give, but others': cluster-wide resources.
        if let Some(has) = has.others.get(name) {
            check(name, *amount, used.others.get(name).copied().unwrap_or(0), *has);
        }
    }
    all
}

/// Whether the node is one for the pod, however much room it has.
fn suits(pod: &Pod, share: &Share, others: &[Arc<Share>], node: &Node) -> Result<(), Refusal> {
    let spec = pod.spec.as_ref();
    const OS: &str = "kubernetes.io/os";
    let selected = spec.and_then(|s| s.node_selector.as_ref()?.get(OS));
    let own = node.metadata.labels.as_ref().and_then(|labels| labels.get(OS));
    if selected.zip(own).is_some_and(|(selected, own)| selected != own) {
        return Err(Refusal {
            reason: "PodOSSelectorNodeLabelDoesNotMatch".to_owned(),
            message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
                .to_owned(),
        });
    }
    if spec.and_then(|s| s.os.as_ref()).is_some_and(|os| os.name != "linux") {
        return Err(Refusal {
            reason: "PodOSNotSupported".to_owned(),
            message: "Failed to admit pod as the OS field doesn't match node OS".to_owned(),
        });
    }
    let needs =
        NodeNeeds::of(spec.and_then(|s| s.node_selector.as_ref()), spec.and_then(|s| s.affinity.as_ref()));
    let labels = node.metadata.labels.clone().unwrap_or_default();
    if !needs.admit(node.metadata.name.as_deref().unwrap_or_default(), &labels) {
        return Err(Refusal::predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    if share.ports.iter().any(|port| others.iter().any(|o| o.ports.iter().any(|p| p.clashes(port)))) {
        return Err(Refusal::predicate(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
        ));
    }
    let tolerations = spec.and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let borne = |taint: &k8s_openapi::api::core::v1::Taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        tolerations.iter().any(|t| tolerates(t, &taint.key, value, &taint.effect))
    };
    // The others keep away who is not here yet.
    if taints.iter().any(|taint| taint.effect == "NoExecute" && !borne(taint)) {
        return Err(Refusal::predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    impl Taken {
        fn admit(&self, pod: &Pod, pods: &[Arc<Pod>], node: &Node) -> Result<(), Refusal> {
            self.take(pod, pods, node).map_err(|denied| denied.refusal(false))
        }
    }

    #[test]
    fn all_that_stands_against_a_pod_is_known() {
        let taken = Taken::default();
        let first = asks("a", json!({"cpu": "1500m"}));
        taken.note(&first);
        let pod = pod(
            "b",
            json!({"resources": {"requests": {"cpu": "600m", "memory": "2Gi"}}}),
            json!({"nodeSelector": {"disk": "hdd"}}),
        );
        let denied = taken.take(&pod, &[first, pod.clone()], &node()).unwrap_err();
        let lacks: Vec<(&str, i64)> =
            denied.lacks.iter().map(|l| (l.resource.as_str(), l.amount())).collect();
        assert_eq!(lacks, [("cpu", 100), ("memory", 1 << 30)]);
        assert_eq!(denied.clone().refusal(true).reason, "NodeAffinity");
        assert_eq!(denied.refusal(false).reason, "OutOfcpu");
    }

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "k", "effect": "NoExecute"}, {"key": "s", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3", "example.com/thing": "1"}},
        }))
        .unwrap()
    }

    fn pod(uid: &str, container: Value, spec: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": uid, "uid": uid}, "spec": {
            "tolerations": [{"key": "k", "operator": "Exists"}], "containers": [{"name": "c"}]}});
        let fields = |value: Value| value.as_object().cloned().unwrap();
        pod["spec"]["containers"][0].as_object_mut().unwrap().extend(fields(container));
        pod["spec"].as_object_mut().unwrap().extend(fields(spec));
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn asks(uid: &str, resources: Value) -> Arc<Pod> {
        pod(uid, json!({"resources": {"requests": resources}}), json!({}))
    }

    fn ports(uid: &str, ip: &str, protocol: &str) -> Arc<Pod> {
        let port = json!({"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol});
        pod(uid, json!({"ports": [port]}), json!({}))
    }

    #[test]
    fn resources_are_counted() {
        let taken = Taken::default();
        let first = asks("a", json!({"cpu": "1500m", "example.com/thing": "1", "example.com/unknown": "7"}));
        taken.admit(&first, std::slice::from_ref(&first), &node()).unwrap();
        let refused = |pod: &Arc<Pod>| {
            taken.admit(pod, &[first.clone(), pod.clone()], &node()).map_err(|r| (r.reason, r.message))
        };
        let why = "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000";
        assert_eq!(refused(&asks("b", json!({"cpu": "600m"}))), Err(("OutOfcpu".into(), why.into())));
        let (reason, _) = refused(&asks("b", json!({"example.com/thing": "1"}))).unwrap_err();
        assert_eq!(reason, "OutOfexample.com/thing");
        assert_eq!(refused(&asks("b", json!({"cpu": "500m", "memory": "1Gi"}))), Ok(()));
        // It may be asked again.
        assert_eq!(refused(&asks("b", json!({"cpu": "500m", "memory": "1Gi"}))), Ok(()));
    }

    #[test]
    fn who_was_refused_or_has_ended_is_in_nobodys_way() {
        let taken = Taken::default();
        let mut done = (*asks("a", json!({"cpu": "2"}))).clone();
        taken.admit(&done, &[], &node()).unwrap();
        let next = asks("b", json!({"cpu": "2"}));
        assert!(taken.admit(&next, &[Arc::new(done.clone())], &node()).is_err());
        done.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
        let all = [Arc::new(done), asks("never-taken", json!({"cpu": "2"}))];
        taken.admit(&next, &all, &node()).unwrap();
    }

    #[test]
    fn only_so_many_pods() {
        let taken = Taken::default();
        let all: Vec<Arc<Pod>> = ["a", "b", "c", "d"].iter().map(|uid| asks(uid, json!({}))).collect();
        let outcomes: Vec<bool> = all.iter().map(|pod| taken.admit(pod, &all, &node()).is_ok()).collect();
        assert_eq!(outcomes, [true, true, true, false]);
    }

    #[test]
    fn ports_clash_by_address_and_protocol() {
        let taken = Taken::default();
        let first = ports("a", "10.0.0.1", "TCP");
        taken.note(&first);
        let refused = |pod: Arc<Pod>| taken.admit(&pod, std::slice::from_ref(&first), &node()).err();
        let why = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        let want = Refusal { reason: "NodePorts".into(), message: why.into() };
        assert_eq!(refused(ports("b", "", "TCP")), Some(want));
        assert_eq!(refused(ports("b", "10.0.0.2", "TCP")), None);
        assert_eq!(refused(ports("b", "0.0.0.0", "UDP")), None);
    }

    #[test]
    fn labels_and_taints_of_the_node() {
        let reason = |spec: Value| {
            Taken::default().admit(&pod("a", json!({}), spec), &[], &node()).map_err(|r| r.reason)
        };
        assert_eq!(reason(json!({"nodeSelector": {"disk": "ssd"}})), Ok(()));
        assert_eq!(reason(json!({"nodeSelector": {"disk": "hdd"}})), Err("NodeAffinity".into()));
        assert_eq!(reason(json!({"tolerations": []})), Err("TaintToleration".into()));
        assert_eq!(reason(json!({"os": {"name": "linux"}})), Ok(()));
        assert_eq!(reason(json!({"os": {"name": "windows"}})), Err("PodOSNotSupported".into()));
    }
}
