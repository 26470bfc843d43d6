//! What of the node is not the pods', by the names of upstream's kubelet.

use std::collections::BTreeMap;

use clap::Args;
use node::ReservationSettings;

/// Reservations, and how they are enforced.
#[derive(Clone, Debug, Args)]
pub struct ReservationArgs {
    /// What is the node agent's and not the pods': cpu=100m,memory=256Mi,ephemeral-storage=1Gi,pid=1000
    #[arg(long, env = "GANTRY_KUBE_RESERVED", value_name = "AMOUNTS", value_parser = amounts)]
    pub kube_reserved: Option<BTreeMap<String, String>>,
    /// What is the rest of the machine's, in the same form
    #[arg(long, env = "GANTRY_SYSTEM_RESERVED", value_name = "AMOUNTS", value_parser = amounts)]
    pub system_reserved: Option<BTreeMap<String, String>>,
    /// The cgroup that is limited to --kube-reserved where that is enforced, such as /kube
    #[arg(long, env = "GANTRY_KUBE_RESERVED_CGROUP", value_name = "PATH")]
    pub kube_reserved_cgroup: Option<String>,
    /// The cgroup that is limited to --system-reserved where that is enforced, such as /system.slice
    #[arg(long, env = "GANTRY_SYSTEM_RESERVED_CGROUP", value_name = "PATH")]
    pub system_reserved_cgroup: Option<String>,
    /// What is limited: pods, system-reserved, kube-reserved, the latter two also with -compressible, or none
    /// [default: pods]
    #[arg(long, env = "GANTRY_ENFORCE_NODE_ALLOCATABLE", value_name = "NAMES", value_delimiter = ',')]
    pub enforce_node_allocatable: Vec<String>,
    /// How many processes and threads a pod may have; -1: as many as all pods together [default: -1]
    #[arg(long, env = "GANTRY_POD_MAX_PIDS", value_name = "NUMBER", allow_hyphen_values = true)]
    pub pod_max_pids: Option<i64>,
}

impl ReservationArgs {
    /// Puts what is said over what the files say.
    pub fn apply(&self, settings: &mut ReservationSettings) {
        if let Some(reserved) = &self.kube_reserved {
            settings.kube_reserved.clone_from(reserved);
        }
        if let Some(reserved) = &self.system_reserved {
            settings.system_reserved.clone_from(reserved);
        }
        if self.kube_reserved_cgroup.is_some() {
            settings.kube_reserved_cgroup.clone_from(&self.kube_reserved_cgroup);
        }
        if self.system_reserved_cgroup.is_some() {
            settings.system_reserved_cgroup.clone_from(&self.system_reserved_cgroup);
        }
        if !self.enforce_node_allocatable.is_empty() {
            settings.enforce_node_allocatable.clone_from(&self.enforce_node_allocatable);
        }
        if let Some(limit) = self.pod_max_pids {
            settings.pod_pids_limit = limit;
        }
    }
}

/// `name=amount,…`; what they may be is checked with everything else.
fn amounts(text: &str) -> Result<BTreeMap<String, String>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let part = |part: &str| {
        let (name, amount) = part.split_once('=').ok_or_else(|| format!("{part:?} is not name=amount"))?;
        Ok((name.trim().to_owned(), amount.trim().to_owned()))
    };
    parts.map(part).collect()
}
