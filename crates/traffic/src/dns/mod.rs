//! Cluster DNS: the names of Services and pods (Kubernetes DNS-Based Service Discovery, specification 1.1.0), and
//! everything else from upstream.
//!
//! [`Zone`] answers from an immutable snapshot and is pure; [`Server`] speaks UDP and TCP, swaps snapshots and
//! forwards what is not the cluster's.

mod cache;
mod forward;
mod message;
mod resolv;
mod server;
mod wire;
mod zone;

pub use forward::{Forwarder, Upstreams};
pub use server::{DnsConfig, DnsError, Server, ServerHandle};
pub use zone::{Answer, Zone};
