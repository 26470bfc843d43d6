//! The node agent: registers its node, and makes the pods that are bound to it run.
//!
//! One controller, one key for each pod. [`plan`](plan::plan) is pure: from a pod and what the runtime says of its
//! containers it decides what to do next; `worker.rs` does it and writes the status. Nothing about a pod is kept in
//! memory but the failures of image pulls, so an agent that starts again goes on where the last one stopped.

mod admit;
mod cdi;
mod certificates;
mod checkpoint;
mod classes;
mod config;
mod container;
mod cpu;
mod cri;
mod devices;
mod dra;
mod edits;
mod engine;
mod env;
mod env_file;
mod ephemeral;
mod error;
mod eviction;
mod handlers;
mod health;
mod hooks;
mod hugepages;
mod image_volumes;
mod images;
mod keyring;
mod last_words;
mod managers;
mod memory;
mod meters;
mod names;
mod plan;
mod pod_limits;
mod pod_resources;
mod ports;
mod preemption;
mod probe;
mod pulls;
mod register;
mod report;
mod requests;
mod reservations;
mod resize;
mod restarts;
mod run;
mod security;
mod server;
mod settings;
mod shown_images;
mod shutdown;
mod sockets;
mod start;
mod static_pods;
mod stats;
mod status;
mod stop;
mod topology;
mod userns;
mod worker;

pub use crate::cri::{Cri, CriConfig, CriError};
pub use certificates::{Apply, CertificateError, CertificateStore, CertificateUse, Rotation, Switch};
pub use checkpoint::CheckpointError;
pub use config::{Membership, NodeConfig};
pub use engine::{BuiltIn, Engine, EngineError};
pub use error::NodeError;
pub use eviction::{Amount, Signal, Threshold, ThresholdError, statements};
pub use managers::{ManagerError, ManagerSettings};
pub use pulls::VerificationPolicy;
pub use reservations::ReservationSettings;
pub use run::{NodeHandle, run};
pub use settings::{
    Authorization, ContainerSettings, KubeletSettings, RegistrationSettings, SettingsError, Taint,
    parse_taint,
};
pub use shutdown::{NodeControl, Share, ShutdownPlaces, ShutdownSettings, ask};
pub use static_pods::{Manifests, PodRules};
pub use topology::{CpuSet, CpuSetError, TopologyPolicy, TopologyScope};
