use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::content::{ContentError, io_error, replace_file};
use crate::digest::Digest;

/// Which images have which names: one small JSON file, replaced as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    pub(crate) images: Vec<Record>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The digest of the manifest.
    pub(crate) manifest: Digest,
    /// The digest of the configuration.
    pub(crate) id: Digest,
    #[serde(default)]
    pub(crate) names: BTreeSet<String>,
    #[serde(default)]
    pub(crate) digests: BTreeSet<String>,
}

impl Index {
    /// Gives an image one more name, which any other image loses.
    pub(crate) fn name(&mut self, id: Digest, name: &str) {
        for record in &mut self.images {
            if record.id == id {
                record.names.insert(name.to_owned());
            } else {
                record.names.remove(name);
            }
        }
    }

    /// Adds an image or what is new about it. One configuration is one image, whatever manifests it came with; the
    /// first one stays as long as it is `usable`.
    pub(crate) fn add(&mut self, record: Record, usable: impl FnOnce(&Digest) -> bool) {
        let Record { manifest, id, names, digests } = record;
        match self.images.iter_mut().find(|known| known.id == id) {
            Some(known) => {
                known.digests.extend(digests);
                if known.manifest != manifest && !usable(&known.manifest) {
                    known.manifest = manifest;
                }
            }
            None => self.images.push(Record { manifest, id, names: BTreeSet::new(), digests }),
        }
        for name in names {
            self.name(id, &name);
        }
    }
}

/// Why the index could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("image index {} is malformed ({source}): restore it, or remove it and import the images again", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
}

/// Distinguishes one version of the file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64, i64, i64);

pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|meta| Stamp(meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

pub(crate) fn read(path: &Path) -> Result<Index, IndexError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| IndexError::Json { path: path.to_owned(), source }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Index::default()),
        Err(e) => Err(io_error("read image index", path)(e).into()),
    }
}

pub(crate) fn write(path: &Path, index: &Index) -> Result<(), IndexError> {
    let bytes = serde_json::to_vec_pretty(index)
        .map_err(|source| IndexError::Json { path: path.to_owned(), source })?;
    Ok(replace_file(path, &bytes)?)
}
