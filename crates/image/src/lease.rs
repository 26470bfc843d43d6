use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::content::{ContentError, io_error};

/// Keeps garbage collection away while content arrives that no name protects yet.
///
/// The lock is one on a file, so it also holds between processes: a command line build beside a running server.
#[derive(Debug)]
pub(crate) struct Lease {
    _file: File,
}

/// The files on which processes agree.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    content: PathBuf,
    index: PathBuf,
}

impl Locks {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { content: dir.join("content.lock"), index: dir.join("index.lock") }
    }

    /// Shared: as many writers as there are.
    pub(crate) fn ingest(&self) -> Result<Lease, ContentError> {
        lock(&self.content, FlockOperation::LockShared)
    }

    /// Alone, or `None` at once if somebody writes.
    pub(crate) fn collect(&self) -> Result<Option<Lease>, ContentError> {
        match lock(&self.content, FlockOperation::NonBlockingLockExclusive) {
            Err(ContentError::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// For the short moment of changing the index.
    pub(crate) fn index(&self) -> Result<Lease, ContentError> {
        lock(&self.index, FlockOperation::LockExclusive)
    }
}

fn lock(path: &Path, operation: FlockOperation) -> Result<Lease, ContentError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io_error("open lock", path))?;
    loop {
        match flock(&file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                result.map_err(|e| io_error("lock", path)(e.into()))?;
                return Ok(Lease { _file: file });
            }
        }
    }
}
