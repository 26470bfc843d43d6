//! Images from Dockerfiles.

use std::future::Future;
use std::path::PathBuf;

/// The directories of an overlay mount in which a command of a build runs.
#[derive(Clone, Debug)]
pub struct Rootfs {
    /// Read-only layers, the TOP one first, as overlayfs wants its `lowerdir`s; never empty.
    pub lower: Vec<PathBuf>,
    /// Takes what the command changes, and becomes the layer. On one file system with `work`.
    pub upper: PathBuf,
    /// For the kernel.
    pub work: PathBuf,
}

/// One `RUN` instruction, ready to be run.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// What to mount as the root of the container.
    pub rootfs: Rootfs,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `NAME=value` pairs: the stage's `ENV` and the `ARG`s that are in scope.
    pub env: Vec<String>,
    /// Working directory in the container.
    pub cwd: String,
    /// `user[:group]` as in an image configuration; root if empty.
    pub user: String,
}

/// Which stream of a command wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where the output of a command goes, piece by piece as it comes.
pub type OutputSink<'a> = &'a (dyn Fn(OutputStream, &[u8]) + Send + Sync);

/// Why a command could not be run at all.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RunError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// Runs the `RUN` instructions of a build in containers; what runs containers implements it.
pub trait RunExecutor: Send + Sync {
    /// Runs the command to its end and gives its exit code (128 plus the signal that killed it).
    ///
    /// What the container needs mounted (`/proc`, `/dev`, `/etc/resolv.conf` and so on) must not stay in
    /// `rootfs.upper`, save for empty directories `/dev`, `/proc` and `/sys`; all mounts must be gone on return.
    fn run(
        &self,
        request: RunRequest,
        output: OutputSink<'_>,
    ) -> impl Future<Output = Result<i32, RunError>> + Send;
}
