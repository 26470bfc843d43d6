use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::compress::decompress;
use crate::content::{Content, ContentError, io_error, private, sync_dir};
use crate::digest::{Digest, Hasher};
use crate::fsutil::open_root;
use crate::image::Layer;
use crate::unpack::{Limits, Target, UnpackError, unpack};

/// Why the layers of an image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The blob or the directory could not be used.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The layer is damaged or hostile.
    #[error("unpack layer {layer}: {source}")]
    Unpack {
        /// The blob.
        layer: Digest,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// The layer is not the one that the image's configuration names.
    #[error("layer {layer} unpacks to {actual}, the image's configuration promises {expected}")]
    DiffId {
        /// The blob.
        layer: Digest,
        /// The diff id in the configuration.
        expected: Digest,
        /// The digest of the uncompressed tar.
        actual: Digest,
    },
}

/// The identifiers of layers on top of each other (OCI image specification, `config.md`, "Layer ChainID").
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut below: Option<Digest> = None;
    diff_ids
        .iter()
        .map(|diff_id| {
            let chain = match below {
                None => *diff_id,
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            };
            below = Some(chain);
            chain
        })
        .collect()
}

/// Unpacked layers, one directory for each chain id.
///
/// A directory has its final name only when it is complete, verified and on the disk; whatever a crash leaves has a
/// temporary name and is removed by the next garbage collection.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    incoming: PathBuf,
    /// Serialises the unpacking of one layer within this process; between processes the rename decides.
    busy: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    limits: Limits,
}

impl Snapshots {
    pub(crate) fn open(dir: &Path, limits: Limits) -> Result<Self, ContentError> {
        let incoming = dir.join("incoming");
        fs::create_dir_all(&incoming).map_err(io_error("create", &incoming))?;
        private(dir)?;
        Ok(Self { dir: dir.to_owned(), incoming, busy: Mutex::default(), limits })
    }

    pub(crate) fn path(&self, chain_id: &Digest) -> PathBuf {
        self.dir.join(chain_id.hex())
    }

    /// A new directory that is removed when dropped, on the file system of the snapshots.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir, ContentError> {
        tempfile::TempDir::new_in(&self.incoming).map_err(io_error("create a directory in", &self.incoming))
    }

    /// The directories of `layers` (given base first), top first, unpacking what is missing.
    pub(crate) fn ensure(&self, content: &Content, layers: &[Layer]) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut ready: Vec<PathBuf> = Vec::with_capacity(layers.len());
        for layer in layers {
            let path = self.path(&layer.chain_id);
            if !path.is_dir() {
                let lock = self.busy.lock().entry(layer.chain_id).or_default().clone();
                let guard = lock.lock();
                let result = if path.is_dir() { Ok(()) } else { self.unpack(content, layer, &ready, &path) };
                if matches!(result, Err(SnapshotError::Unpack { .. } | SnapshotError::DiffId { .. })) {
                    // Either the layer was never right, or the disk has changed it since.
                    content.verify(&layer.digest)?;
                }
                drop(guard);
                self.busy.lock().remove(&layer.chain_id);
                result?;
            }
            ready.push(path);
        }
        ready.reverse();
        Ok(ready)
    }

    fn unpack(
        &self,
        content: &Content,
        layer: &Layer,
        lower: &[PathBuf],
        path: &Path,
    ) -> Result<(), SnapshotError> {
        let scratch = self.scratch()?;
        let fresh = scratch.path().join("layer");
        fs::create_dir(&fresh).map_err(io_error("create", &fresh))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&fresh, mode).map_err(io_error("set permissions of", &fresh))?;
        let open = |path: &Path| open_root(path).map_err(io_error("open", path));
        let root = open(&fresh)?;
        let lower = lower.iter().rev().map(|path| open(path)).collect::<Result<_, _>>()?;

        let blob = content.open_blob(&layer.digest)?;
        let (_, stream) = decompress(blob).map_err(io_error("read blob", &content.path(&layer.digest)))?;
        let mut hashed = Hashed { stream, hasher: Hasher::default() };
        unpack(root, Target::Layer { lower }, &mut hashed, self.limits)
            .map_err(|source| SnapshotError::Unpack { layer: layer.digest, source })?;
        let actual = hashed.hasher.finish();
        if actual != layer.diff_id {
            return Err(SnapshotError::DiffId { layer: layer.digest, expected: layer.diff_id, actual });
        }
        // One flush of the file system is far cheaper than one for each file.
        let root = open(&fresh)?;
        rustix::fs::syncfs(&root).map_err(|e| io_error("sync", &fresh)(e.into()))?;
        match fs::rename(&fresh, path) {
            // Another process was faster; its directory is as good as ours.
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
            }
            other => other.map_err(io_error("store layer as", path))?,
        }
        Ok(sync_dir(&self.dir)?)
    }

    pub(crate) fn list(&self) -> Result<Vec<Digest>, ContentError> {
        let failed = |e| io_error("list", &self.dir)(e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            if let Some(chain_id) = entry.map_err(failed)?.file_name().to_str().and_then(Digest::from_hex) {
                found.push(chain_id);
            }
        }
        Ok(found)
    }

    /// Removes an unpacked layer. It loses its name first, so that a crash leaves no half of it.
    pub(crate) fn remove(&self, chain_id: &Digest) -> Result<(), ContentError> {
        let scratch = self.scratch()?;
        let (from, to) = (self.path(chain_id), scratch.path().join("gone"));
        fs::rename(&from, &to).map_err(io_error("remove layer", &from))?;
        scratch.close().map_err(io_error("remove layer", &from))
    }

    /// Removes what interrupted unpacking left. The caller makes sure that nobody unpacks.
    pub(crate) fn clear_incoming(&self) {
        let Ok(entries) = fs::read_dir(&self.incoming) else { return };
        for entry in entries.flatten() {
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(%error, path = %entry.path().display(), "cannot remove an unfinished layer");
            }
        }
    }
}

struct Hashed<R> {
    stream: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(into)?;
        self.hasher.update(&into[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_depend_on_everything_below() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (ab, ba) = (chain_ids(&[a, b]), chain_ids(&[b, a]));
        assert_eq!((ab[0], ba[0]), (a, b));
        assert_ne!(ab[1], ba[1]);
        assert_eq!(ab[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
