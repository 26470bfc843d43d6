//! What the controllers are told: settings by the names of kube-controller-manager's flags, and the authority's key.

mod tuning;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use auth::{Pki, SigningOrder};
use clap::Args;
use controllers::{AutoscalingSettings, CertificateOrder, NodeSettings, PodRange, Selected, Signer, Signing};
use ipnet::Ipv4Net;

use crate::kubelet::time;

pub use tuning::{TuningArgs, VoidArgs};

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
    #[arg(long, visible_alias = "node-cidr-mask-size-ipv4", env = "GANTRY_NODE_CIDR_MASK_SIZE",
        value_name = "BITS", default_value_t = 24, value_parser = clap::value_parser!(u8).range(1..=30))]
    pub node_cidr_mask_size: u8,
    /// How long certificates are good that are signed on request, if no less is asked for
    #[arg(long, env = "GANTRY_CLUSTER_SIGNING_DURATION", value_name = "TIME", default_value = "8760h", value_parser = time)]
    pub cluster_signing_duration: Duration,
    /// Which controllers run, by kube-controller-manager's names: * for all, -name for all but this one
    #[arg(
        long,
        env = "GANTRY_CONTROLLERS",
        value_name = "NAMES",
        default_value = "*",
        allow_hyphen_values = true
    )]
    pub controllers: Selected,
    /// How often each autoscaler is looked at
    #[arg(long, env = "GANTRY_HORIZONTAL_POD_AUTOSCALER_SYNC_PERIOD", value_name = "TIME", default_value = "15s", value_parser = time)]
    pub horizontal_pod_autoscaler_sync_period: Duration,
    /// How far measurements may stray from what an autoscaler wishes for before anything is done about it
    #[arg(
        long,
        env = "GANTRY_HORIZONTAL_POD_AUTOSCALER_TOLERANCE",
        value_name = "SHARE",
        default_value_t = 0.1
    )]
    pub horizontal_pod_autoscaler_tolerance: f64,
    /// For how long an autoscaler's larger wish holds against a smaller one, unless it says so itself
    #[arg(long, env = "GANTRY_HORIZONTAL_POD_AUTOSCALER_DOWNSCALE_STABILIZATION", value_name = "TIME", default_value = "5m", value_parser = time)]
    pub horizontal_pod_autoscaler_downscale_stabilization: Duration,
    /// For how long after its start a pod's CPU use may be that of its start
    #[arg(long, env = "GANTRY_HORIZONTAL_POD_AUTOSCALER_CPU_INITIALIZATION_PERIOD", value_name = "TIME", default_value = "5m", value_parser = time)]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Duration,
    /// For how long after its start a pod that is not ready may never have been
    #[arg(long, env = "GANTRY_HORIZONTAL_POD_AUTOSCALER_INITIAL_READINESS_DELAY", value_name = "TIME", default_value = "30s", value_parser = time)]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Duration,
    #[command(flatten)]
    pub tuning: TuningArgs,
    #[command(flatten)]
    pub void: VoidArgs,
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

    /// Which controllers run.
    pub fn selected(&self) -> Selected {
        self.tuning.switched_off().fold(self.controllers.clone(), Selected::without)
    }

    /// How autoscalers work.
    pub fn autoscaling(&self) -> AutoscalingSettings {
        AutoscalingSettings {
            sync_period: self.horizontal_pod_autoscaler_sync_period.max(Duration::from_secs(1)),
            tolerance: self.horizontal_pod_autoscaler_tolerance,
            downscale_stabilization: self.horizontal_pod_autoscaler_downscale_stabilization,
            cpu_initialization: self.horizontal_pod_autoscaler_cpu_initialization_period,
            initial_readiness_delay: self.horizontal_pod_autoscaler_initial_readiness_delay,
        }
    }

    /// Who signs certificates.
    pub fn signing(&self, pki: Arc<Pki>) -> Signing {
        let duration = self.cluster_signing_duration.max(Duration::from_secs(3600));
        Signing { duration, ..Signing::new(Arc::new(Authority(pki))) }
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
