//! The cluster in columns: one row for each node, one column for each thing that is asked of all nodes in turn.

mod counts;
mod images;
mod owners;
mod prepare;
mod suits;
mod taints;
mod topology;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use client::{Key, Labels};
use k8s_openapi::api::core::v1::Node;

use crate::dra::{DeviceAsk, Devices, Grant};
use crate::features::Features;
use crate::pod::{Amounts, HostPort, Matcher, PodInfo, PodKind, Use};
use crate::volumes::{Plan, VolumeAsk, Volumes};

use counts::{Counts, Said};
use images::Images;
use owners::Owners;
use suits::Suitability;
use topology::Topologies;

pub(crate) use counts::Question;
pub(crate) use owners::CONTROLLERS;
pub(crate) use prepare::HOSTNAME;
pub(crate) use suits::allowed;
pub(crate) use taints::{TaintSets, Tolerance};
pub(crate) use topology::NOWHERE;

/// Nodes, what they have, and what is taken.
#[derive(Debug, Default)]
pub struct ClusterView {
    pub(crate) names: Vec<Arc<str>>,
    /// Each node's place in the order of their names, once a pod is to be placed.
    pub(crate) order: Vec<usize>,
    rows: HashMap<Arc<str>, usize>,
    /// Where to begin when not all nodes are to be looked at.
    pub(crate) turn: AtomicUsize,
    pub(crate) cordoned: Vec<bool>,
    pub(crate) labels: Vec<Labels>,
    /// Which of the taint sets each node has.
    pub(crate) tainted: Vec<usize>,
    pub(crate) taints: TaintSets,
    /// What each node says that it can do.
    pub(crate) declared: Vec<Features>,
    pub(crate) cpu: Column,
    pub(crate) memory: Column,
    pub(crate) storage: Column,
    pub(crate) pods: Column,
    pub(crate) others: HashMap<String, Column>,
    /// What is taken, with a little for pods that ask for nothing.
    pub(crate) weight: Vec<(i64, i64)>,
    pub(crate) ports: Vec<Vec<HostPort>>,
    pub(crate) images: Images,
    pub(crate) topologies: Topologies,
    pub(crate) suits: Suitability,
    pub(crate) counts: Counts,
    pub(crate) said: Said,
    pub(crate) owners: Owners,
    pub(crate) volumes: Volumes,
    pub(crate) devices: Devices,
    /// How many pods that have a node use a claim.
    users: HashMap<Key, i64>,
    /// The labels of namespaces.
    namespaces: HashMap<String, Labels>,
    /// Pods that wait for the node that was promised to them, by node.
    promised: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<PodInfo>>>,
    /// Pods by node, for nodes that are not there (yet), too.
    placed: HashMap<Arc<str>, HashMap<Arc<str>, Arc<PodInfo>>>,
    /// Each pod's node.
    nodes_of: HashMap<Arc<str>, Arc<str>>,
}

/// One resource: what each node has, and how much of it is taken.
#[derive(Debug, Default)]
pub(crate) struct Column {
    pub(crate) has: Vec<i64>,
    pub(crate) taken: Vec<i64>,
}

impl Column {
    fn push(&mut self, has: i64) {
        self.has.push(has);
        self.taken.push(0);
    }

    fn remove(&mut self, row: usize) {
        self.has.swap_remove(row);
        self.taken.swap_remove(row);
    }

    /// Whether so much more fits, with so much there besides what is taken.
    pub(crate) fn fits_with(&self, row: usize, more: i64, there: i64) -> bool {
        more == 0 || more <= self.has[row] - self.taken[row] - there
    }
}

/// What a change of a node means for waiting pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// Nothing that the scheduler cares about.
    None,
    Some,
    /// It is new, or may belong to other domains now.
    Labels,
}

/// What came of adding a pod.
#[derive(Clone, Debug)]
pub enum PodChange {
    /// It was there, and nothing counts differently now.
    None,
    /// It was not there.
    New,
    /// It was there, and counted like this.
    Changed(Arc<PodInfo>),
}

impl ClusterView {
    /// A cluster without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn row(&self, name: &str) -> Option<usize> {
        self.rows.get(name).copied()
    }

    /// Takes in a node, new or changed.
    pub fn set_node(&mut self, node: &Node) {
        self.update_node(node);
    }

    pub(crate) fn update_node(&mut self, node: &Node) -> NodeChange {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let row = self.row(name);
        let fresh = row.is_none();
        let row = row.unwrap_or_else(|| self.add_row(name));
        let spec = node.spec.as_ref();
        let cordoned = spec.and_then(|s| s.unschedulable).unwrap_or(false);
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let tainted = self.taints.intern(spec.and_then(|s| s.taints.as_deref()).unwrap_or_default());
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let has = Amounts::of(list);
        let pods = list.and_then(|l| l.get("pods")).and_then(|q| q.0.parse::<types::Quantity>().ok());
        let pods = pods.map_or(0, types::Quantity::units);

        let mut changed = fresh;
        let mut put = |place: &mut i64, value: i64| {
            changed |= *place != value;
            *place = value;
        };
        put(&mut self.cpu.has[row], has.cpu);
        put(&mut self.memory.has[row], has.memory);
        put(&mut self.storage.has[row], has.storage);
        put(&mut self.pods.has[row], pods);
        for name in has.others.keys() {
            let rows = self.names.len();
            let column = self.others.entry(name.clone()).or_default();
            column.has.resize(rows, 0);
            column.taken.resize(rows, 0);
        }
        for (name, column) in &mut self.others {
            put(&mut column.has[row], has.others.get(name).copied().unwrap_or(0));
        }
        let declared = node.status.as_ref().and_then(|s| s.declared_features.as_deref());
        let declared = Features::declared(declared.unwrap_or_default());
        changed |= self.cordoned[row] != cordoned || self.tainted[row] != tainted;
        changed |= self.declared[row] != declared;
        let relabelled = fresh || self.labels[row] != labels;
        self.cordoned[row] = cordoned;
        self.tainted[row] = tainted;
        self.declared[row] = declared;
        let images = node.status.as_ref().and_then(|s| s.images.as_deref()).unwrap_or_default();
        self.images.set(row, images);
        if relabelled {
            self.topologies.set(row, |key| labels.get(key));
            self.suits.look(row, self.names.len(), &labels, name);
            self.labels[row] = labels;
        }
        if fresh {
            let known: Vec<Arc<PodInfo>> =
                self.placed.get(name).map(|pods| pods.values().cloned().collect()).unwrap_or_default();
            known.iter().for_each(|pod| self.take(row, pod, 1));
        }
        match (relabelled, changed) {
            (true, _) => NodeChange::Labels,
            (false, true) => NodeChange::Some,
            (false, false) => NodeChange::None,
        }
    }

    fn add_row(&mut self, name: &str) -> usize {
        let (row, name): (usize, Arc<str>) = (self.names.len(), name.into());
        self.rows.insert(name.clone(), row);
        self.names.push(name);
        self.order.clear();
        self.cordoned.push(false);
        self.labels.push(Labels::new());
        self.tainted.push(0);
        self.declared.push(Features::default());
        for column in [&mut self.cpu, &mut self.memory, &mut self.storage, &mut self.pods] {
            column.push(0);
        }
        self.others.values_mut().for_each(|column| column.push(0));
        self.weight.push((0, 0));
        self.ports.push(Vec::new());
        self.images.push();
        self.topologies.push();
        self.counts.push();
        row
    }

    /// Forgets a node. What is known of its pods stays, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(row) = self.row(name) else { return };
        let known: Vec<Arc<PodInfo>> =
            self.placed.get(name).map(|pods| pods.values().cloned().collect()).unwrap_or_default();
        known.iter().for_each(|pod| self.take(row, pod, -1));
        self.rows.remove(name);
        self.names.swap_remove(row);
        self.order.clear();
        self.cordoned.swap_remove(row);
        self.labels.swap_remove(row);
        self.tainted.swap_remove(row);
        self.declared.swap_remove(row);
        for column in [&mut self.cpu, &mut self.memory, &mut self.storage, &mut self.pods] {
            column.remove(row);
        }
        self.others.values_mut().for_each(|column| column.remove(row));
        self.weight.swap_remove(row);
        self.ports.swap_remove(row);
        self.images.remove(row);
        self.topologies.remove(row);
        self.suits.remove(row);
        self.counts.remove(row);
        self.said.remove(row, self.names.len());
        if let Some(moved) = self.names.get(row) {
            self.rows.insert(moved.clone(), row);
        }
    }

    /// Takes in a pod that is on a node, or is about to be, or that has changed there. Doing it again changes nothing.
    pub fn add_pod(&mut self, node: &str, pod: &Arc<PodInfo>) -> PodChange {
        self.withdraw(&pod.uid);
        if self.nodes_of.get(&pod.uid).is_some_and(|known| **known == *node)
            && let Some(known) = self.placed.get_mut(node).and_then(|pods| pods.get_mut(&pod.uid))
            && Arc::ptr_eq(&known.kind, &pod.kind)
            && known.deleting == pod.deleting
        {
            // When it began to run, and the like, counts nowhere.
            *known = pod.clone();
            return PodChange::None;
        }
        let before = self.remove_pod(&pod.uid);
        self.count_users(pod, 1);
        let row = self.row(node);
        let node: Arc<str> = row.map_or_else(|| node.into(), |row| self.names[row].clone());
        self.nodes_of.insert(pod.uid.clone(), node.clone());
        self.placed.entry(node).or_default().insert(pod.uid.clone(), pod.clone());
        if let Some(row) = row {
            self.take(row, pod, 1);
        }
        before.map_or(PodChange::New, |(_, before)| PodChange::Changed(before))
    }

    /// Forgets a pod and gives the node it was on.
    pub fn remove_pod(&mut self, uid: &str) -> Option<(Arc<str>, Arc<PodInfo>)> {
        let node = self.nodes_of.remove(uid)?;
        let pods = self.placed.get_mut(&node)?;
        let pod = pods.remove(uid)?;
        if pods.is_empty() {
            self.placed.remove(&node);
        }
        self.count_users(&pod, -1);
        if let Some(row) = self.row(&node) {
            self.take(row, &pod, -1);
        }
        Some((node, pod))
    }

    fn count_users(&mut self, pod: &PodInfo, times: i64) {
        for used in &pod.kind.uses {
            let Use::Claim { name, .. } = used else { continue };
            let key = Key::new(pod.key.namespace(), name);
            let count = self.users.entry(key.clone()).or_default();
            *count += times;
            if *count == 0 {
                self.users.remove(&key);
            }
        }
    }

    /// How many pods that have a node use a claim.
    pub(crate) fn users(&self, claim: &Key) -> i64 {
        self.users.get(claim).copied().unwrap_or(0)
    }

    /// What is to be done about a pod's claims before it is bound to a node.
    pub(crate) fn plan(&self, pod: &PodInfo, node: &str) -> Plan {
        let row = self.row(node).filter(|_| !pod.kind.uses.is_empty());
        let ask = row.and_then(|row| Some((VolumeAsk::new(pod, &self.volumes).ok()?, row)));
        ask.map(|(ask, row)| ask.plan(node, &self.labels[row])).unwrap_or_default()
    }

    /// What a pod's claims of devices are given before it is bound to a node.
    pub(crate) fn grant(&self, pod: &PodInfo, node: &str) -> Option<Grant> {
        let row = self.row(node)?;
        DeviceAsk::new(pod, &self.devices).ok()??.grant(self, row)
    }

    /// Whether a node that has none of a resource may have devices instead.
    pub(crate) fn comes_as_devices(&self, resource: &str, row: usize) -> bool {
        self.devices.stands_for(resource)
            && self.others.get(resource).is_none_or(|column| column.has[row] == 0)
    }

    /// Knows the labels of a namespace; without any it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let labels = labels.filter(|l| !l.is_empty());
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        self.counts.forget_namespaces();
        self.said.forget_namespaces();
    }

    /// Whether a pod of a kind is meant.
    pub(crate) fn meant(&self, matcher: &Matcher, kind: &PodKind) -> bool {
        means(&self.namespaces, matcher, kind)
    }

    /// The pods on a node, in no order.
    pub(crate) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.placed.get(node).into_iter().flat_map(HashMap::values)
    }

    /// How many pods are on nodes, or about to be.
    pub(crate) fn pods_placed(&self) -> usize {
        self.nodes_of.len()
    }

    /// A pod, wherever it is.
    pub(crate) fn placed(&self, uid: &str) -> Option<(&Arc<str>, &Arc<PodInfo>)> {
        let node = self.nodes_of.get(uid)?;
        Some((node, self.placed.get(node)?.get(uid)?))
    }

    /// What a node's label says.
    pub(crate) fn label(&self, node: &str, key: &str) -> Option<&String> {
        self.names.iter().position(|name| **name == *node).and_then(|row| self.labels[row].get(key))
    }

    /// All that the nodes' labels of this key say.
    pub(crate) fn label_values(&self, key: &str) -> BTreeSet<String> {
        self.labels.iter().filter_map(|labels| labels.get(key).cloned()).collect()
    }

    /// Promises a node to a pod: until it is withdrawn, pods of no higher priority leave it room there.
    pub(crate) fn promise(&mut self, node: &str, pod: &Arc<PodInfo>) {
        self.withdraw(&pod.uid);
        for term in &pod.kind.rules.apart {
            self.topologies.ensure(&term.topology, self.labels.iter().map(|l| l.get(&*term.topology)));
        }
        self.promised.entry(node.into()).or_default().insert(pod.uid.clone(), pod.clone());
    }

    pub(crate) fn withdraw(&mut self, uid: &str) {
        if self.promised.is_empty() {
            return;
        }
        self.promised.retain(|_, pods| {
            pods.remove(uid);
            !pods.is_empty()
        });
    }

    /// The pods that a node is promised to.
    pub(crate) fn promised(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.promised.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// The node that is promised to a pod.
    pub(crate) fn promise_of(&self, uid: &str) -> Option<Arc<str>> {
        let mut all = self.promised.iter();
        all.find(|(_, pods)| pods.contains_key(uid)).map(|(node, _)| node.clone())
    }

    /// The nodes that are promised to some pod.
    pub(crate) fn promised_nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.promised.keys()
    }

    /// Counts what a pod takes, once or minus once.
    fn take(&mut self, row: usize, pod: &PodInfo, times: i64) {
        let r = &pod.wants().requests;
        self.cpu.taken[row] += times * r.cpu;
        self.memory.taken[row] += times * r.memory;
        self.storage.taken[row] += times * r.storage;
        self.pods.taken[row] += times;
        for (name, amount) in &r.others {
            let rows = self.names.len();
            let column = self.others.entry(name.clone()).or_default();
            column.has.resize(rows, 0);
            column.taken.resize(rows, 0);
            column.taken[row] += times * amount;
        }
        let (cpu, memory) = &mut self.weight[row];
        *cpu += times * pod.wants().weight.0;
        *memory += times * pod.wants().weight.1;
        for port in &pod.wants().ports {
            let ports = &mut self.ports[row];
            if times > 0 {
                ports.push(port.clone());
            } else if let Some(place) = ports.iter().position(|p| p == port) {
                ports.swap_remove(place);
            }
        }
        let times = if times > 0 { 1 } else { -1 };
        let namespaces = &self.namespaces;
        self.counts.count(row, pod, times, |matcher, kind| means(namespaces, matcher, kind));
        if pod.kind.rules.concerns_others() {
            let (topologies, labels) = (&mut self.topologies, &self.labels);
            self.said
                .hear(row, pod, times, |key| topologies.ensure(key, labels.iter().map(|l| l.get(&**key))));
        }
    }
}

fn means(namespaces: &HashMap<String, Labels>, matcher: &Matcher, kind: &PodKind) -> bool {
    matcher.matches(&kind.namespace, kind.labels.as_deref(), &|name| namespaces.get(name))
}

#[cfg(test)]
mod tests;
