//! The Kubernetes API over HTTP: one pipeline and one handler for every resource.
//!
//! Begin with `pipeline.rs`, the way of a request. `verbs/` has a file for each verb, `subresources/` one for each
//! subresource that is not simply a part of its object, `encode/` the forms an object can be sent in.

mod access;
mod account_tokens;
mod admit;
mod aggregation;
mod audit;
mod authenticate;
mod authorize;
mod body;
mod bootstrap;
mod cache;
mod certificate_requests;
mod config;
mod config_file;
mod crds;
mod deadline;
mod discovery;
mod encode;
mod endpoints;
mod fairness;
mod follow;
mod health;
mod metrics;
mod object;
mod openapi;
mod outbound;
mod peer;
mod pipeline;
mod quotas;
mod request;
mod respond;
mod reviews;
mod server;
mod services;
mod state;
mod subresources;
mod trace;
mod type_checks;
mod verbs;
mod webhook;
mod yaml;

pub use access::{AccessConfig, Anonymous};
pub use admission::{Settings as AdmissionSettings, SettingsError as AdmissionSettingsError};
pub use aggregation::{LocalServer, ProxyIdentity};
pub use audit::{
    AuditBatch, AuditConfig, AuditDelivery, AuditFormat, AuditLog, AuditMode, AuditPolicy, AuditWebhook,
    PolicyError,
};
pub use authenticate::{FrontProxy, Issuer, TokenWebhook};
pub use authorize::{AuthorizationWebhook, AuthorizationWebhookOptions, AuthorizerConfig, ModeError};
pub use config::{Config, NodeClient};
pub use config_file::{ConfigFile, ConfigFileError};
pub use metrics::MetricsPage;
pub use outbound::{Remote, RemoteError, RemoteTls};
pub use registry::RuntimeConfig;
pub use respond::{Body, BoxError};
pub use server::Tls;
pub use state::{ApiServer, StartError};
pub use trace::{TraceConfig, TraceConfigError};

// The hammer names this crate as others do.
#[cfg(test)]
extern crate self as apiserver;
#[cfg(test)]
mod tests;
