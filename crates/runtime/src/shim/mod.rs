//! The shim: the process that keeps a sandbox.
//!
//! One thread, no asynchronous runtime, as little memory as possible: there is one for each pod. It holds the
//! sandbox's namespaces by being in them, is the parent of all containers (so it learns how they end), writes
//! their logs, and answers the agent on a socket. It outlives the agent and ignores being asked to end, except by
//! the protocol.
//!
//! ```text
//! container:  Starting ──program begins──► Running ──SIGCHLD──► Ended ──Forget──► gone
//!                 └────────failure────────► gone
//! ```

mod connection;
mod container;
mod log;
mod sandbox;
mod server;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::launch::LaunchError;
use crate::protocol::BadMessage;

/// Why a shim cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("usage: shim DIRECTORY")]
    Usage,
    #[error(transparent)]
    Sys(#[from] sys::Error),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("{attempt} {path}: {source}", path = path.display())]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error("read {path}: {source}", path = path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("sysctl {0:?} does not belong to a namespace of this sandbox")]
    Sysctl(String),
    #[error(transparent)]
    Message(#[from] BadMessage),
}

/// Becomes a shim; call it before anything else starts in the process. `args` is what follows the command prefix
/// in [`RuntimeConfig::shim`](crate::RuntimeConfig::shim).
///
/// It says `ok` on its standard output when it can be connected to, or why not.
pub fn shim_main(args: Vec<OsString>) -> ! {
    sys::heap_small();
    let [dir] = args.as_slice() else { refuse(&ShimError::Usage) };
    let server = match prepare(Path::new(dir)) {
        Ok(server) => server,
        Err(error) => refuse(&error),
    };
    drop(args);
    match server.run() {
        Ok(()) => sys::exit_now(0),
        Err(error) => {
            // Standard error is the shim's own log file by now.
            let _ = writeln!(std::io::stderr(), "{error}");
            sys::exit_now(1)
        }
    }
}

fn refuse(error: &ShimError) -> ! {
    // The agent reads it; if nobody does, the exit code says it.
    let _ = writeln!(std::io::stdout(), "{error}");
    sys::exit_now(1)
}

fn prepare(dir: &Path) -> Result<server::Server, ShimError> {
    sys::close_from(3)?;
    sys::become_session_leader()?;
    sys::set_subreaper()?;
    sys::set_umask(0o022);
    std::env::set_current_dir(dir).at("enter", dir)?;
    // For whoever looks at the list of processes, and for the kernel's choice when memory runs out; both can wait.
    let _ = std::fs::write("/proc/self/comm", "gantry-shim");
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    let server = server::Server::new(sandbox::enter()?)?;
    // The agent waits for this line. One that is gone knows of no such sandbox.
    let told = writeln!(std::io::stdout(), "ok");
    told.at("tell", Path::new("the agent"))?;
    let null = File::options().read(true).write(true).open("/dev/null").at("open", Path::new("/dev/null"))?;
    let path = Path::new("shim.log");
    let log = File::options().append(true).create(true).open(path).at("open", path)?;
    sys::replace_stdio(null.as_fd(), null.as_fd(), log.as_fd())?;
    Ok(server)
}

/// Names the file of an I/O failure.
trait At<T> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T, ShimError>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T, ShimError> {
        self.map_err(|source| ShimError::File { attempt, path: path.to_owned(), source })
    }
}
