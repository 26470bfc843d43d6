use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::{Error, Result};
use crate::session::Session;
use crate::spec::{ContainerSpec, ExecSpec, OnceSpec, SandboxSpec};
use crate::status::{ContainerEvent, ContainerStatus, Output, Sandbox, SandboxStatus, Stats};

/// Where a runtime keeps its things.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Writable layers of containers go to `containers/` below it.
    pub data_dir: PathBuf,
    /// Sockets, shims' records and network namespaces; best a tmpfs.
    pub run_dir: PathBuf,
    /// The cgroup (below each hierarchy's root) under which everything is made, e.g. `gantry`.
    pub cgroup_parent: String,
    /// The command that becomes a shim, e.g. `["/proc/self/exe", "shim"]`.
    pub shim: Vec<OsString>,
}

/// Runs sandboxes and containers; clones share one state.
///
/// Sandboxes outlive it: drop it, or end the process, and [`Runtime::open`] finds them again.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    events: broadcast::Sender<ContainerEvent>,
}

impl Runtime {
    /// Makes the directories, finds the shims that live and what the dead ones left.
    pub async fn open(_config: RuntimeConfig) -> Result<Self> {
        Ok(Self { inner: Arc::new(Inner { events: broadcast::Sender::new(4096) }) })
    }

    /// Starts a shim with the sandbox's namespaces.
    pub async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        Err(Error::NoSandbox(spec.id))
    }

    /// Ends all containers (`SIGKILL`) and the shim; what is known of them stays. Doing it twice is harmless.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        Err(Error::NoSandbox(id.to_owned()))
    }

    /// Stops the sandbox if need be, and removes all that is left of it.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        Err(Error::NoSandbox(id.to_owned()))
    }

    /// All sandboxes, by id.
    pub fn sandboxes(&self) -> Vec<SandboxStatus> {
        Vec::new()
    }

    /// Makes a container and starts it; on failure nothing of it is left.
    pub async fn start_container(&self, sandbox: &str, _spec: ContainerSpec) -> Result<ContainerStatus> {
        Err(Error::NoSandbox(sandbox.to_owned()))
    }

    /// All containers of a sandbox in the order they were made; none if there is no such sandbox.
    pub fn containers(&self, _sandbox: &str) -> Vec<ContainerStatus> {
        Vec::new()
    }

    /// One container.
    pub fn container(&self, _id: &str) -> Option<ContainerStatus> {
        None
    }

    /// What happens from now on. Whoever lags by thousands of events gets an error, and must look at all
    /// containers again.
    pub fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }

    /// Sends `signal` (the container's stop signal when absent), after `grace` `SIGKILL`, and waits for the end.
    /// Harmless when it has ended.
    pub async fn stop_container(&self, id: &str, _grace: Duration, _signal: Option<&str>) -> Result<()> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Sends a signal to the container's first process.
    pub async fn signal_container(&self, id: &str, _signal: &str) -> Result<()> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Removes an ended container and its writable layer (not its log).
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Opens the log file again after somebody has renamed it.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Runs one more process in a container.
    pub async fn exec(&self, id: &str, _spec: ExecSpec) -> Result<Session> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Runs a short command in a container and gathers what it says; it is killed when `timeout` is over.
    pub async fn exec_sync(&self, id: &str, _argv: Vec<String>, _timeout: Option<Duration>) -> Result<Output> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Joins the container's own input and output.
    pub async fn attach(&self, id: &str) -> Result<Session> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// What a container uses now.
    pub async fn stats(&self, id: &str) -> Result<Stats> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Changes the limits of a running container.
    pub async fn update_resources(&self, id: &str, _resources: crate::Resources) -> Result<()> {
        Err(Error::NoContainer(id.to_owned()))
    }

    /// Runs a command over given files and hands each piece of its output to `output`; gives the exit code.
    pub async fn run_once(
        &self,
        _spec: OnceSpec,
        _output: impl FnMut(OutputKind, &[u8]) + Send,
    ) -> Result<i32> {
        Err(Error::Start("not built yet".into()))
    }
}

/// Where a piece of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
