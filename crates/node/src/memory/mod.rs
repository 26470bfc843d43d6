//! Memory and huge pages from known NUMA nodes (kubernetes/kubernetes, `pkg/kubelet/cm/memorymanager/policy_static.go`):
//! containers of Guaranteed pods are bound to nodes that have what they ask for.
//!
//! A node serves either containers that need one node, or one group of nodes for containers that need more. Pure: the
//! state is a value, and whoever changes it writes it down.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::topology::{Hint, Machine, Mask};

/// As the state names it.
pub(crate) const STATIC: &str = "Static";

/// Bytes by resource: `memory`, `hugepages-2Mi`, …
pub(crate) type Amounts = BTreeMap<String, u64>;

/// What is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MemoryState {
    pub(crate) policy_name: String,
    pub(crate) machine_state: BTreeMap<usize, NodeState>,
    /// By pod's UID and container.
    pub(crate) entries: BTreeMap<String, BTreeMap<String, Vec<Block>>>,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeState {
    number_of_assignments: usize,
    memory_map: BTreeMap<String, Table>,
    /// Together with which nodes it serves.
    cells: Vec<usize>,
}

/// One resource of a node, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    total: u64,
    system_reserved: u64,
    pub(crate) allocatable: u64,
    reserved: u64,
    free: u64,
}

/// What a container has of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Block {
    pub(crate) numa_affinity: Vec<usize>,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// In bytes; what a later container of the pod has taken over is not counted here any more.
    pub(crate) size: u64,
}

/// Why a container gets no memory of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available")]
    NoNodes,
    #[error("[memorymanager] failed to find the default preferred hint")]
    NotPreferred,
    #[error("[memorymanager] failed to find NUMA nodes to extend the current topology hint")]
    NoExtension,
    #[error("[memorymanager] failed to find the extended preferred hint")]
    ExtensionNotPreferred,
    #[error("[memorymanager] preferred hint violates NUMA node allocation")]
    Violates,
}

/// Who asks: the pod, the container, and the init containers that have ended when it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) uid: &'a str,
    pub(crate) container: &'a str,
    pub(crate) ended: &'a [&'a str],
}

/// The name of huge pages of a size (in KiB), as resources have it.
fn hugepages(kib: u64) -> String {
    match kib {
        kib if kib % (1 << 20) == 0 => format!("hugepages-{}Gi", kib >> 20),
        kib if kib % (1 << 10) == 0 => format!("hugepages-{}Mi", kib >> 10),
        kib => format!("hugepages-{kib}Ki"),
    }
}

impl MemoryState {
    /// A machine on which nothing was given out; `reserved` is kept back on each node.
    pub(crate) fn fresh(machine: &Machine, reserved: &BTreeMap<usize, Amounts>) -> Self {
        let node = |number: usize| {
            let memory = &machine.nodes[&number];
            let kept = |name: &str| reserved.get(&number).and_then(|r| r.get(name)).copied().unwrap_or(0);
            let table = |name: &str, total: u64, lost: u64| {
                let allocatable = total.saturating_sub(kept(name)).saturating_sub(lost);
                Table { total, system_reserved: kept(name), allocatable, reserved: 0, free: allocatable }
            };
            let pages = memory.hugepages.iter().map(|(kib, bytes)| (hugepages(*kib), *bytes));
            let mut map: BTreeMap<String, Table> =
                pages.map(|(name, bytes)| (name.clone(), table(&name, bytes, 0))).collect();
            map.insert("memory".to_owned(), table("memory", memory.memory, memory.hugepages.values().sum()));
            NodeState { number_of_assignments: 0, memory_map: map, cells: vec![number] }
        };
        Self {
            policy_name: STATIC.to_owned(),
            machine_state: machine.nodes.keys().map(|number| (*number, node(*number))).collect(),
            entries: BTreeMap::new(),
        }
    }

    /// Whether this state, written down earlier, fits a machine whose fresh state is `fresh` (`validateState`).
    pub(crate) fn check(&self, fresh: &Self) -> Result<(), String> {
        let mut expected = fresh.clone();
        for (pod, containers) in &self.entries {
            for (container, blocks) in containers {
                for block in blocks {
                    let lacks = |what: &str| {
                        Err(format!("[memorymanager] (pod: {pod}, container: {container}) the memory assignment uses the {what} that does not exist"))
                    };
                    for node in &block.numa_affinity {
                        match expected.machine_state.get(node) {
                            None => return lacks("NUMA"),
                            Some(node) if !node.memory_map.contains_key(&block.kind) => {
                                return lacks("memory resource");
                            }
                            Some(_) => {}
                        }
                    }
                    expected.reserve(block, block.size);
                }
            }
        }
        let same = self.machine_state.len() == expected.machine_state.len()
            && self.machine_state.iter().all(|(number, node)| {
                expected.machine_state.get(number).is_some_and(|other| {
                    node.number_of_assignments == other.number_of_assignments
                        && node.cells == other.cells
                        && node.memory_map.len() == other.memory_map.len()
                        && node.memory_map.iter().all(|(name, table)| {
                            other.memory_map.get(name).is_some_and(|t| {
                                (t.total, t.system_reserved, t.allocatable)
                                    == (table.total, table.system_reserved, table.allocatable)
                            }) && self.sums(&node.cells, name) == expected.sums(&node.cells, name)
                        })
                })
            });
        if same { Ok(()) } else { Err("[memorymanager] the expected machine state is different from the real one".into()) }
    }

    /// Reserved and free bytes of a group of nodes: which of them gave how much depends on the order of things.
    fn sums(&self, nodes: &[usize], name: &str) -> (u64, u64) {
        let tables = nodes.iter().filter_map(|n| self.machine_state.get(n)?.memory_map.get(name));
        tables.fold((0, 0), |(reserved, free), t| (reserved + t.reserved, free + t.free))
    }

    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<&Vec<Block>> {
        self.entries.get(uid)?.get(container)
    }

    /// The nodes that a container is bound to.
    pub(crate) fn nodes_of(&self, uid: &str, container: &str) -> Option<Mask> {
        let blocks = self.of(uid, container)?;
        Some(Mask::of(blocks.iter().flat_map(|b| b.numa_affinity.iter().copied())))
    }

    /// Gives back what a pod had. True if it had any.
    pub(crate) fn release(&mut self, uid: &str) -> bool {
        let Some(containers) = self.entries.remove(uid) else { return false };
        for block in containers.values().flatten() {
            let mut left = block.size;
            for number in &block.numa_affinity {
                let Some(node) = self.machine_state.get_mut(number) else { continue };
                node.number_of_assignments = node.number_of_assignments.saturating_sub(1);
                if node.number_of_assignments == 0 {
                    node.cells = vec![*number];
                }
                let Some(table) = node.memory_map.get_mut(&block.kind) else { continue };
                let back = left.min(table.reserved);
                table.reserved -= back;
                table.free += back;
                left -= back;
            }
        }
        true
    }

    /// Notes a block of which `size` bytes are newly taken.
    fn reserve(&mut self, block: &Block, size: u64) {
        let mut left = size;
        for number in &block.numa_affinity {
            let Some(node) = self.machine_state.get_mut(number) else { continue };
            node.number_of_assignments += 1;
            node.cells.clone_from(&block.numa_affinity);
            let Some(table) = node.memory_map.get_mut(&block.kind) else { continue };
            let taken = left.min(table.free);
            table.reserved += taken;
            table.free -= taken;
            left -= taken;
        }
    }

    /// What init containers that have ended leave on exactly these nodes.
    fn reusable(&self, who: Who<'_>, mask: Mask, name: &str) -> u64 {
        let blocks = who.ended.iter().filter_map(|init| self.of(who.uid, init)).flatten();
        let suits = |b: &&Block| b.kind == name && Mask::of(b.numa_affinity.iter().copied()) == mask;
        blocks.filter(suits).map(|b| b.size).sum()
    }

    /// From which nodes this can be given (`calculateHints`); absent if nobody asks for memory.
    pub(crate) fn hints(&self, who: Who<'_>, asked: &Amounts) -> Vec<Hint> {
        if let Some(mask) = self.nodes_of(who.uid, who.container) {
            return vec![Hint { affinity: Some(mask), preferred: true }];
        }
        self.calculate(who, asked)
    }

    fn calculate(&self, who: Who<'_>, asked: &Amounts) -> Vec<Hint> {
        let numbers: Vec<usize> = self.machine_state.keys().copied().collect();
        let mut least = numbers.len();
        let mut masks = Vec::new();
        for mask in Mask::all_of(&numbers) {
            let nodes: Vec<usize> = mask.nodes().collect();
            let sum = |name: &str, amount: fn(&Table) -> u64| -> u64 {
                nodes.iter().filter_map(|n| self.machine_state[n].memory_map.get(name)).map(amount).sum()
            };
            if asked.iter().any(|(name, size)| sum(name, |t| t.allocatable) < *size) {
                continue;
            }
            least = least.min(nodes.len());
            let enough = |(name, size): (&String, &u64)| sum(name, |t| t.free) + self.reusable(who, mask, name) >= *size;
            if !self.violates(&nodes) && asked.iter().all(enough) {
                masks.push(mask);
            }
        }
        masks.into_iter().map(|mask| Hint { affinity: Some(mask), preferred: mask.count() == least }).collect()
    }

    /// Whether one of the nodes serves in another group already (`isAffinityViolatingNUMAAllocations`).
    fn violates(&self, nodes: &[usize]) -> bool {
        let known = nodes.iter().filter_map(|n| self.machine_state.get(n));
        known.filter(|node| node.number_of_assignments > 0).any(|node| node.cells != nodes)
    }

    /// Binds a container to nodes that have what it asks for, to those of `hint` if they do. One that has some keeps it.
    ///
    /// # Errors
    /// If there is too little. The state is then as it was.
    pub(crate) fn allocate(&mut self, who: Who<'_>, asked: &Amounts, hint: Hint) -> Result<(), MemoryError> {
        if self.of(who.uid, who.container).is_some() || asked.is_empty() {
            return Ok(());
        }
        let mut best = hint;
        if best.affinity.is_none_or(|mask| mask.count() == 0) {
            let found = best_of(self.calculate(who, asked)).ok_or(MemoryError::NoNodes)?;
            if hint.preferred && !found.preferred {
                return Err(MemoryError::NotPreferred);
            }
            best = found;
        }
        let mut mask = best.affinity.unwrap_or_default();
        if !self.satisfies(who, mask, asked) {
            let wider = |hint: &Hint| hint.affinity.is_some_and(|m| m.and(mask) == mask);
            let found = self.calculate(who, asked).into_iter().filter(wider).collect();
            let found = best_of(found).ok_or(MemoryError::NoExtension)?;
            if best.preferred && !found.preferred {
                return Err(MemoryError::ExtensionNotPreferred);
            }
            mask = found.affinity.unwrap_or_default();
        }
        let nodes: Vec<usize> = mask.nodes().collect();
        if self.violates(&nodes) {
            return Err(MemoryError::Violates);
        }
        let mut blocks = Vec::new();
        for (name, size) in asked {
            let block = Block { numa_affinity: nodes.clone(), kind: name.clone(), size: *size };
            let reused = self.reusable(who, mask, name).min(*size);
            self.take_over(who, mask, name, reused);
            self.reserve(&block, size - reused);
            blocks.push(block);
        }
        self.entries.entry(who.uid.to_owned()).or_default().insert(who.container.to_owned(), blocks);
        Ok(())
    }

    fn satisfies(&self, who: Who<'_>, mask: Mask, asked: &Amounts) -> bool {
        let free = |name: &str| -> u64 {
            let tables = mask.nodes().filter_map(|n| self.machine_state.get(&n)?.memory_map.get(name));
            tables.map(|t| t.free).sum()
        };
        asked.iter().all(|(name, size)| free(name) + self.reusable(who, mask, name) >= *size)
    }

    /// What is reused is counted at its new owner (`updateInitContainersMemoryBlocks`).
    fn take_over(&mut self, who: Who<'_>, mask: Mask, name: &str, mut size: u64) {
        for init in who.ended {
            let Some(blocks) = self.entries.get_mut(who.uid).and_then(|c| c.get_mut(*init)) else { continue };
            for block in blocks {
                if block.kind == name && Mask::of(block.numa_affinity.iter().copied()) == mask {
                    let taken = size.min(block.size);
                    block.size -= taken;
                    size -= taken;
                }
            }
        }
    }
}

/// The first preferred one with the fewest nodes (`findBestHint`).
fn best_of(hints: Vec<Hint>) -> Option<Hint> {
    let narrower = |a: &Hint, b: &Hint| match (a.affinity, b.affinity) {
        (Some(a), Some(b)) => a.is_narrower_than(b),
        _ => false,
    };
    hints.into_iter().reduce(|best, other| match (best.preferred, other.preferred) {
        (false, true) => other,
        (true, false) => best,
        _ if narrower(&other, &best) => other,
        _ => best,
    })
}
