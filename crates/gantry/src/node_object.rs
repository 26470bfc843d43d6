//! What the node says of itself, and how it runs containers, by the names of upstream's kubelet.

use std::path::PathBuf;

use clap::Args;
use node::{ContainerSettings, RegistrationSettings, Taint};

/// The node's object.
#[derive(Clone, Debug, Args)]
pub struct NodeObjectArgs {
    /// Labels that the node has when it is registered: disk=ssd,topology.kubernetes.io/zone=a
    #[arg(long, env = "GANTRY_NODE_LABELS", value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    pub node_labels: Vec<(String, String)>,
    /// Taints that the node has when it is registered: key=value:NoSchedule,…
    #[arg(long, env = "GANTRY_REGISTER_WITH_TAINTS", value_name = "TAINTS", value_delimiter = ',')]
    #[arg(value_parser = node::parse_taint)]
    pub register_with_taints: Vec<Taint>,
    /// What a cloud calls the machine
    #[arg(long, env = "GANTRY_PROVIDER_ID", value_name = "ID")]
    pub provider_id: Option<String>,
}

impl NodeObjectArgs {
    /// Puts what is said over what the files say.
    pub fn apply(&self, settings: &mut RegistrationSettings) {
        settings.labels.extend(self.node_labels.iter().cloned());
        if !self.register_with_taints.is_empty() {
            settings.taints.clone_from(&self.register_with_taints);
        }
        if self.provider_id.is_some() {
            settings.provider_id.clone_from(&self.provider_id);
        }
    }
}

/// How containers are run.
#[derive(Clone, Debug, Args)]
pub struct ContainerArgs {
    /// A container's log begins a new file when it is as large as this [default: 10Mi]
    #[arg(long, env = "GANTRY_CONTAINER_LOG_MAX_SIZE", value_name = "AMOUNT", value_parser = amount)]
    pub container_log_max_size: Option<u64>,
    /// How many files of a container's log are kept, 2 or more [default: 5]
    #[arg(long, env = "GANTRY_CONTAINER_LOG_MAX_FILES", value_name = "COUNT")]
    pub container_log_max_files: Option<u32>,
    /// Filter the system calls of containers that say nothing of it, too
    #[arg(long, env = "GANTRY_SECCOMP_DEFAULT")]
    pub seccomp_default: bool,
    /// Enforce limits of CPU [default: true]
    #[arg(long, env = "GANTRY_CPU_CFS_QUOTA", value_name = "true|false", num_args = 0..=1)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set, require_equals = true)]
    pub cpu_cfs_quota: Option<bool>,
    /// The name servers of pods that ask whom the node asks; "": none [default: /etc/resolv.conf]
    #[arg(long, env = "GANTRY_RESOLV_CONF", value_name = "FILE")]
    pub resolv_conf: Option<String>,
}

impl ContainerArgs {
    /// Puts what is said over what the files say.
    pub fn apply(&self, settings: &mut ContainerSettings) {
        settings.log_max_size = self.container_log_max_size.unwrap_or(settings.log_max_size);
        settings.log_max_files = self.container_log_max_files.unwrap_or(settings.log_max_files);
        settings.seccomp_default |= self.seccomp_default;
        settings.cpu_cfs_quota = self.cpu_cfs_quota.unwrap_or(settings.cpu_cfs_quota);
        if let Some(path) = &self.resolv_conf {
            settings.resolv_conf = Some(path.into()).filter(|path: &PathBuf| !path.as_os_str().is_empty());
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn amount(text: &str) -> Result<u64, String> {
    let bytes = text.parse::<types::Quantity>().ok().map(types::Quantity::units);
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| "give an amount such as 10Mi".into())
}
