use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::digest::{Digest, Hasher};

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The file system refused.
    #[error("{attempt} {}: {source}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not what its digest promises.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    Digest {
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The content is longer or shorter than promised.
    #[error("size mismatch: expected {expected} bytes, got {actual}")]
    Size {
        /// The promised number of bytes.
        expected: u64,
        /// The number of bytes that came.
        actual: u64,
    },
    /// A document is bigger than any honest one.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed for such a document")]
    TooBig {
        /// Which blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

pub(crate) fn io_error(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContentError {
    let path = path.to_owned();
    move |source| ContentError::Io { attempt, path, source }
}

/// Blobs by digest. A blob is visible only when it is complete, verified and on the disk.
#[derive(Debug)]
pub(crate) struct Content {
    blobs: PathBuf,
    incoming: PathBuf,
}

impl Content {
    pub(crate) fn open(dir: &Path) -> Result<Self, ContentError> {
        let content = Self { blobs: dir.join("blobs/sha256"), incoming: dir.join("incoming") };
        for dir in [&content.blobs, &content.incoming] {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        private(dir)?;
        Ok(content)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Whether the blob is there, with `size` bytes.
    pub(crate) fn contains(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|meta| meta.len() == size)
    }

    pub(crate) fn size(&self, digest: &Digest) -> Result<u64, ContentError> {
        let path = self.path(digest);
        Ok(fs::metadata(&path).map_err(io_error("find blob", &path))?.len())
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        File::open(&path).map_err(io_error("open blob", &path))
    }

    /// Reads a whole document of at most `limit` bytes and verifies it once more.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let size = self.size(digest)?;
        if size > limit {
            return Err(ContentError::TooBig { digest: *digest, size, limit });
        }
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(io_error("read blob", &self.path(digest)))?;
        self.keep_if(digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Reads a blob to see whether it is still what it was.
    pub(crate) fn verify(&self, digest: &Digest) -> Result<(), ContentError> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(io_error("read blob", &self.path(digest)))? {
                0 => return self.keep_if(digest, hasher.finish()),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// Throws a damaged blob away, so that it can come again.
    fn keep_if(&self, expected: &Digest, actual: Digest) -> Result<(), ContentError> {
        if actual == *expected {
            return Ok(());
        }
        tracing::error!(blob = %expected, "blob is damaged and will be removed");
        self.remove(expected)?;
        Err(ContentError::Digest { expected: *expected, actual })
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, ContentError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(io_error("write", &self.incoming))?;
        Ok(writer.commit(None, None)?.0)
    }

    pub(crate) fn writer(&self) -> Result<BlobWriter, ContentError> {
        let file =
            NamedTempFile::new_in(&self.incoming).map_err(io_error("create a file in", &self.incoming))?;
        Ok(BlobWriter { file, hasher: Hasher::default(), written: 0, blobs: self.blobs.clone() })
    }

    pub(crate) fn list(&self) -> Result<Vec<(Digest, u64)>, ContentError> {
        let failed = |e| io_error("list", &self.blobs)(e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(digest) = entry.file_name().to_str().and_then(Digest::from_hex) {
                found.push((digest, entry.metadata().map_err(failed)?.len()));
            }
        }
        Ok(found)
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), ContentError> {
        let path = self.path(digest);
        fs::remove_file(&path).map_err(io_error("remove blob", &path))
    }

    /// Removes what interrupted writers left. The caller makes sure that nobody writes.
    pub(crate) fn clear_incoming(&self) {
        let Ok(entries) = fs::read_dir(&self.incoming) else { return };
        for entry in entries.flatten() {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%error, path = %entry.path().display(), "cannot remove an unfinished blob");
            }
        }
    }
}

/// A blob on its way in.
pub(crate) struct BlobWriter {
    file: NamedTempFile,
    hasher: Hasher,
    written: u64,
    blobs: PathBuf,
}

impl BlobWriter {
    /// Verifies what was written and makes it visible under its digest.
    pub(crate) fn commit(
        self,
        digest: Option<Digest>,
        size: Option<u64>,
    ) -> Result<(Digest, u64), ContentError> {
        if let Some(expected) = size
            && expected != self.written
        {
            return Err(ContentError::Size { expected, actual: self.written });
        }
        let actual = self.hasher.finish();
        if let Some(expected) = digest
            && expected != actual
        {
            return Err(ContentError::Digest { expected, actual });
        }
        let path = self.blobs.join(actual.hex());
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        self.file.as_file().set_permissions(permissions).map_err(io_error("set permissions of", &path))?;
        self.file.as_file().sync_all().map_err(io_error("sync", &path))?;
        self.file.persist(&path).map_err(|e| io_error("store blob", &path)(e.error))?;
        sync_dir(&self.blobs)?;
        Ok((actual, self.written))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.as_file_mut().write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shuts a directory for everybody else: layers have set-user-id programs, images may have secrets.
pub(crate) fn private(dir: &Path) -> Result<(), ContentError> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(dir, mode).map_err(io_error("set permissions of", dir))
}

/// Puts the names of a directory on the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), ContentError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

/// Replaces a small file so that a crash leaves either the old or the new one.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), ContentError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(dir).map_err(io_error("create a file in", dir))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.as_file().sync_all().map_err(io_error("sync", path))?;
    file.persist(path).map_err(|e| io_error("replace", path)(e.error))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_what_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let digest = content.put(b"hello").unwrap();
        assert!(content.contains(&digest, 5) && !content.contains(&digest, 4));
        assert_eq!(content.read(&digest, 5).unwrap(), b"hello");
        assert!(matches!(content.read(&digest, 4), Err(ContentError::TooBig { .. })));

        let mut writer = content.writer().unwrap();
        writer.write_all(b"other").unwrap();
        assert!(matches!(writer.commit(Some(digest), None), Err(ContentError::Digest { .. })));
        let writer = content.writer().unwrap();
        assert!(matches!(writer.commit(None, Some(3)), Err(ContentError::Size { expected: 3, actual: 0 })));
        assert_eq!(content.list().unwrap(), [(digest, 5)]);
        assert_eq!(fs::read_dir(&content.incoming).unwrap().count(), 0);
    }

    #[test]
    fn notices_damage() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let digest = content.put(b"hello").unwrap();
        fs::write(content.path(&digest), b"hellp").unwrap();
        assert!(matches!(content.read(&digest, 9), Err(ContentError::Digest { .. })));
        assert!(!content.contains(&digest, 5));
        content.put(b"hello").unwrap();
        content.verify(&digest).unwrap();
        fs::write(content.path(&digest), b"hellp").unwrap();
        assert!(matches!(content.verify(&digest), Err(ContentError::Digest { .. })));
    }
}
