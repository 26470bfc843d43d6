//! The cluster in columns: one row for each node, one column for each thing that is asked of all nodes in turn.

mod taints;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::pod::{Amounts, HostPort, PodInfo};

pub(crate) use taints::{TaintSets, Tolerance};

/// Nodes, what they have, and what is taken.
#[derive(Debug, Default)]
pub struct ClusterView {
    pub(crate) names: Vec<Arc<str>>,
    rows: HashMap<Arc<str>, usize>,
    pub(crate) cordoned: Vec<bool>,
    pub(crate) labels: Vec<BTreeMap<String, String>>,
    /// Which of the taint sets each node has.
    pub(crate) tainted: Vec<usize>,
    pub(crate) taints: TaintSets,
    pub(crate) cpu: Column,
    pub(crate) memory: Column,
    pub(crate) storage: Column,
    pub(crate) pods: Column,
    pub(crate) others: HashMap<String, Column>,
    /// What is taken, with a little for pods that ask for nothing.
    pub(crate) weight: Vec<(i64, i64)>,
    pub(crate) ports: Vec<Vec<HostPort>>,
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

    /// Whether so much more fits.
    pub(crate) fn fits(&self, row: usize, more: i64) -> bool {
        more == 0 || more <= self.has[row] - self.taken[row]
    }
}

/// What a change of a node means for waiting pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// Nothing that the scheduler cares about.
    None,
    Some,
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
        let spec = node.spec.clone().unwrap_or_default();
        let cordoned = spec.unschedulable.unwrap_or(false);
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let tainted = self.taints.intern(spec.taints.as_deref().unwrap_or_default());
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
        changed |=
            self.cordoned[row] != cordoned || self.tainted[row] != tainted || self.labels[row] != labels;
        self.cordoned[row] = cordoned;
        self.tainted[row] = tainted;
        self.labels[row] = labels;
        if fresh {
            let known: Vec<Arc<PodInfo>> =
                self.placed.get(name).map(|pods| pods.values().cloned().collect()).unwrap_or_default();
            known.iter().for_each(|pod| self.take(row, pod, 1));
        }
        if changed { NodeChange::Some } else { NodeChange::None }
    }

    fn add_row(&mut self, name: &str) -> usize {
        let (row, name): (usize, Arc<str>) = (self.names.len(), name.into());
        self.rows.insert(name.clone(), row);
        self.names.push(name);
        self.cordoned.push(false);
        self.labels.push(BTreeMap::new());
        self.tainted.push(0);
        for column in [&mut self.cpu, &mut self.memory, &mut self.storage, &mut self.pods] {
            column.push(0);
        }
        self.others.values_mut().for_each(|column| column.push(0));
        self.weight.push((0, 0));
        self.ports.push(Vec::new());
        row
    }

    /// Forgets a node. What is known of its pods stays, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(row) = self.rows.remove(name) else { return };
        self.names.swap_remove(row);
        self.cordoned.swap_remove(row);
        self.labels.swap_remove(row);
        self.tainted.swap_remove(row);
        for column in [&mut self.cpu, &mut self.memory, &mut self.storage, &mut self.pods] {
            column.remove(row);
        }
        self.others.values_mut().for_each(|column| column.remove(row));
        self.weight.swap_remove(row);
        self.ports.swap_remove(row);
        if let Some(moved) = self.names.get(row) {
            self.rows.insert(moved.clone(), row);
        }
    }

    /// Takes in a pod that is on a node, or is about to be. Doing it again changes nothing.
    pub fn add_pod(&mut self, node: &str, pod: &Arc<PodInfo>) {
        if self.nodes_of.get(&pod.uid).is_some_and(|known| **known == *node) {
            return;
        }
        self.remove_pod(&pod.uid);
        let row = self.row(node);
        let node: Arc<str> = row.map_or_else(|| node.into(), |row| self.names[row].clone());
        self.nodes_of.insert(pod.uid.clone(), node.clone());
        self.placed.entry(node).or_default().insert(pod.uid.clone(), pod.clone());
        if let Some(row) = row {
            self.take(row, pod, 1);
        }
    }

    /// Forgets a pod and gives the node it was on.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<str>> {
        let node = self.nodes_of.remove(uid)?;
        let pods = self.placed.get_mut(&node)?;
        let pod = pods.remove(uid)?;
        if pods.is_empty() {
            self.placed.remove(&node);
        }
        if let Some(row) = self.row(&node) {
            self.take(row, &pod, -1);
        }
        Some(node)
    }

    /// Counts what a pod takes, once or minus once.
    fn take(&mut self, row: usize, pod: &PodInfo, times: i64) {
        let r = &pod.wants.requests;
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
        *cpu += times * pod.wants.weight.0;
        *memory += times * pod.wants.weight.1;
        for port in &pod.wants.ports {
            let ports = &mut self.ports[row];
            if times > 0 {
                ports.push(port.clone());
            } else if let Some(place) = ports.iter().position(|p| p == port) {
                ports.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests;
