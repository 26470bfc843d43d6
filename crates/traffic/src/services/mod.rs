//! The service proxy: Services as packet rules.
//!
//! [`desired`] decides, from plain values, what the kernel should hold; [`Applier`] makes it so, in one transaction
//! that touches only what differs.
//!
//! A packet that opens a connection is looked up once: destination, protocol and port in a verdict map, whose
//! element leads to the chain of that Service's port. The chain draws a number and looks up the endpoint of that
//! number in one map that all Services share. So a rollout changes a few elements, and a chain only when the number
//! of endpoints changes.

mod applier;
mod conntrack;
mod desired;
mod rules;
mod table;

pub use applier::{Applied, Applier, ApplyError};
pub use desired::{ProxyConfig, desired};
pub use rules::{Backend, Chain, ChainName, Frontend, Mark, NodePort, Pool, Refusal, Rules, Slot};
