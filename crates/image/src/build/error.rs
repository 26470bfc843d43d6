use std::io;
use std::path::PathBuf;

use super::RunError;
use super::parse::ParseError;
use super::words::WordError;
use crate::archive::ImportError;
use crate::content::ContentError;
use crate::diff::DiffError;
use crate::pull::PullError;
use crate::reference::ReferenceError;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;
use crate::unpack::UnpackError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The build context or the Dockerfile cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The Dockerfile is malformed.
    #[error("Dockerfile: {0}")]
    Parse(#[from] ParseError),
    /// No stage has the name that was asked for.
    #[error("no stage {0:?} in the Dockerfile")]
    Target(String),
    /// An instruction failed.
    #[error("line {line}: {text}: {source}")]
    Step {
        /// Where it stands.
        line: usize,
        /// The instruction.
        text: String,
        /// Why it failed.
        source: Box<StepError>,
    },
    /// The image could not be put together.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why one instruction failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A variable or a quote is wrong.
    #[error(transparent)]
    Word(#[from] WordError),
    /// The name of a base image is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The base image could not be pulled.
    #[error(transparent)]
    Pull(#[from] Box<PullError>),
    /// There is no stage and no image of this name here.
    #[error("no stage or image {0:?}")]
    Source(String),
    /// A source matches nothing in the build context.
    #[error("{0:?} not found in the build context (or left out by .dockerignore)")]
    NotFound(String),
    /// A source points out of the build context.
    #[error("{0:?} is outside the build context")]
    Outside(String),
    /// Several sources, but a destination that is no directory.
    #[error("with more than one source the destination {0:?} must be a directory and end with /")]
    NotADirectory(String),
    /// A path of the image leads through something that is no directory.
    #[error("destination {0:?} leads through a file or a dangling symbolic link")]
    Destination(String),
    /// A file of a kind that is not copied.
    #[error("{} is a device node and cannot be copied", .0.display())]
    Device(PathBuf),
    /// An argument is malformed.
    #[error("invalid {what} {value:?}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A user or group that the image does not know.
    #[error("no {what} {name:?} in the image")]
    Unknown {
        /// User or group.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Something that Docker does and this does not.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The command ended with another exit code than 0.
    #[error("the command returned exit code {0}")]
    Exit(i32),
    /// The command could not be run.
    #[error("run the command: {0}")]
    Run(#[source] RunError),
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
    /// An archive could not be extracted.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// What the instruction left is no layer.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// The content store refused.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Layers of the base could not be unpacked.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The image store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest could not be stored.
    #[error(transparent)]
    Manifest(#[from] ImportError),
}

impl StepError {
    pub(super) fn io<E: Into<io::Error>>(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> StepError {
        let path = path.into();
        move |e| StepError::Io { attempt, path, source: e.into() }
    }
}
