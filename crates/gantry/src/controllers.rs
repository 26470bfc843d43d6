//! What the controllers are told: settings by the names of kube-controller-manager's flags, and the authority's key.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use auth::{Pki, SigningOrder};
use clap::Args;
use controllers::{CertificateOrder, NodeSettings, PodRange, Signer, Signing};
use ipnet::Ipv4Net;

use crate::kubelet::time;

/// Settings of the controllers.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// How many nodes of a zone lose their pods in a second when they have fallen silent
    #[arg(long, env = "GANTRY_NODE_EVICTION_RATE", value_name = "RATE", default_value_t = 0.1)]
    pub node_eviction_rate: f64,
    /// The same while many nodes of a large zone are silent
    #[arg(long, env = "GANTRY_SECONDARY_NODE_EVICTION_RATE", value_name = "RATE", default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f64,
    /// Which share of a zone's nodes are many
    #[arg(long, env = "GANTRY_UNHEALTHY_ZONE_THRESHOLD", value_name = "SHARE", default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f64,
    /// Up to how many nodes a zone is small: while many of them are silent, none loses its pods
    #[arg(long, env = "GANTRY_LARGE_CLUSTER_SIZE_THRESHOLD", value_name = "NODES", default_value_t = 50)]
    pub large_cluster_size_threshold: usize,
    /// How long a node may be silent before it is taken for lost, in seconds or as 1m30s
    #[arg(long, env = "GANTRY_NODE_MONITOR_GRACE_PERIOD", value_name = "TIME", default_value = "50s", value_parser = time)]
    pub node_monitor_grace_period: Duration,
    /// The same for a node that has not been heard yet
    #[arg(long, env = "GANTRY_NODE_STARTUP_GRACE_PERIOD", value_name = "TIME", default_value = "1m", value_parser = time)]
    pub node_startup_grace_period: Duration,
    /// How many pods that have ended are kept in all, the youngest; 0 keeps them for ever
    #[arg(long, env = "GANTRY_TERMINATED_POD_GC_THRESHOLD", value_name = "PODS", default_value_t = 12_500)]
    pub terminated_pod_gc_threshold: usize,
    /// How many bits of a node's range of pods' addresses are fixed
    #[arg(long, env = "GANTRY_NODE_CIDR_MASK_SIZE", value_name = "BITS", default_value_t = 24,
        value_parser = clap::value_parser!(u8).range(1..=30))]
    pub node_cidr_mask_size: u8,
    /// For how many hours certificates are good that are signed on request, if no less is asked for
    #[arg(long, env = "GANTRY_CLUSTER_SIGNING_HOURS", value_name = "HOURS", default_value_t = 8760)]
    pub cluster_signing_hours: u32,
}

impl ControllerArgs {
    /// What is made of nodes that fall silent.
    pub fn nodes(&self) -> NodeSettings {
        NodeSettings {
            eviction_rate: self.node_eviction_rate,
            secondary_eviction_rate: self.secondary_node_eviction_rate,
            unhealthy_zone_threshold: self.unhealthy_zone_threshold,
            large_cluster_size: self.large_cluster_size_threshold,
            monitor_grace: self.node_monitor_grace_period,
            startup_grace: self.node_startup_grace_period,
        }
    }

    /// Where nodes get their pods' addresses from.
    pub fn pod_range(&self, cluster: Ipv4Net) -> PodRange {
        PodRange { cluster, mask: self.node_cidr_mask_size }
    }

    /// Who signs certificates.
    pub fn signing(&self, pki: Arc<Pki>) -> Signing {
        let hours = u64::from(self.cluster_signing_hours.max(1));
        Signing { duration: Duration::from_secs(hours * 3600), ..Signing::new(Arc::new(Authority(pki))) }
    }
}

/// The cluster's authority, whose key only the server has.
struct Authority(Arc<Pki>);

impl Signer for Authority {
    fn sign(&self, order: &CertificateOrder<'_>) -> Result<String, Box<dyn Error + Send + Sync>> {
        let order = SigningOrder {
            request: order.request,
            usages: order.usages,
            not_before: order.not_before.as_second(),
            not_after: order.not_after.as_second(),
        };
        Ok(self.0.sign(&order)?)
    }
}
