use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use auth::{StaticTokens, TokenIssuer};
use base::{Clock, Ids};
use ipnet::Ipv4Net;

use crate::access::AccessConfig;
use crate::trace::TraceConfig;

/// What an API server needs to know.
pub struct Config {
    /// Wall-clock time, for timestamps.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for names and UIDs.
    pub ids: Arc<dyn Ids>,
    /// Service account tokens.
    pub tokens: Arc<TokenIssuer>,
    /// Tokens valid as long as the server runs.
    pub static_tokens: StaticTokens,
    /// The authority's certificate as PEM; published to pods.
    pub ca_pem: String,
    /// Addresses for Services. The first one is the API's own Service.
    pub service_cidr: Ipv4Net,
    /// Ports for Services on every node.
    pub node_ports: RangeInclusive<u16>,
    /// Where clients outside reach this server.
    pub advertise: (Ipv4Addr, u16),
    /// How many requests are served at once, those of exempt priority levels apart
    /// (upstream: `--max-requests-inflight` and `--max-mutating-requests-inflight` together, 600).
    pub in_flight: u32,
    /// Whether somebody collects what has lost its owners (upstream: `--enable-garbage-collector`). Without, nothing is
    /// kept for it to work on.
    pub garbage_collection: bool,
    /// Who may come in, and what they may do.
    pub access: AccessConfig,
    /// Which versions of which resources are served.
    pub runtime_config: registry::RuntimeConfig,
    /// Which admission plugins run.
    pub admission: admission::Settings,
    /// Which requests are noted as traces, and where they go; none without.
    pub tracing: Option<TraceConfig>,
    /// How nodes are called for logs, exec and the like; without it such requests fail with a clear error.
    pub node_client: Option<NodeClient>,
}

/// TLS credentials for calls to nodes.
#[derive(Clone)]
pub struct NodeClient {
    /// Trusts the cluster's authority and presents the server's client certificate.
    pub tls: Arc<rustls::ClientConfig>,
}
