//! The store in etcd, shared by several servers.
//!
//! ```text
//!  commit ──► txn.rs ──── transaction ────► etcd
//!                                            │ one watch over the prefix
//!  reads ◄── state.rs ◄── feed.rs ◄──────────┘
//!    └─ barrier.rs: which revision must be there first?
//! ```
//! A revision here is etcd's, so it is the same on all servers. Objects lie at `/registry/<table>/<key>` as their
//! bytes, and what they can be found by behind them (`envelope.rs`). Memory is filled by `feed.rs` alone, in etcd's
//! order. A read that must not be old asks etcd for its revision (one question for all who wait) and waits until
//! memory has come that far.

mod barrier;
mod client;
mod compact;
mod config;
mod engine;
mod envelope;
mod feed;
mod layout;
mod messages;
mod txn;

pub use config::{Endpoint, EndpointError, EtcdConfig};
pub(crate) use engine::Engine;
