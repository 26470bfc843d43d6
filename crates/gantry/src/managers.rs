//! How the node's resources are given out, by the names of upstream's kubelet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use node::{CpuSet, ManagerSettings, TopologyPolicy, TopologyScope};
use types::Quantity;

/// Devices, CPUs and memory.
#[derive(Clone, Debug, Args)]
pub struct ManagerArgs {
    /// Where device plugins find their socket (below it: device-plugins/kubelet.sock)
    /// [default: /var/lib/kubelet, or kubelet in a data directory of its own]
    #[arg(long, env = "GANTRY_KUBELET_DIR", value_name = "DIR")]
    pub kubelet_dir: Option<PathBuf>,
    /// Folders with descriptions of CDI devices; later ones win
    #[arg(
        long,
        env = "GANTRY_CDI_SPEC_DIRS",
        value_name = "DIR",
        value_delimiter = ',',
        default_value = "/etc/cdi,/var/run/cdi"
    )]
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Whether containers of Guaranteed pods get CPUs of their own: none or static [default: none]
    #[arg(long, env = "GANTRY_CPU_MANAGER_POLICY", value_name = "NAME")]
    pub cpu_manager_policy: Option<String>,
    /// full-pcpus-only=true,distribute-cpus-across-numa=true,align-by-socket=true,strict-cpu-reservation=true,…
    #[arg(long, env = "GANTRY_CPU_MANAGER_POLICY_OPTIONS", value_name = "OPTIONS")]
    pub cpu_manager_policy_options: Option<String>,
    /// CPUs that no container gets for itself, such as 0-1,8
    #[arg(long, env = "GANTRY_RESERVED_CPUS", value_name = "CPUS")]
    pub reserved_cpus: Option<CpuSet>,
    /// How closely together what a pod gets must lie: none, best-effort, restricted or single-numa-node
    /// [default: none]
    #[arg(long, env = "GANTRY_TOPOLOGY_MANAGER_POLICY", value_name = "NAME")]
    pub topology_manager_policy: Option<String>,
    /// For what that is decided: container or pod [default: container]
    #[arg(long, env = "GANTRY_TOPOLOGY_MANAGER_SCOPE", value_name = "NAME")]
    pub topology_manager_scope: Option<String>,
    /// prefer-closest-numa-nodes=true,max-allowable-numa-nodes=8
    #[arg(long, env = "GANTRY_TOPOLOGY_MANAGER_POLICY_OPTIONS", value_name = "OPTIONS")]
    pub topology_manager_policy_options: Option<String>,
    /// Whether containers of Guaranteed pods get memory of known NUMA nodes: None or Static [default: None]
    #[arg(long, env = "GANTRY_MEMORY_MANAGER_POLICY", value_name = "NAME")]
    pub memory_manager_policy: Option<String>,
    /// Memory that no container gets: 0:memory=1Gi,hugepages-2Mi=64Mi;1:memory=1Gi
    #[arg(long, env = "GANTRY_RESERVED_MEMORY", value_name = "AMOUNTS")]
    pub reserved_memory: Option<String>,
}

impl ManagerArgs {
    /// The settings, if they can be used: `files` is what the node's configuration says, and flags overrule it.
    pub fn settings(&self, files: ManagerSettings, data_dir: &Path) -> Result<ManagerSettings, String> {
        let mut all = ManagerSettings {
            kubelet_dir: self.kubelet_dir.clone().unwrap_or_else(|| kubelet_dir(data_dir)),
            cdi_spec_dirs: self.cdi_spec_dirs.clone(),
            ..files
        };
        if let Some(policy) = &self.cpu_manager_policy {
            all.cpu_manager_policy.clone_from(policy);
        }
        if self.cpu_manager_policy_options.is_some() {
            all.cpu_manager_policy_options = options(&self.cpu_manager_policy_options)?;
        }
        if let Some(cpus) = &self.reserved_cpus {
            all.reserved_system_cpus.clone_from(cpus);
        }
        if let Some(policy) = &self.topology_manager_policy {
            all.topology_manager_policy = TopologyPolicy::parse(policy).ok_or_else(|| {
                format!("unknown topology manager policy {policy:?}: use none, best-effort, restricted or single-numa-node")
            })?;
        }
        if let Some(scope) = &self.topology_manager_scope {
            all.topology_manager_scope = TopologyScope::parse(scope)
                .ok_or_else(|| format!("unknown topology manager scope {scope:?}: use container or pod"))?;
        }
        if self.topology_manager_policy_options.is_some() {
            all.topology_manager_policy_options = options(&self.topology_manager_policy_options)?;
        }
        if let Some(policy) = &self.memory_manager_policy {
            all.memory_manager_policy.clone_from(policy);
        }
        if let Some(text) = &self.reserved_memory {
            all.reserved_memory = reserved(text)?;
        }
        all.check()?;
        Ok(all)
    }
}

/// Stock plugins look into `/var/lib/kubelet`; a second cluster on the machine must not.
fn kubelet_dir(data_dir: &Path) -> PathBuf {
    if data_dir == Path::new("/var/lib/gantry") {
        "/var/lib/kubelet".into()
    } else {
        data_dir.join("kubelet")
    }
}

/// `name=value,…`.
fn options(text: &Option<String>) -> Result<BTreeMap<String, String>, String> {
    let parts = text.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not name=value"))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// `node:resource=amount,…;node:…`.
fn reserved(text: &str) -> Result<BTreeMap<usize, BTreeMap<String, u64>>, String> {
    let mut all: BTreeMap<usize, BTreeMap<String, u64>> = BTreeMap::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || format!("reserved memory {part:?} is not of the form 0:memory=1Gi,hugepages-2Mi=64Mi");
        let (node, amounts) = part.split_once(':').ok_or_else(wrong)?;
        let node = node.trim().parse().map_err(|_| wrong())?;
        for (name, amount) in options(&Some(amounts.to_owned()))? {
            let bytes = amount.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok());
            let bytes =
                bytes.filter(|_| name == "memory" || name.starts_with("hugepages-")).ok_or_else(wrong)?;
            if all.entry(node).or_default().insert(name.clone(), bytes).is_some() {
                return Err(format!("memory {name} of NUMA node {node} is reserved twice"));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reserved_by_node() {
        let read = reserved("0:memory=1Gi,hugepages-2Mi=64Mi;1:memory=5").unwrap();
        assert_eq!(read[&0], [("memory".to_owned(), 1 << 30), ("hugepages-2Mi".to_owned(), 64 << 20)].into());
        assert_eq!(read[&1]["memory"], 5);
        for wrong in
            ["memory=1Gi", "x:memory=1", "0:cpu=1", "0:memory", "0:memory=-1", "0:memory=1;0:memory=2"]
        {
            assert!(reserved(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_default_cluster_is_where_stock_plugins_look() {
        assert_eq!(kubelet_dir(Path::new("/var/lib/gantry")), Path::new("/var/lib/kubelet"));
        assert_eq!(kubelet_dir(Path::new("/x")), Path::new("/x/kubelet"));
    }
}
