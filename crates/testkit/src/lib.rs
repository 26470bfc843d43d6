//! A whole cluster's API in one process, for tests: the real server over a store in a temporary folder, clients
//! with any identity, and stand-ins for nodes.

mod authority;
mod cluster;
mod faults;
mod kubelet;
mod objects;

pub use authority::{Authority, certificate_request};
pub use cluster::Cluster;
pub use faults::Faults;
pub use kubelet::{Outcome, run_kubelet};
pub use objects::{deployment, job, node, object, pod, replica_set};

#[cfg(test)]
mod tests;
