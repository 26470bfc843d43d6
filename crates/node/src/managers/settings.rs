use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cpu::Options;
use crate::topology::{CpuSet, TopologyPolicy, TopologyScope};

/// How a node's resources are given out, by the names of upstream's `KubeletConfiguration`.
#[derive(Clone, Debug)]
pub struct ManagerSettings {
    /// Where sockets for plugins and state files are; a stock kubelet's is `/var/lib/kubelet`.
    pub kubelet_dir: PathBuf,
    /// `none` or `static`.
    pub cpu_manager_policy: String,
    /// Names and `true` or `false`.
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    /// CPUs that no container has to itself.
    pub reserved_system_cpus: CpuSet,
    /// How closely together things must lie.
    pub topology_manager_policy: TopologyPolicy,
    /// For a container or for a pod.
    pub topology_manager_scope: TopologyScope,
    /// `prefer-closest-numa-nodes`, `max-allowable-numa-nodes`.
    pub topology_manager_policy_options: BTreeMap<String, String>,
    /// `None` or `Static`.
    pub memory_manager_policy: String,
    /// Bytes that no container has, by NUMA node and resource.
    pub reserved_memory: BTreeMap<usize, BTreeMap<String, u64>>,
    /// Folders with descriptions of CDI devices; later ones win.
    pub cdi_spec_dirs: Vec<PathBuf>,
}

impl Default for ManagerSettings {
    fn default() -> Self {
        Self {
            kubelet_dir: "/var/lib/kubelet".into(),
            cpu_manager_policy: "none".into(),
            cpu_manager_policy_options: BTreeMap::new(),
            reserved_system_cpus: CpuSet::default(),
            topology_manager_policy: TopologyPolicy::None,
            topology_manager_scope: TopologyScope::Container,
            topology_manager_policy_options: BTreeMap::new(),
            memory_manager_policy: "None".into(),
            reserved_memory: BTreeMap::new(),
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}

/// More NUMA nodes take too long to think about (`pkg/kubelet/cm/topologymanager/policy_options.go`).
const MOST_NODES: usize = 8;

impl ManagerSettings {
    /// Whether the settings can be used, on whatever machine.
    ///
    /// # Errors
    /// A sentence about the first that cannot.
    pub fn check(&self) -> Result<(), String> {
        Options::parse(&self.cpu_manager_policy_options)?;
        self.topology_options()?;
        match self.cpu_manager_policy.as_str() {
            "none" if !self.cpu_manager_policy_options.is_empty() => {
                return Err("the CPU manager's policy none takes no options".into());
            }
            "none" => {}
            "static" => {}
            other => return Err(format!("unknown CPU manager policy {other:?}: use none or static")),
        }
        let reserved: u64 = self.reserved_memory.values().filter_map(|node| node.get("memory")).sum();
        match self.memory_manager_policy.as_str() {
            "None" => Ok(()),
            "Static" if reserved == 0 => Err(
                "the memory manager's policy Static needs memory for the system: set --reserved-memory, such as 0:memory=1Gi".into(),
            ),
            "Static" => Ok(()),
            other => Err(format!("unknown memory manager policy {other:?}: use None or Static")),
        }
    }

    /// Whether near nodes are preferred, and how many there may be.
    pub(super) fn topology_options(&self) -> Result<(bool, usize), String> {
        let (mut closest, mut most) = (false, MOST_NODES);
        for (name, value) in &self.topology_manager_policy_options {
            let bad = || format!("bad value for option {name:?}: {value:?}");
            match name.as_str() {
                "prefer-closest-numa-nodes" => closest = value.parse().map_err(|_| bad())?,
                "max-allowable-numa-nodes" => {
                    let count: usize = value.parse().map_err(|_| bad())?;
                    most = Some(count).filter(|count| (MOST_NODES..=16).contains(count)).ok_or_else(bad)?;
                }
                _ => {
                    return Err(format!(
                        "unsupported topology manager option: {name:?} with value {value:?}"
                    ));
                }
            }
        }
        Ok((closest, most))
    }
}
