//! Layers, from tar streams into directories that overlayfs can stack.

#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use crate::fsutil::PathProblem;
pub use crate::tarball::TarError;
use crate::tarball::TarReader;
use tree::Tree;

/// How much one layer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed stream.
    pub bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
}

impl Default for Limits {
    /// Far above the largest images in use, far below what fills a machine with one small download.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000 }
    }
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is no valid tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The name of an entry points out of the layer.
    #[error("layer entry {entry:?} {problem}: refused")]
    Path {
        /// The name as it stands in the tar.
        entry: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// A hard link points out of the layer.
    #[error("hard link {entry:?} to {target:?}, which {problem}: refused")]
    LinkPath {
        /// The name as it stands in the tar.
        entry: String,
        /// The target as it stands in the tar.
        target: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// A hard link to a directory, or to something that did not come before it.
    #[error("hard link {entry:?} to {target:?}, which is not a file of this layer: refused")]
    LinkTarget {
        /// The name as it stands in the tar.
        entry: String,
        /// The target as it stands in the tar.
        target: String,
    },
    /// The entry lies below something that is not a directory of this layer.
    #[error("layer entry {entry:?} lies below a file or a dangling symbolic link: refused")]
    Parent {
        /// The name as it stands in the tar.
        entry: String,
    },
    /// A device node outside `dev/`.
    #[error("layer entry {entry:?} is a device node: refused")]
    Device {
        /// The name as it stands in the tar.
        entry: String,
    },
    /// A whiteout that names nothing, or something above its directory.
    #[error("layer entry {entry:?} is not a valid whiteout: refused")]
    Whiteout {
        /// The name as it stands in the tar.
        entry: String,
    },
    /// The root of the layer is something else than a directory.
    #[error("layer entry {entry:?} would replace the root directory: refused")]
    Root {
        /// The name as it stands in the tar.
        entry: String,
    },
    /// More than the limits allow.
    #[error("layer has more than {limit} {what}: refused")]
    Limit {
        /// Bytes or entries.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The file system refused.
    #[error("{attempt} {entry:?}: {source}")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// For which entry.
        entry: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What a tar stream is unpacked into.
pub(crate) enum Target {
    /// An empty directory that becomes one layer over `lower`, the nearest first.
    Layer {
        /// The layers below.
        lower: Vec<OwnedFd>,
    },
    /// A whole file system: entries join what is there.
    Files {
        /// Where in it the entries start; already made.
        below: Vec<std::ffi::OsString>,
    },
}

/// Unpacks `stream`, an uncompressed tar, and reads it to its very end.
pub(crate) fn unpack(
    root: OwnedFd,
    target: Target,
    stream: impl Read,
    limits: Limits,
) -> Result<(), UnpackError> {
    let mut tree = Tree::new(root, target);
    let mut reader = TarReader::new(Bounded { stream, left: limits.bytes });
    let mut entries = 0;
    loop {
        let entry = match reader.next() {
            Err(TarError::Io(e)) if is_bound(&e) => return Err(bytes_limit(limits)),
            other => other?,
        };
        let Some(entry) = entry else { break };
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::Limit { what: "entries", limit: limits.entries });
        }
        match tree.apply(&entry, &mut reader) {
            Err(UnpackError::Io { source, .. }) if is_bound(&source) => return Err(bytes_limit(limits)),
            other => other?,
        }
    }
    // What follows the end mark counts for the digest of the layer.
    match io::copy(&mut reader.into_inner(), &mut io::sink()) {
        Err(e) if is_bound(&e) => return Err(bytes_limit(limits)),
        other => other.map_err(TarError::Io)?,
    };
    tree.finish()
}

fn bytes_limit(limits: Limits) -> UnpackError {
    UnpackError::Limit { what: "bytes", limit: limits.bytes }
}

/// A stream that ends in an error when it gives more than it may.
struct Bounded<R> {
    stream: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(into)?;
        self.left = self.left.checked_sub(n as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(n)
    }
}

fn is_bound(e: &io::Error) -> bool {
    // An error of the system always has a number; ours has none.
    e.kind() == io::ErrorKind::FileTooLarge && e.raw_os_error().is_none()
}
