//! Admission: what the cluster adds to a write, and which writes it refuses, beyond the rules of the kind itself.
//!
//! [`Chain`] runs everything in upstream's order (kubernetes/kubernetes, `pkg/kubeapiserver/options/plugins.go`,
//! `AllOrderedPlugins`): the compiled-in plugins (`plugins/`), which need nothing but memory, then policies (`policy/`)
//! and webhooks (`webhook/`), whose configurations are compiled once for each change of them, and last the quotas. What
//! they see of a write is a [`Request`]; what they need of the server is a [`Cluster`].

mod chain;
mod cluster;
mod evaluate;
mod images;
mod matching;
mod plugin;
mod plugins;
mod policy;
mod quota;
mod request;
mod settings;
mod webhook;

pub use chain::Chain;
pub use cluster::{Cluster, Objects, Swap};
pub use images::ImagePolicyConfig;
pub use quota::quota_tables;
pub use request::{Notes, Operation, Options, Request};
pub use settings::{Settings, SettingsError};

#[cfg(test)]
mod tests;
