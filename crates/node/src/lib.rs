//! The node agent: registers its node, and makes the pods that are bound to it run.
//!
//! One controller, one key for each pod. [`plan`](plan::plan) is pure: from a pod and what the runtime says of its
//! containers it decides what to do next; `worker.rs` does it and writes the status. Nothing about a pod is kept in
//! memory but the failures of image pulls, so an agent that starts again goes on where the last one stopped.

mod admit;
mod config;
mod container;
mod env;
mod env_file;
mod ephemeral;
mod error;
mod eviction;
mod handlers;
mod hooks;
mod hugepages;
mod image_volumes;
mod images;
mod keyring;
mod last_words;
mod meters;
mod names;
mod plan;
mod pod_limits;
mod ports;
mod probe;
mod pulls;
mod register;
mod report;
mod requests;
mod resize;
mod restarts;
mod security;
mod server;
mod settings;
mod start;
mod stats;
mod status;
mod stop;
mod userns;
mod worker;

pub use config::NodeConfig;
pub use error::NodeError;
pub use eviction::{Amount, Signal, Threshold, ThresholdError, statements};
pub use pulls::VerificationPolicy;
pub use settings::KubeletSettings;
pub use worker::run;
