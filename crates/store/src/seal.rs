use std::fmt;
use std::sync::Arc;

/// What makes records unreadable to whoever gets hold of the disk or of etcd.
///
/// It is asked for each record that is written or read at the border of a backend; memory holds plain bytes. It may
/// block for a moment, when a key has to be fetched first.
pub trait Seal: Send + Sync + fmt::Debug {
    /// Whether records of that table are sealed, or at least marked, when they are written.
    fn covers(&self, table: &str) -> bool;

    /// Seals a record. What comes out can be opened for the same table and key only.
    fn seal(&self, table: &str, key: &str, plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Takes note of a record that is written or read, and not sealed.
    fn passed(&self, table: &str, key: &str);

    /// Whether a record, as far as it was seen here, lies at the backend as it would not be sealed today.
    fn is_stale(&self, table: &str, key: &str) -> bool;

    /// Opens a record, whoever sealed it.
    fn open(&self, table: &str, key: &str, sealed: &[u8]) -> Result<Opened, SealError>;
}

/// An opened record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was sealed.
    pub plain: Vec<u8>,
    /// Whether it would be sealed with another key today.
    pub stale: bool,
}

/// Why a record could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is sealed, and there are no keys at all.
    #[error("{table} {key:?} is encrypted, and no keys are configured; set --encryption-provider-config")]
    NoKeys {
        /// The table.
        table: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// None of the keys fits.
    #[error("cannot decrypt {table} {key:?}: {why}")]
    Open {
        /// The table.
        table: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// What does not fit.
        why: String,
    },
    /// The key to seal with cannot be used now.
    #[error("cannot encrypt {table} {key:?}: {why}")]
    Seal {
        /// The table.
        table: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// Why not.
        why: String,
    },
}
