use std::io;
use std::path::PathBuf;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id cannot be a file name.
    #[error("{what} {id:?} is not usable as a name: 1 to 128 letters, digits, '-', '_' or '.'")]
    BadId {
        /// What was to be named.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// There is no such sandbox.
    #[error("no sandbox {0:?}")]
    NoSandbox(String),
    /// There is no such container.
    #[error("no container {0:?}")]
    NoContainer(String),
    /// A sandbox of that id exists.
    #[error("sandbox {0:?} exists already")]
    SandboxExists(String),
    /// A container of that name and attempt exists.
    #[error("container {name:?} (attempt {attempt}) exists already in sandbox {sandbox:?}")]
    ContainerExists {
        /// The sandbox.
        sandbox: String,
        /// The name.
        name: String,
        /// The attempt.
        attempt: u32,
    },
    /// The sandbox was stopped or lost its shim.
    #[error("sandbox {0:?} does not run")]
    SandboxStopped(String),
    /// The container does not run.
    #[error("container {0:?} does not run")]
    NotRunning(String),
    /// Running containers cannot be removed.
    #[error("container {0:?} still runs")]
    StillRunning(String),
    /// The container or command could not be started; the text says which step failed.
    #[error("{0}")]
    Start(String),
    /// The shim said no.
    #[error("shim of sandbox {sandbox:?}: {message}")]
    Shim {
        /// The sandbox.
        sandbox: String,
        /// Its words.
        message: String,
    },
    /// The shim could not be brought up.
    #[error("start the shim of sandbox {sandbox:?}: {message}")]
    ShimStart {
        /// The sandbox.
        sandbox: String,
        /// What it left on its standard error, or how it ended.
        message: String,
    },
    /// The shim is gone.
    #[error("the shim of sandbox {0:?} is gone")]
    ShimGone(String),
    /// A signal nobody knows.
    #[error("unknown signal {0:?}")]
    BadSignal(String),
    /// Took longer than allowed.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What.
        what: String,
        /// The limit.
        limit: std::time::Duration,
    },
    /// Nobody answers in the sandbox.
    #[error("connect to localhost:{port} in the sandbox: {source}")]
    Connect {
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("{attempt} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// What lies on disk cannot be read.
    #[error("read {path}: {source}", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

impl Error {
    /// Whether the sandbox or container is not known.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoSandbox(_) | Self::NoContainer(_))
    }
}

/// The usual result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
