//! Choosing CPUs that lie together (kubernetes/kubernetes, `pkg/kubelet/cm/cpumanager/cpu_assignment.go`,
//! `takeByTopologyNUMAPacked`): whole nodes and sockets first, then whole caches if wished, then whole cores, then threads
//! of cores that are in use already.

use crate::topology::{Cpu, CpuSet, Machine};

/// There are not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not enough cpus available to satisfy request: requested={requested}, available={available}")]
pub(crate) struct NotEnough {
    pub(crate) requested: usize,
    pub(crate) available: usize,
}

/// Takes `count` of the `free` ones.
pub(super) fn packed(
    machine: &Machine,
    free: &CpuSet,
    count: usize,
    by_cache: bool,
) -> Result<CpuSet, NotEnough> {
    if count > free.len() {
        return Err(NotEnough { requested: count, available: free.len() });
    }
    let mut taking = Taking { machine, free: free.clone(), taken: CpuSet::default(), left: count };
    let nodes_hold_sockets = machine.sockets() >= machine.cpu_nodes().len();
    let (outer, inner): (Part, Part) =
        if nodes_hold_sockets { (|c| c.node, |c| c.socket) } else { (|c| c.socket, |c| c.node) };
    taking.whole(&[outer]);
    taking.whole(&[outer, inner]);
    if by_cache {
        taking.caches(&[outer, inner, |c| c.cache]);
    }
    taking.whole(&[outer, inner, |c| c.core]);
    taking.threads(&[outer, inner, |c| c.core]);
    Ok(taking.taken)
}

type Part = fn(&Cpu) -> usize;

struct Taking<'a> {
    machine: &'a Machine,
    free: CpuSet,
    taken: CpuSet,
    left: usize,
}

impl Taking<'_> {
    fn take(&mut self, cpus: &CpuSet) {
        self.taken = self.taken.or(cpus);
        self.free = self.free.without(cpus);
        self.left = self.left.saturating_sub(cpus.len());
    }

    /// The free CPUs of each innermost part, as the parts follow each other: in each part, those with fewer free CPUs first.
    fn parts(&self, levels: &[Part]) -> Vec<CpuSet> {
        let mut all = vec![self.free.clone()];
        for level in levels {
            all = all.iter().flat_map(|cpus| self.split(cpus, *level)).collect();
        }
        all
    }

    fn split(&self, cpus: &CpuSet, part: Part) -> Vec<CpuSet> {
        let within = |id: usize| cpus.iter().filter(|c| self.machine.cpus.get(c).map(part) == Some(id)).collect();
        let mut parts: Vec<(usize, CpuSet)> =
            self.machine.parts(cpus, part).into_iter().map(|id| (id, within(id))).collect();
        parts.sort_by_key(|(id, free)| (free.len(), *id));
        parts.into_iter().map(|(_, free)| free).collect()
    }

    /// All CPUs of the innermost part that these are in.
    fn full(&self, levels: &[Part], cpus: &CpuSet) -> CpuSet {
        let own = cpus.iter().next().and_then(|first| self.machine.cpus.get(&first));
        let same = |cpu: &Cpu| own.is_some_and(|own| levels.iter().all(|level| level(own) == level(cpu)));
        self.machine.where_(same)
    }

    /// Parts that are wholly free, as long as all of one is needed.
    fn whole(&mut self, levels: &[Part]) {
        // Whatever is around it: a node may hold part of a socket or more than one.
        let innermost = &levels[levels.len() - 1..];
        for free in self.parts(levels) {
            let full = self.full(innermost, &free);
            if full == free && self.left >= full.len() && self.left > 0 {
                self.take(&full);
            }
        }
    }

    /// Caches: whole ones, then one that has room for all that is left (`takeUncoreCache`).
    fn caches(&mut self, levels: &[Part]) {
        self.whole(levels);
        for free in self.parts(levels) {
            let mut cpus = CpuSet::default();
            // Whole cores first, so that an odd number splits one core at most.
            for core in self.split(&free, |c| c.core) {
                if self.full(&[|c| c.core], &core) == core && cpus.len() < self.left {
                    let room = self.left - cpus.len();
                    cpus = cpus.or(&core.iter().take(room).collect());
                }
            }
            if self.left > 0 && cpus.len() == self.left {
                return self.take(&cpus);
            }
        }
    }

    fn threads(&mut self, levels: &[Part]) {
        for cpus in self.parts(levels) {
            let some: CpuSet = cpus.iter().take(self.left).collect();
            self.take(&some);
        }
    }
}
