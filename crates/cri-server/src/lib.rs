//! The Container Runtime Interface over our engine: what a stock kubelet and `crictl` ask of a container runtime.
//!
//! [`serve`] answers on a unix socket. Sandboxes and containers are the engine's, which finds its shims again; what the
//! interface wants to have back beside that (labels, annotations, log paths, containers that were made and not yet
//! started) is in [`records`], one file for each. What goes from the interface's words to the engine's is in
//! [`translate`] and pure; what goes back, in [`status`].
//!
//! ```text
//! data_dir/cri/sandboxes/<id>/record.json   what was asked for, and when
//!                             hostname, hosts, resolv.conf   seen by all of its containers
//! data_dir/cri/containers/<id>/record.json  the same, and what the engine is to start
//! data_dir/cri/pod-cidr                     what UpdateRuntimeConfig said
//! ```

mod about;
mod containers;
mod error;
mod events;
mod exec;
mod extent;
mod images;
mod network;
mod records;
mod sandboxes;
mod serve;
mod service;
mod stats;
mod status;
mod streams;
mod translate;

pub use error::CriError;
pub use serve::{bind, serve};
pub use service::{CriConfig, CriService};
