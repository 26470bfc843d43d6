use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::settings::KubeletSettings;
use crate::shutdown::ShutdownPlaces;
use crate::static_pods::Manifests;

/// Where the API is that the node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// In this process: a node that cannot be registered is an error.
    Local,
    /// Elsewhere: it may be away, and the node goes on without it.
    Remote,
    /// Nowhere: the node runs its own pods and nothing else.
    Alone,
}

/// What a node needs to know of itself.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// Its address, as others reach it.
    pub ip: Ipv4Addr,
    /// The port of the agent's server.
    pub port: u16,
    /// Volumes are kept below it.
    pub data_dir: PathBuf,
    /// Containers' logs are kept below it.
    pub log_dir: PathBuf,
    /// The address of the cluster's DNS; without one, pods ask whom the node asks.
    pub cluster_dns: Option<Ipv4Addr>,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// The addresses of this node's pods.
    pub pod_cidr: String,
    /// Settings by the names of upstream's `KubeletConfiguration`.
    pub kubelet: KubeletSettings,
    /// What the agent's server shows, and whose certificates it takes.
    pub tls: Arc<rustls::ServerConfig>,
    /// Where the API is.
    pub membership: Membership,
    /// What the node runs by itself.
    pub manifests: Option<Manifests>,
    /// Where word of a shutdown comes from.
    pub shutdown: ShutdownPlaces,
}
