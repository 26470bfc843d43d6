//! CPUs for one container alone (kubernetes/kubernetes, `pkg/kubelet/cm/cpumanager/policy_static.go`): containers of
//! Guaranteed pods that ask for whole CPUs get CPUs of their own, all others share what is left.
//!
//! Pure: the state is a value, and whoever changes it writes it down.

mod options;
mod spread;
mod take;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use options::Options;
pub(crate) use take::NotEnough;

use crate::topology::{CpuSet, Hint, Machine, Mask};

/// What is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CpuState {
    pub(crate) policy_name: String,
    /// The shared ones.
    pub(crate) default_cpu_set: CpuSet,
    /// By pod's UID and container.
    pub(crate) entries: BTreeMap<String, BTreeMap<String, CpuSet>>,
}

impl CpuState {
    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<&CpuSet> {
        self.entries.get(uid)?.get(container)
    }

    /// All that a pod has.
    pub(crate) fn of_pod(&self, uid: &str) -> CpuSet {
        self.entries
            .get(uid)
            .into_iter()
            .flat_map(BTreeMap::values)
            .fold(CpuSet::default(), |all, cpus| all.or(cpus))
    }

    /// Gives back what a pod had. True if it had any.
    pub(crate) fn release(&mut self, uid: &str) -> bool {
        let cpus = self.of_pod(uid);
        self.default_cpu_set = self.default_cpu_set.or(&cpus);
        self.entries.remove(uid).is_some()
    }
}

/// Why a container gets no CPUs of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CpuError {
    /// A core would be shared.
    #[error("SMT Alignment Error: requested {requested} cpus not multiple cpus per core = {per_core}")]
    SplitsCore { requested: usize, per_core: usize },
    /// Too few whole cores are free.
    #[error(
        "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {available}, requested CPUs = {requested}, CPUs per core = {per_core}"
    )]
    FewCores { available: usize, requested: usize, per_core: usize },
    /// Too few are free.
    #[error(transparent)]
    NotEnough(#[from] NotEnough),
}

/// The static policy on one machine.
#[derive(Clone, Debug)]
pub(crate) struct Static {
    machine: Arc<Machine>,
    reserved: CpuSet,
    options: Options,
}

/// As the state names it.
pub(crate) const STATIC: &str = "static";

impl Static {
    pub(crate) fn new(machine: Arc<Machine>, reserved: CpuSet, options: Options) -> Self {
        Self { machine, reserved, options }
    }

    /// CPUs that can be given out at all.
    pub(crate) fn allocatable(&self) -> CpuSet {
        self.machine.all().without(&self.reserved)
    }

    /// The state of a machine on which nothing was given out.
    pub(crate) fn fresh(&self) -> CpuState {
        let all = self.machine.all();
        CpuState {
            policy_name: STATIC.to_owned(),
            default_cpu_set: if self.options.strict_reserved { all.without(&self.reserved) } else { all },
            entries: BTreeMap::new(),
        }
    }

    /// Whether a state that was written down fits this machine and these settings (`validateState`).
    pub(crate) fn check(&self, state: &CpuState) -> Result<(), String> {
        let shared = &state.default_cpu_set;
        if self.options.strict_reserved {
            if !self.reserved.and(shared).is_empty() {
                return Err(format!(
                    "some of strictly reserved cpus: \"{}\" are present in defaultCpuSet: \"{shared}\"",
                    self.reserved.and(shared)
                ));
            }
        } else if !shared.holds(&self.reserved) {
            return Err(format!(
                "not all reserved cpus: \"{}\" are present in defaultCpuSet: \"{shared}\"",
                self.reserved
            ));
        }
        let mut known = shared.clone();
        for (pod, containers) in &state.entries {
            for (container, cpus) in containers {
                if !shared.and(cpus).is_empty() {
                    return Err(format!(
                        "pod: {pod}, container: {container} cpuset: \"{cpus}\" overlaps with default cpuset \"{shared}\""
                    ));
                }
                known = known.or(cpus);
            }
        }
        if self.options.strict_reserved {
            known = known.or(&self.reserved);
        }
        let all = self.machine.all();
        if known != all {
            return Err(format!(
                "current set of available CPUs \"{all}\" doesn't match with CPUs in state \"{known}\""
            ));
        }
        Ok(())
    }

    /// Those that nobody has.
    pub(crate) fn available(&self, state: &CpuState) -> CpuSet {
        state.default_cpu_set.without(&self.reserved)
    }

    /// From which nodes `asked` CPUs could be given (`generateCPUTopologyHints`). `reusable` must all be among them.
    pub(crate) fn hints(&self, available: &CpuSet, reusable: &CpuSet, asked: usize) -> Vec<Hint> {
        let nodes = self.machine.cpu_nodes();
        let mut least = nodes.len();
        let mut hints = Vec::new();
        let node = |cpu: usize| self.machine.cpus.get(&cpu).map_or(usize::MAX, |c| c.node);
        for mask in Mask::all_of(&nodes) {
            if self.machine.in_nodes(mask).len() >= asked {
                least = least.min(mask.count());
            }
            let free = available.or(reusable).iter().filter(|cpu| mask.has(node(*cpu))).count();
            if reusable.iter().all(|cpu| mask.has(node(cpu))) && free >= asked {
                hints.push(mask);
            }
        }
        let preferred = |mask: Mask| {
            if self.options.by_socket { self.is_socket_aligned(mask, least) } else { mask.count() == least }
        };
        hints.into_iter().map(|mask| Hint { affinity: Some(mask), preferred: preferred(mask) }).collect()
    }

    /// Whether a set of nodes needs no more sockets than must be (`isHintSocketAligned`).
    fn is_socket_aligned(&self, mask: Mask, least: usize) -> bool {
        let per_socket = self.machine.cpu_nodes().len() / self.machine.sockets().max(1);
        if per_socket == 0 {
            return false;
        }
        let sockets = self.machine.parts(&self.machine.in_nodes(mask), |cpu| cpu.socket).len();
        sockets == least.div_ceil(per_socket)
    }

    /// Gives `asked` CPUs to a container, from the nodes of `affinity` first. `reusable` are those of init containers of the
    /// same pod that have ended by then. One that has some keeps them.
    ///
    /// # Errors
    /// If there are too few, or whole cores are wanted and cannot be had. The state is then as it was.
    pub(crate) fn allocate(
        &self,
        state: &mut CpuState,
        (uid, container): (&str, &str),
        asked: usize,
        affinity: Option<Mask>,
        reusable: &CpuSet,
    ) -> Result<CpuSet, CpuError> {
        let per_core = self.machine.per_core();
        if self.options.full_cores && !asked.is_multiple_of(per_core) {
            return Err(CpuError::SplitsCore { requested: asked, per_core });
        }
        if let Some(cpus) = state.of(uid, container) {
            return Ok(cpus.clone());
        }
        let mut free = self.available(state).or(reusable);
        if self.options.full_cores {
            // Siblings of reserved CPUs would be half a core.
            let cores = self.machine.parts(&self.reserved, |cpu| cpu.core);
            let halves = self.machine.having(|cpu| cores.contains(&cpu.core));
            free = free.without(&halves);
            if asked > free.len() {
                return Err(CpuError::FewCores { available: free.len(), requested: asked, per_core });
            }
        }
        let mut taken = CpuSet::default();
        if let Some(mask) = affinity {
            let near = free.and(&self.near(mask));
            taken = self.take(&near, asked.min(near.len()))?;
        }
        let rest = self.take(&free.without(&taken), asked - taken.len())?;
        taken = taken.or(&rest);
        state.default_cpu_set = state.default_cpu_set.without(&taken);
        state.entries.entry(uid.to_owned()).or_default().insert(container.to_owned(), taken.clone());
        Ok(taken)
    }

    /// All CPUs that a set of nodes means (`getAlignedCPUs`).
    fn near(&self, mask: Mask) -> CpuSet {
        let own = self.machine.in_nodes(mask);
        if !self.options.by_socket {
            return own;
        }
        let sockets = self.machine.parts(&own, |cpu| cpu.socket);
        self.machine.having(|cpu| sockets.contains(&cpu.socket))
    }

    fn take(&self, free: &CpuSet, count: usize) -> Result<CpuSet, NotEnough> {
        if self.options.across_nodes {
            let group = if self.options.full_cores { self.machine.per_core() } else { 1 };
            return spread::spread(&self.machine, free, count, group);
        }
        take::packed(&self.machine, free, count, self.options.by_cache)
    }
}

/// CPUs for the system: so many that lie together (`policy_static.go`, `NewStaticPolicy`).
pub(crate) fn reserve(machine: &Machine, count: usize) -> Result<CpuSet, NotEnough> {
    take::packed(machine, &machine.all(), count, false)
}
