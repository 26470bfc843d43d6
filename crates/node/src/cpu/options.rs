use std::collections::BTreeMap;

use crate::topology::{Machine, TopologyPolicy};

/// How CPUs are given out (kubernetes/kubernetes, `pkg/kubelet/cm/cpumanager/policy_options.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whole cores only; refuse what would split one.
    pub(crate) full_cores: bool,
    /// Evenly from as many NUMA nodes as are needed.
    pub(crate) across_nodes: bool,
    /// A socket, not a NUMA node, is what lies together.
    pub(crate) by_socket: bool,
    /// Nobody at all runs on reserved CPUs.
    pub(crate) strict_reserved: bool,
    /// From as few last-level caches as can be.
    pub(crate) by_cache: bool,
}

impl Options {
    /// Reads them by upstream's names.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut all = Self::default();
        for (name, value) in options {
            let on = match value.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(format!("bad value for option {name:?}: {value:?} is neither true nor false")),
            };
            let option = match name.as_str() {
                "full-pcpus-only" => &mut all.full_cores,
                "distribute-cpus-across-numa" => &mut all.across_nodes,
                "align-by-socket" => &mut all.by_socket,
                "strict-cpu-reservation" => &mut all.strict_reserved,
                "prefer-align-cpus-by-uncorecache" => &mut all.by_cache,
                _ => return Err(format!("unsupported cpumanager option: {name:?} with value {value:?}")),
            };
            *option = on;
        }
        Ok(all)
    }

    /// Whether they can be used together on this machine.
    pub(crate) fn check(&self, topology: TopologyPolicy, machine: &Machine) -> Result<(), String> {
        if self.by_socket && topology == TopologyPolicy::SingleNumaNode {
            return Err(format!(
                "topology manager policy {} is incompatible with the CPU manager's option align-by-socket",
                topology.name()
            ));
        }
        if self.by_socket && machine.sockets() > machine.cpu_nodes().len() {
            return Err("align-by-socket is not compatible with hardware where the number of sockets is more than the number of NUMA nodes".into());
        }
        if self.by_cache && self.across_nodes {
            return Err("the options prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa cannot be used at the same time".into());
        }
        Ok(())
    }
}
