//! What the kernel should hold, as values that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::Protocol;

/// Name of a chain. It tells everything about the chain's rules, so a chain of a given name never changes.
pub type ChainName = Arc<str>;

/// An address and port a Service is reached under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// The address.
    pub ip: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A port a Service is reached under on every address of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// Where connections end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// The address.
    pub ip: Ipv4Addr,
    /// The port.
    pub port: u16,
}

/// The n-th endpoint of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The pool's number.
    pub pool: u64,
    /// Which one.
    pub index: u32,
}

/// Endpoints a chain draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Its number: a hash of Service, port and whether it is the node's own endpoints only.
    pub id: u64,
    /// How many endpoints there are; at least 1.
    pub count: u32,
    /// For how many seconds a client keeps its endpoint, if it does.
    pub affinity: Option<u32>,
}

/// Whose source address is replaced by the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// That of sources outside the cluster's pod ranges, which would not know the way back.
    OffCluster,
    /// Everybody's: the endpoint may be on another node, and the answer must come back here.
    Always,
}

/// The rules of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chain {
    /// Draw an endpoint.
    Balance {
        /// From these.
        pool: Pool,
        /// Whose source address is replaced.
        mark: Mark,
    },
    /// `externalTrafficPolicy: Local`: strangers go to this node's endpoints under their own address; pods and the
    /// node itself are not bound by the policy.
    Local {
        /// For pods.
        pods: ChainName,
        /// For the node itself.
        node: ChainName,
        /// For strangers; they are dropped if the node has none.
        pool: Option<Pool>,
    },
    /// `loadBalancerSourceRanges`: others are dropped.
    Sources {
        /// Who may pass.
        ranges: Vec<Ipv4Net>,
        /// Where to.
        next: ChainName,
    },
}

/// What happens to packets for a Service that has nowhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Refused at once: no endpoints at all.
    Reject,
    /// Dropped: this node has none, but others have, and a load balancer will find out.
    Drop,
}

/// Everything the kernel should hold for the Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The chains by name.
    pub chains: BTreeMap<ChainName, Chain>,
    /// Where each address and port leads.
    pub frontends: BTreeMap<Frontend, ChainName>,
    /// Where each port of the node leads.
    pub node_ports: BTreeMap<NodePort, ChainName>,
    /// Addresses and ports without endpoints.
    pub refused: BTreeMap<Frontend, Refusal>,
    /// Ports of the node without endpoints.
    pub refused_node_ports: BTreeMap<NodePort, Refusal>,
    /// The endpoints of all pools.
    pub slots: BTreeMap<Slot, Backend>,
    /// The endpoints of pools with affinity, by value: a remembered endpoint that is not here is forgotten.
    pub live: BTreeSet<(u64, Backend)>,
    /// Endpoints on this node, which may call themselves by way of a Service.
    pub hairpin: BTreeSet<Ipv4Addr>,
    /// Where UDP packets of each address and port may be on their way to.
    pub udp_frontends: BTreeMap<Frontend, BTreeSet<Backend>>,
    /// Where UDP packets of each port of the node may be on their way to.
    pub udp_node_ports: BTreeMap<NodePort, BTreeSet<Backend>>,
}
