use std::time::Duration;

/// What is made of nodes that fall silent. The names are those of kube-controller-manager's flags.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    /// How many nodes of a zone lose their pods in a second (`--node-eviction-rate`).
    pub eviction_rate: f64,
    /// The same while a large zone is lost in part (`--secondary-node-eviction-rate`).
    pub secondary_eviction_rate: f64,
    /// Which share of a zone's nodes must be lost for that (`--unhealthy-zone-threshold`).
    pub unhealthy_zone_threshold: f64,
    /// Zones with no more nodes are small: in them nobody is evicted then (`--large-cluster-size-threshold`).
    pub large_cluster_size: usize,
    /// How long a node may be silent (`--node-monitor-grace-period`).
    pub monitor_grace: Duration,
    /// How long a new one until its first word (`--node-startup-grace-period`).
    pub startup_grace: Duration,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_cluster_size: 50,
            monitor_grace: Duration::from_secs(50),
            startup_grace: Duration::from_secs(60),
        }
    }
}
