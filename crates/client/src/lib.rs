//! How every component sees the cluster: a [`kube::Client`] over any transport, one shared informer for each kind,
//! work queues with one run in flight for each key, and events.
//!
//! The crate knows no server: in process, over a pipe or over TLS, the same code runs.

mod controller;
pub mod devices;
mod discover;
mod error;
mod events;
mod informer;
mod key;
mod leader;
mod meta;
mod nodes;
mod pod;
mod queue;
mod requests;
mod served;
pub mod snapshots;
pub mod storage;
mod transport;

pub use controller::{Controller, Next, Queue};
pub use discover::{Discovered, discover};
pub use error::{
    is_already_exists, is_conflict, is_expired, is_forbidden, is_invalid, is_namespace_terminating,
    is_not_found, is_server_refusal, message,
};
pub use events::{EventKind, Recorder, reference};
pub use informer::{Cache, Change, Index, Informer, Informers, Object, Selection};
pub use key::Key;
pub use leader::{Election, election_metrics, note_leader};
pub use meta::{Labelled, Labels, controller_of, is_controlled_by, is_deleting, selector};
pub use nodes::{NodeNeeds, NodeTerm, tolerates};
pub use pod::{
    ClaimName, ConditionView, ContainerStatusView, ContainerView, Disk, ExtendedClaimView,
    PodClaimStatusView, PodClaimView, PodSpecView, PodView, ResourcesView, TerminatedView, VolumeView,
};
pub use queue::{WorkQueue, queue_metrics};
pub use requests::{Amounts, is_sidecar, pod_requests, sum_over_containers};
pub use served::is_served;
pub use transport::{Identity, Server, Transport, TransportError};

pub use k8s_openapi;
pub use kube;
