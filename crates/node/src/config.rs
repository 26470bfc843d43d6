use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// The address of the cluster's DNS.
    pub cluster_dns: Ipv4Addr,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// The addresses of this node's pods.
    pub pod_cidr: String,
    /// What the agent's server shows, and whose certificates it takes.
    pub tls: Arc<rustls::ServerConfig>,
}
