//! What the resource managers must not forget, as small files: written whole or not at all, and read only if they are what
//! was written (kubernetes/kubernetes, `pkg/kubelet/checkpointmanager/checkpoint_manager.go`).
//!
//! A file is `{"data":…,"checksum":…}`; the sum is FNV-1a over the text of the data as it stands there.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system says no.
    #[error("cannot {attempt} checkpoint {path}: {source}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("checkpoint {path} is corrupted: {why}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What can be done to files; tests let it fail.
pub(crate) trait Disk: Send + Sync {
    /// Writes a new file, or over an old one, and makes sure that it is on the disk.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file its name, and makes sure of that.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The real thing.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// One file.
pub(crate) struct Checkpoint {
    path: PathBuf,
    disk: Box<dyn Disk>,
}

#[derive(Serialize, Deserialize)]
struct Framed<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    checksum: u64,
}

impl Checkpoint {
    /// The file at `path`, which need not be there.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, disk: Box::new(RealDisk) }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was saved last, if anything was.
    ///
    /// # Errors
    /// If it cannot be read, or is not what was written.
    pub(crate) fn load<T: DeserializeOwned>(&self) -> Result<Option<T>, CheckpointError> {
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.corrupt("it is no text".into()));
            }
            Err(source) => return Err(self.file("read", source)),
            Ok(text) => text,
        };
        let framed: Framed<'_> = serde_json::from_str(&text).map_err(|e| self.corrupt(e.to_string()))?;
        if checksum(framed.data.get()) != framed.checksum {
            return Err(self.corrupt("its checksum is wrong".into()));
        }
        serde_json::from_str(framed.data.get()).map(Some).map_err(|e| self.corrupt(e.to_string()))
    }

    /// Writes it anew. On failure the old one is still there, unless the last step of all fails.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(crate) fn save<T: Serialize>(&self, data: &T) -> Result<(), CheckpointError> {
        let failed = |e: serde_json::Error| self.file("encode", e.into());
        let data = serde_json::value::to_raw_value(data).map_err(failed)?;
        let framed = Framed { data: &data, checksum: checksum(data.get()) };
        let text = serde_json::to_vec(&framed).map_err(failed)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|e| self.file("make the folder of", e))?;
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = folder.join(name);
        self.disk.write(&new, &text).map_err(|e| self.file("write", e))?;
        self.disk.rename(&new, &self.path).map_err(|e| self.file("replace", e))
    }

    fn corrupt(&self, why: String) -> CheckpointError {
        CheckpointError::Corrupt { path: self.path.clone(), why }
    }

    fn file(&self, attempt: &'static str, source: io::Error) -> CheckpointError {
        CheckpointError::File { attempt, path: self.path.clone(), source }
    }
}

/// FNV-1a of 64 bits.
fn checksum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
