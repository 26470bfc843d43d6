//! The store's folder: its lock, its permissions, and what the system's refusals mean.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// Names the attempt in a refusal of the system, and tells apart the ones a user can do something about.
pub(crate) fn refused(path: &Path, attempt: &'static str, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path },
        ErrorKind::PermissionDenied => OpenError::Permission { path },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => OpenError::Full { path },
        _ => OpenError::Io { path, attempt, source },
    }
}

/// The folder, locked for as long as this lives.
pub(crate) struct Folder {
    path: PathBuf,
    /// Keeps the lock; the kernel frees it when the process ends, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, for this user only, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| refused(path, "make the folder of", error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| refused(path, "open the lock of", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let pid = lock.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                return Err(OpenError::Locked { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(refused(path, "lock", error)),
        }
        // The number is only a courtesy to whoever finds the store locked.
        let _ = lock.set_len(0).and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes the file system has left for this user.
    pub(crate) fn available(&self) -> io::Result<u64> {
        let found = nix::sys::statvfs::statvfs(&self.path)?;
        Ok(found.blocks_available().saturating_mul(found.fragment_size()))
    }

    /// Makes the names in the folder durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
