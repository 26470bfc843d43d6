//! The machine's CPUs and memory, as the kernel tells (google/cadvisor, `utils/sysinfo/sysinfo.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{CpuSet, Mask};

/// What a CPU is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// The lowest CPU of the same core.
    pub(crate) core: usize,
    pub(crate) socket: usize,
    /// The NUMA node.
    pub(crate) node: usize,
    /// The lowest CPU that shares the last level of cache.
    pub(crate) cache: usize,
}

/// A NUMA node's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeMemory {
    /// In bytes.
    pub(crate) memory: u64,
    /// Bytes by the size of a page in KiB.
    pub(crate) hugepages: BTreeMap<u64, u64>,
    /// How far the nodes are, by number.
    pub(crate) distances: BTreeMap<usize, u64>,
}

/// A machine; tests make some up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cpus: BTreeMap<usize, Cpu>,
    pub(crate) nodes: BTreeMap<usize, NodeMemory>,
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn list(path: &Path) -> Option<CpuSet> {
    text(path)?.parse().ok()
}

impl Machine {
    /// Reads it below `/sys` (`root`). Where the kernel tells nothing of NUMA, all is one node, with `memory` bytes.
    pub(crate) fn read(root: &Path, memory: u64) -> Self {
        let cpu_root = root.join("devices/system/cpu");
        let node_root = root.join("devices/system/node");
        let online = list(&cpu_root.join("online")).filter(|cpus| !cpus.is_empty()).unwrap_or_else(|| {
            (0..std::thread::available_parallelism().map_or(1, |count| count.get())).collect()
        });
        let numbers = list(&node_root.join("online")).filter(|nodes| !nodes.is_empty());
        let numbers: Vec<usize> = numbers.map_or(vec![0], |nodes| nodes.iter().collect());
        let mut machine = Self::default();
        let mut node_of = BTreeMap::new();
        for number in &numbers {
            let folder = node_root.join(format!("node{number}"));
            let cpus = list(&folder.join("cpulist")).unwrap_or_default();
            node_of.extend(cpus.iter().map(|cpu| (cpu, *number)));
            machine.nodes.insert(*number, node_memory(&folder, &numbers, memory));
        }
        for cpu in online.iter() {
            let folder = cpu_root.join(format!("cpu{cpu}"));
            let siblings = list(&folder.join("topology/thread_siblings_list"));
            let sharing = list(&folder.join("cache/index3/shared_cpu_list"));
            let lowest = |cpus: Option<CpuSet>| cpus.and_then(|cpus| cpus.and(&online).iter().next());
            let socket = text(&folder.join("topology/physical_package_id")).and_then(|id| id.parse().ok());
            let node = node_of.get(&cpu).copied().unwrap_or(numbers[0]);
            let own = Cpu {
                core: lowest(siblings).unwrap_or(cpu),
                socket: socket.unwrap_or(0),
                node,
                // Machines without such a cache share it in the whole node.
                cache: lowest(sharing)
                    .or_else(|| node_of.iter().find(|(_, n)| **n == node).map(|(cpu, _)| *cpu))
                    .unwrap_or(0),
            };
            machine.cpus.insert(cpu, own);
        }
        machine
    }

    /// All CPUs.
    pub(crate) fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// Those of which something holds.
    pub(crate) fn where_(&self, holds: impl Fn(&Cpu) -> bool) -> CpuSet {
        self.cpus.iter().filter(|(_, cpu)| holds(cpu)).map(|(number, _)| *number).collect()
    }

    pub(crate) fn in_core(&self, core: usize) -> CpuSet {
        self.where_(|cpu| cpu.core == core)
    }

    pub(crate) fn in_socket(&self, socket: usize) -> CpuSet {
        self.where_(|cpu| cpu.socket == socket)
    }

    pub(crate) fn in_node(&self, node: usize) -> CpuSet {
        self.where_(|cpu| cpu.node == node)
    }

    pub(crate) fn in_nodes(&self, nodes: Mask) -> CpuSet {
        self.where_(|cpu| nodes.has(cpu.node))
    }

    /// What of something these CPUs are in.
    pub(crate) fn parts(&self, cpus: &CpuSet, part: impl Fn(&Cpu) -> usize) -> BTreeSet<usize> {
        cpus.iter().filter_map(|cpu| self.cpus.get(&cpu)).map(part).collect()
    }

    pub(crate) fn sockets(&self) -> usize {
        self.parts(&self.all(), |cpu| cpu.socket).len()
    }

    /// NUMA nodes that have CPUs.
    pub(crate) fn cpu_nodes(&self) -> Vec<usize> {
        self.parts(&self.all(), |cpu| cpu.node).into_iter().collect()
    }

    /// Threads of a core.
    pub(crate) fn per_core(&self) -> usize {
        let cores = self.parts(&self.all(), |cpu| cpu.core).len();
        self.cpus.len().checked_div(cores).unwrap_or(1).max(1)
    }

    /// Numbers of all NUMA nodes.
    pub(crate) fn node_numbers(&self) -> Vec<usize> {
        self.nodes.keys().copied().collect()
    }

    /// The mean distance between these nodes (`pkg/kubelet/cm/topologymanager/numa_info.go`, `averageDistance`).
    pub(crate) fn mean_distance(&self, mask: Mask) -> f64 {
        let far = |from: usize, to: usize| self.nodes.get(&from).and_then(|n| n.distances.get(&to)).copied();
        let all: Vec<u64> = mask.nodes().flat_map(|from| mask.nodes().filter_map(move |to| far(from, to))).collect();
        if all.is_empty() { 0.0 } else { all.iter().sum::<u64>() as f64 / all.len() as f64 }
    }
}

fn node_memory(folder: &Path, numbers: &[usize], all: u64) -> NodeMemory {
    let meminfo = text(&folder.join("meminfo")).unwrap_or_default();
    let total = meminfo.lines().find_map(|line| {
        let (_, rest) = line.split_once("MemTotal:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    let mut hugepages = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join("hugepages")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")?.parse::<u64>().ok());
        let count = text(&entry.path().join("nr_hugepages")).and_then(|n| n.parse::<u64>().ok());
        if let (Some(size), Some(count)) = (size, count) {
            hugepages.insert(size, size * 1024 * count);
        }
    }
    let distances = text(&folder.join("distance")).unwrap_or_default();
    let distances = distances.split_whitespace().filter_map(|d| d.parse().ok());
    NodeMemory {
        memory: total.map_or(all, |kib| kib * 1024),
        hugepages,
        distances: numbers.iter().copied().zip(distances).collect(),
    }
}

#[cfg(test)]
pub(crate) mod made {
    use super::*;

    /// Sockets, nodes in each, cores in each of those, threads of each; threads are numbered as Linux does on x86: first one
    /// of every core. Two cores of a node share a cache. A node has 1000 bytes of memory and 100 of pages of 2 MiB.
    pub(crate) fn machine(sockets: usize, nodes: usize, cores: usize, threads: usize) -> Machine {
        let all_cores = sockets * nodes * cores;
        let cpus = (0..all_cores * threads).map(|number| {
            let core = number % all_cores;
            let node = core / cores;
            (number, Cpu { core, socket: node / nodes, node, cache: core / 2 * 2 })
        });
        let count = sockets * nodes;
        let far = |from: usize, to: usize| match (from == to, from / nodes == to / nodes) {
            (true, _) => 10,
            (_, true) => 11,
            _ => 21,
        };
        let memory = |node| NodeMemory {
            memory: 1000,
            hugepages: [(2048, 100)].into(),
            distances: (0..count).map(|to| (to, far(node, to))).collect(),
        };
        Machine { cpus: cpus.collect(), nodes: (0..count).map(|n| (n, memory(n))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, name: &str, text: &str) {
        let path = root.join("devices/system").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }

    #[test]
    fn a_machine_is_read_from_sys() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "cpu/online", "0-3");
        put(root, "node/online", "0-1");
        for cpu in 0..4 {
            let siblings = if cpu % 2 == 0 { "0,2" } else { "1,3" };
            put(root, &format!("cpu/cpu{cpu}/topology/thread_siblings_list"), siblings);
            put(root, &format!("cpu/cpu{cpu}/topology/physical_package_id"), &(cpu % 2).to_string());
            put(root, &format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list"), siblings);
        }
        for (node, cpus) in [(0, "0,2"), (1, "1,3")] {
            put(root, &format!("node/node{node}/cpulist"), cpus);
            put(root, &format!("node/node{node}/meminfo"), &format!("Node {node} MemTotal:       1000 kB"));
            put(root, &format!("node/node{node}/distance"), if node == 0 { "10 21" } else { "21 10" });
            put(root, &format!("node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), "3");
        }
        let machine = Machine::read(root, 7);
        assert_eq!(machine.cpus[&3], Cpu { core: 1, socket: 1, node: 1, cache: 1 });
        assert_eq!((machine.sockets(), machine.per_core(), machine.cpu_nodes()), (2, 2, vec![0, 1]));
        assert_eq!(machine.nodes[&1].memory, 1_024_000);
        assert_eq!(machine.nodes[&1].hugepages, [(2048, 6 << 20)].into());
        assert_eq!(machine.nodes[&0].distances, [(0, 10), (1, 21)].into());
        assert_eq!(machine.mean_distance(Mask::of([0, 1])), 15.5);
    }

    #[test]
    fn without_numa_all_is_one_node() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::read(folder.path(), 7);
        assert_eq!((machine.node_numbers(), machine.nodes[&0].memory), (vec![0], 7));
        assert!(!machine.cpus.is_empty());
    }
}
