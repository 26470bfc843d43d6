//! The node's own network: an address for each attached namespace, masquerading and published ports. Everything
//! goes over netlink; no helper program runs. Knows nothing of Kubernetes: an attachment is an opaque id and the
//! path of a network namespace.
//!
//! A bridge carries the node's side of the range, the gateway address. Attachments are not its ports: each has its
//! address as a /32 at the end of a pair of interfaces, with a route on the node's side, and both sides know each
//! other's hardware address from the start. So every packet between two attachments passes the node's IP layer,
//! where translation and filtering see both directions of it, whether `br_netfilter` is on or off; nobody can
//! answer for somebody else's address; and a bridge's limit of 1,024 ports does not apply.

mod attach;
mod bridge;
mod config;
mod error;
mod ipam;
pub mod nft;
mod node;
mod ports;
mod rules;

pub use config::{NetworkConfig, host_interface};
pub use error::NetworkError;
pub use node::{Attached, Attachment, Network};
pub use ports::{HostPort, Protocol};
