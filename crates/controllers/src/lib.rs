//! What makes the cluster become as its objects say: one folder or file for each controller.
//!
//! Each controller looks at the world through informers and acts through the API alone; what it decides is a pure
//! function wherever that is possible.

mod common;
mod context;
mod metrics;

mod autoscaling;
mod bootstrap_signer;
mod certificates;
mod cronjob;
mod daemonset;
mod deployment;
mod device_taint;
mod disruption;
mod endpoints;
mod error;
mod garbage;
mod job;
mod legacy_tokens;
mod local_provisioner;
mod names;
mod namespace;
mod node;
mod pod_gc;
mod replicaset;
mod resource_claim;
mod root_ca;
mod selected;
mod service_account;
mod service_cidr;
mod statefulset;
mod storage_migration;
mod token_cleaner;
mod ttl;
mod ttl_after_finished;
mod tuning;
mod volume;

pub use autoscaling::AutoscalingSettings;
pub use certificates::{CertificateOrder, Signer, Signing};
pub use context::{Config, Identities, run};
pub use error::Error;
pub use metrics::metrics;
pub use node::NodeSettings;
pub use node::ipam::PodRange;
pub use selected::{Selected, SelectionError};
pub use tuning::{Concurrency, EndpointSettings, Tuning, VolumeSettings};

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
