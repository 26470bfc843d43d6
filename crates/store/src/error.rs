use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::record::{Record, Revision};
use crate::seal::SealError;

/// Why a store could not be opened. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or this one) has it open.
    #[error("the store {path} is in use by {}", holder(.pid))]
    Locked {
        /// The store's folder.
        path: PathBuf,
        /// The process that has it open, if it left its number.
        pid: Option<u32>,
    },
    /// The file system does not take writes.
    #[error("the store {path} is on a read-only file system")]
    ReadOnly {
        /// The store's folder.
        path: PathBuf,
    },
    /// This user may not write there.
    #[error("no permission to open the store {path} for writing")]
    Permission {
        /// The store's folder.
        path: PathBuf,
    },
    /// The file system has no room left.
    #[error("no space left to open the store {path}")]
    Full {
        /// The store's folder.
        path: PathBuf,
    },
    /// What is on disk cannot be what a store wrote.
    #[error("the store {path} is corrupt: {reason}")]
    Corrupt {
        /// The store's folder.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// It was written by a version that is not known here.
    #[error("the store {path} has format {found}, this version reads format {known}")]
    Format {
        /// The store's folder.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The format this version reads and writes.
        known: String,
    },
    /// Etcd could not be asked, or said no.
    #[error("cannot open the store in etcd: {why}")]
    Etcd {
        /// What etcd or the network said.
        why: String,
    },
    /// Anything else the operating system refused.
    #[error("cannot {attempt} the store {path}: {source}")]
    Io {
        /// The store's folder.
        path: PathBuf,
        /// What was tried.
        attempt: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Why a transaction did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The object should have been absent.
    #[error("{table} {key:?} already exists at revision {}", current.revision)]
    Exists {
        /// The table.
        table: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// What is there.
        current: Arc<Record>,
    },
    /// The object should have been present.
    #[error("{table} {key:?} does not exist")]
    NotFound {
        /// The table.
        table: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// The object was written by somebody else since.
    #[error("{table} {key:?} is at revision {}, not {expected}", current.revision)]
    Conflict {
        /// The table.
        table: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// The revision that was expected.
        expected: Revision,
        /// What is there.
        current: Arc<Record>,
    },
    /// The transaction makes no sense whatever the state.
    #[error("cannot write {table} {key:?}: {reason}")]
    Invalid {
        /// The table.
        table: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// What is wrong with it.
        reason: Invalid,
    },
    /// The disk is as good as full. Nothing was written; the store works again when there is room.
    #[error("the disk of the store has {available} bytes left, {needed} are needed")]
    Full {
        /// Free bytes.
        available: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// The disk failed while this was being written: it may or may not be there after the next open.
    /// The store takes no more writes until it is opened again.
    #[error("cannot make the write durable: {0}")]
    Io(Arc<WriteFailure>),
    /// An earlier write failed, and the store takes no more writes until it is opened again.
    #[error("the store takes no writes since an earlier one failed: {0}")]
    Failed(Arc<WriteFailure>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// It could not be encrypted. Nothing was written.
    #[error(transparent)]
    Sealing(SealError),
    /// Nothing was written: etcd cannot be reached, has no leader, or has no space left.
    #[error("nothing was written: {why}")]
    Unavailable {
        /// What etcd or the network said.
        why: String,
    },
    /// It was sent to etcd, and no answer came: it may have happened, or may happen yet.
    #[error("it is not known whether this was written: {why}")]
    Unknown {
        /// What etcd or the network said.
        why: String,
    },
}

/// A read that would have to be answered with what may be old, for nobody can be asked how new it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot tell whether what is known is the latest: {why}")]
pub struct Stale {
    /// What etcd or the network said.
    pub why: String,
}

/// What is wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Two operations of the transaction name the same object.
    #[error("the transaction names it twice")]
    Twice,
    /// [`crate::Template::at`] lies outside the bytes.
    #[error("the hole for the revision lies outside the value")]
    Hole,
    /// Larger than the disk format can tell.
    #[error("it is too long")]
    TooLong,
}

/// The failure that ended the writing.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {reason}")]
pub struct WriteFailure {
    /// What was tried.
    pub attempt: &'static str,
    /// What the backend said.
    pub reason: String,
}

/// The history no longer reaches back that far: read a fresh snapshot instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {revision} is too old, history begins at {oldest}")]
pub struct TooOld {
    /// The revision asked for.
    pub revision: Revision,
    /// The oldest revision that can be asked for.
    pub oldest: Revision,
}

/// Why a watch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// It read more slowly than the table was written, and events it has not read are gone.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}
