//! The store: revisions, group commit, snapshots and watches over ordered tables of bytes.
//!
//! It knows nothing about what the bytes mean. A write goes through one committer thread
//! ([`Store::commit`]): its preconditions are checked against memory, it gets the next revision, it is made durable
//! together with whatever else was waiting, and only then does anybody see it. Reads never touch the disk: each
//! table is a persistent ordered map, so a [`Snapshot`] is a clone. Watches read one shared history per table.
//!
//! The way of a write: `committer.rs` (the loop) ► `stage.rs` (preconditions, revisions) ► `backend.rs`
//! (durability; `embedded.rs` is the one on this machine's disk) ► `state.rs` (what everybody sees) ► `watch.rs`.
//! At the start `recover.rs` builds the state out of the log.
//!
//! With the state in etcd (`etcd/`), that decides the order instead: writes are its transactions, and memory follows
//! its watch.

mod backend;
mod backup;
mod codec;
mod committer;
mod embedded;
mod error;
mod etcd;
mod folder;
mod history;
mod index;
mod journal;
mod options;
mod record;
mod recover;
mod seal;
mod snapshot;
mod stage;
mod state;
mod store;
mod topics;
mod txn;
mod watch;

#[cfg(test)]
mod tests;

pub use backup::{Backup, BackupError};
pub use error::{CommitError, Invalid, OpenError, Stale, TooOld, WatchEnd, WriteFailure};
pub use etcd::{Endpoint, EndpointError, EtcdConfig};
pub use history::{Event, EventKind};
pub use options::Options;
pub use record::{Record, Revision, Template, Terms};
pub use seal::{Opened, Seal, SealError};
pub use snapshot::{Records, Snapshot};
pub use store::{Stats, Store};
pub use topics::Interest;
pub use txn::{Committed, Expect, Op, Txn};
pub use watch::Watch;
