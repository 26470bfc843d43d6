use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{OpenError, WriteFailure};
use crate::record::{Record, Revision};
use crate::seal::SealError;

/// Where the store's log lives.
///
/// The log is a sequence of [`Entry`]s in the order of their [`Position`]s. Memory holds all that can be read; the
/// log is read once, at the start: first [`Backend::floors`], then [`Backend::replay`]. A backend is used by the committer thread alone.
pub(crate) trait Backend: Send {
    /// Tells from where on each table's history is complete.
    fn floors(&mut self) -> Result<Floors, OpenError>;

    /// Reads the whole log in order. An entry that `each` finds senseless makes the store corrupt.
    fn replay(&mut self, each: &mut dyn FnMut(Entry) -> Result<(), Senseless>) -> Result<(), OpenError>;

    /// Adds entries, all of them or none. When it returns, they survive a power cut.
    fn append(&mut self, entries: &[Entry]) -> Result<(), AppendError>;

    /// Removes entries nobody needs any more and remembers the floors, all of it or nothing. Where it is lost in a
    /// crash, the next start finds the garbage again.
    fn compact(&mut self, compaction: &Compaction) -> Result<(), WriteFailure>;

    /// Lets go of the disk. Everything appended is durable already.
    fn close(self: Box<Self>);
}

/// For each table the revision after which no event was forgotten.
pub(crate) type Floors = BTreeMap<Arc<str>, Revision>;

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) revision: Revision,
    /// Which operation of the transaction.
    pub(crate) index: u32,
}

impl Position {
    pub(crate) fn of(record: &Record) -> Self {
        Self { revision: record.revision, index: record.index }
    }
}

/// One operation in the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) table: Arc<str>,
    pub(crate) change: Change,
}

/// What the operation did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Put(Arc<Record>),
    /// The last state is left out where it is the one that was stored before.
    Delete {
        key: Arc<str>,
        value: Option<Bytes>,
    },
}

/// What the log can do without.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Compaction {
    pub(crate) forget: Vec<Position>,
    pub(crate) floors: Floors,
}

/// An entry that cannot follow the ones before it, or cannot be an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Senseless {
    #[error("an entry at revision {} is missing before revision {}", .expected.revision, .found.revision)]
    Gap { expected: Position, found: Position },
    #[error("revision {revision} removes {table} {key:?}, which is not there")]
    Removed { revision: Revision, table: Arc<str>, key: Arc<str> },
    #[error("revision {revision} replaces {table} {key:?}, which is not there")]
    Replaced { revision: Revision, table: Arc<str>, key: Arc<str> },
}

/// Why entries were not added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// Nothing was written, and a later try may succeed.
    #[error("{available} bytes are left on the disk, {needed} are needed")]
    Full { available: u64, needed: u64 },
    /// Nothing was written, for something of it could not be encrypted.
    #[error(transparent)]
    Sealing(SealError),
    /// Nobody knows what is on disk now.
    #[error(transparent)]
    Broken(#[from] WriteFailure),
}
