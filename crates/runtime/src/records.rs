//! What lies on disk.
//!
//! ```text
//! run_dir/netns/<sandbox>              the network namespace, bound
//! run_dir/shims/<sandbox>/sandbox.json what was asked for          (agent)
//!                         process.json the shim's process          (shim)
//!                         s            the shim's socket           (shim)
//!                         shm/         /dev/shm of all containers  (shim)
//!                         shim.log     should it ever panic        (shim)
//!                         c/<container>/launch.json  what to start (agent)
//!                                       started.json, exit.json    (shim)
//! data_dir/containers/<container>/     upper, work, root
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

impl Places {
    pub(crate) fn shims(&self) -> PathBuf {
        self.run_dir.join("shims")
    }

    pub(crate) fn shim(&self, sandbox: &str) -> PathBuf {
        self.shims().join(sandbox)
    }

    pub(crate) fn netns(&self, sandbox: &str) -> PathBuf {
        self.run_dir.join("netns").join(sandbox)
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.data_dir.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }
}

/// Whether a name can be a file name anywhere.
pub(crate) fn check_id(what: &'static str, id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=128).contains(&id.len()) && id.chars().all(fine) && !id.starts_with('.') {
        return Ok(());
    }
    Err(Error::BadId { what, id: id.to_owned() })
}

/// Names the file of an I/O failure.
pub(crate) trait At<T> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { attempt, path: path.to_owned(), source })
    }
}

/// Writes a file so that nobody sees half of it.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|source| Error::Record { path: path.to_owned(), source })?;
    let new = path.with_extension("new");
    fs::write(&new, text).at("write", &new)?;
    fs::rename(&new, path).at("rename", &new)
}

/// Reads a file; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => {
            let text = result.at("read", path)?;
            let value = serde_json::from_slice(&text);
            value.map(Some).map_err(|source| Error::Record { path: path.to_owned(), source })
        }
    }
}

/// Removes a directory with all in it; absent is fine.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    match sys::remove_tree(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", ".hidden", "ä", &"x".repeat(129)] {
            assert!(check_id("sandbox", bad).is_err(), "{bad}");
        }
        check_id("sandbox", "0f3a-pod_1.x").unwrap();
    }
}
