//! Containers: from a description to a process, and to nothing again.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Ids, SystemClock, Timestamp};

use crate::error::{Error, Result};
use crate::launch::device_numbers;
use crate::oci;
use crate::protocol::{
    self, CONTAINERS, EXIT_FILE, LAUNCH_FILE, Launch, LogFile, OCI_STATE, Oci, Request, Running, SHM,
    STARTED_FILE, Start,
};
use crate::records::{self, At};
use crate::runtime::{Inner, Runtime, blocking, to_the_end};
use crate::sandbox::{SandboxEntry, nanos};
use crate::spec::{ContainerSpec, IpcMode, Labels, Resources};
use crate::status::{ContainerState, ContainerStatus, Exit};
use crate::time::from_nanos;

/// A container as the agent knows it: what of its description is asked for later.
pub(crate) struct ContainerEntry {
    pub(crate) id: String,
    pub(crate) created_at: Timestamp,
    pub(crate) state: ContainerState,
    name: String,
    attempt: u32,
    image: String,
    labels: Labels,
    log_path: Option<PathBuf>,
    stop_signal: Option<String>,
}

impl ContainerEntry {
    fn new(launch: &Launch) -> Self {
        let spec = &launch.spec;
        Self {
            id: launch.id.clone(),
            created_at: from_nanos(launch.created_at),
            state: ContainerState::Created,
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            log_path: spec.log_path.clone(),
            stop_signal: spec.stop_signal.clone(),
        }
    }

    /// What the records in `dir` say.
    pub(crate) fn found(launch: Launch, dir: &Path) -> Result<Self> {
        let mut entry = Self::new(&launch);
        if let Some(exit) = records::read::<Exit>(&dir.join(EXIT_FILE))? {
            entry.state = ContainerState::Exited(exit);
        } else if let Some(running) = records::read::<Running>(&dir.join(STARTED_FILE))? {
            entry.state = ContainerState::Running { pid: running.pid, started_at: from_nanos(running.at) };
        }
        Ok(entry)
    }

    pub(crate) fn status(&self, sandbox: &str) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            sandbox_id: sandbox.to_owned(),
            name: self.name.clone(),
            attempt: self.attempt,
            created_at: self.created_at,
            state: self.state.clone(),
            image: self.image.clone(),
            labels: self.labels.clone(),
            log_path: self.log_path.clone(),
        }
    }
}

/// The end of a container that nobody saw ending.
pub(crate) fn exit_of_lost(container: &ContainerEntry, why: &str) -> Exit {
    let now = SystemClock.now();
    let started_at = match container.state {
        ContainerState::Running { started_at, .. } => started_at,
        _ => now,
    };
    let lost = Some(why.to_owned());
    Exit { code: 137, signal: Some(9), oom_killed: false, started_at, finished_at: now, lost }
}

impl Runtime {
    /// Makes a container and starts it; on failure nothing of it is left, unless the shim went while it started: then it
    /// may have run, and has ended.
    pub async fn start_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<ContainerStatus> {
        let (inner, sandbox) = (self.inner.clone(), self.inner.sandbox(sandbox)?);
        to_the_end(async move { inner.start_container(&sandbox, spec).await }).await
    }

    /// Sends `signal` (the container's stop signal when absent), after `grace` `SIGKILL`, and waits for the end.
    /// Harmless when it has ended.
    pub async fn stop_container(&self, id: &str, grace: Duration, signal: Option<&str>) -> Result<()> {
        let sandbox = self.inner.sandbox_of(id)?;
        let default = {
            let state = sandbox.lock();
            state.containers.iter().find(|container| container.id == id).and_then(|c| c.stop_signal.clone())
        };
        let signal = sys::parse_signal(signal.or(default.as_deref()).unwrap_or("SIGTERM"))?;
        let ended = |sandbox: &SandboxEntry| {
            sandbox.container(id).is_none_or(|container| matches!(container.state, ContainerState::Exited(_)))
        };
        if !grace.is_zero() && !ended(&sandbox) {
            signal_in(&sandbox, id, signal, false).await?;
            if tokio::time::timeout(grace, sandbox.wait_until(ended)).await.is_ok() {
                return Ok(());
            }
        }
        if !ended(&sandbox) {
            const KILL: i32 = 9;
            const PATIENCE: Duration = Duration::from_secs(30);
            signal_in(&sandbox, id, KILL, true).await?;
            let gone = tokio::time::timeout(PATIENCE, sandbox.wait_until(ended)).await;
            gone.map_err(|_| Error::Timeout { what: format!("killing container {id}"), limit: PATIENCE })?;
        }
        Ok(())
    }

    /// Sends a signal to the container's first process.
    pub async fn signal_container(&self, id: &str, signal: &str) -> Result<()> {
        let sandbox = self.inner.sandbox_of(id)?;
        signal_in(&sandbox, id, sys::parse_signal(signal)?, false).await
    }

    /// Waits for the end of a container and tells how it ended.
    pub async fn wait_container(&self, id: &str) -> Result<Exit> {
        let sandbox = self.inner.sandbox_of(id)?;
        let exit = |sandbox: &SandboxEntry| match sandbox.container(id).map(|container| container.state) {
            Some(ContainerState::Exited(exit)) => Some(Ok(exit)),
            Some(_) => None,
            None => Some(Err(Error::NoContainer(id.to_owned()))),
        };
        sandbox.wait_until(|sandbox| exit(sandbox).is_some()).await;
        exit(&sandbox).unwrap_or_else(|| Err(Error::NoContainer(id.to_owned())))
    }

    /// Removes an ended container and its writable layer (not its log).
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let (inner, sandbox, id) = (self.inner.clone(), self.inner.sandbox_of(id)?, id.to_owned());
        to_the_end(async move { inner.remove_container(&sandbox, &id).await }).await
    }

    /// Opens the log file again after somebody has renamed it.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let client = self.inner.sandbox_of(id)?.client()?;
        client.ask(&Request::ReopenLog { id: id.to_owned() }).await.map(drop)
    }

    /// Changes the limits of a running container.
    pub async fn update_resources(&self, id: &str, resources: Resources) -> Result<()> {
        let client = self.inner.sandbox_of(id)?.client()?;
        client.ask(&Request::Update { id: id.to_owned(), resources: Box::new(resources) }).await.map(drop)
    }
}

async fn signal_in(sandbox: &SandboxEntry, id: &str, signal: i32, all: bool) -> Result<()> {
    let ended = || {
        sandbox.container(id).is_some_and(|container| matches!(container.state, ContainerState::Exited(_)))
    };
    let asked = async {
        let client = sandbox.client()?;
        client.ask(&Request::Signal { id: id.to_owned(), signal, all }).await.map(drop)
    };
    match asked.await {
        // It ended meanwhile; the shim tells of that before it refuses the signal.
        Err(Error::Shim { .. } | Error::ShimGone(_) | Error::SandboxStopped(_)) if ended() => Ok(()),
        Err(Error::ShimGone(_) | Error::SandboxStopped(_)) => {
            // The loss of the shim is being dealt with, and ends it.
            sandbox.wait_until(|_| ended()).await;
            Ok(())
        }
        result => result,
    }
}

impl Inner {
    async fn start_container(
        self: Arc<Self>,
        sandbox: &Arc<SandboxEntry>,
        spec: ContainerSpec,
    ) -> Result<ContainerStatus> {
        let client = sandbox.client()?;
        let (mut launch, mut start) = self.describe(sandbox, spec);
        let (id, keep) = (launch.id.clone(), launch.spec.keep_unstarted);
        records::check_id("container", &id)?;
        if start.hooks && sandbox.version() < protocol::HOOKS {
            let why =
                "the pod's shim is of an older version, which runs no hooks; delete the pod and make it anew";
            return Err(Error::Start(why.to_owned()));
        }
        {
            let mut state = sandbox.lock();
            let (name, attempt) = (&launch.spec.name, launch.spec.attempt);
            if state.containers.iter().any(|c| c.name == *name && c.attempt == attempt) {
                let (sandbox, name) = (sandbox.id().to_owned(), name.clone());
                return Err(Error::ContainerExists { sandbox, name, attempt });
            }
            state.containers.push(ContainerEntry::new(&launch));
        }
        let dir = sandbox.dir.join(CONTAINERS).join(&id);
        let started = async {
            start.devices = blocking(move || {
                fs::create_dir_all(&dir).at("make directory", &dir)?;
                fs::create_dir_all(&launch.writable).at("make directory", &launch.writable)?;
                let devices = devices(&launch.spec)?;
                if let Some(oci) = &mut launch.oci {
                    oci.devices.clone_from(&devices);
                }
                records::write(&dir.join(LAUNCH_FILE), &launch)?;
                Ok(devices)
            })
            .await?;
            client.ask(&Request::Start(Box::new(start))).await
        };
        if let Err(error) = started.await {
            if matches!(error, Error::ShimGone(_)) {
                // It may have begun, and what may run once only must not begin again: it counts as ended.
                sandbox.settle(&self, false).await?;
                return Err(error);
            }
            if keep && matches!(error, Error::Start(_)) {
                let exit = Exit::of_unstarted(&error.to_string(), SystemClock.now());
                let (file, record) = (sandbox.dir.join(CONTAINERS).join(&id).join(EXIT_FILE), exit.clone());
                blocking(move || records::write(&file, &record)).await?;
                let mut state = sandbox.lock();
                let kept = state.containers.iter_mut().find(|container| container.id == id);
                kept.into_iter().for_each(|container| container.state = ContainerState::Exited(exit.clone()));
                drop(state);
                sandbox.tell();
                return Err(error);
            }
            self.remove_files(sandbox, &id).await?;
            sandbox.lock().containers.retain(|container| container.id != id);
            return Err(error);
        }
        sandbox.container(&id).ok_or(Error::NoContainer(id))
    }

    /// What the new process and its shim must know.
    pub(crate) fn describe(&self, sandbox: &SandboxEntry, spec: ContainerSpec) -> (Launch, Start) {
        let id = if spec.id.is_empty() { self.ids.hex64() } else { spec.id.clone() };
        let of = &sandbox.file.spec;
        let start = Start {
            cgroup: format!("{}/{id}", sandbox.file.cgroup),
            resources: spec.resources.clone(),
            privileged: spec.privileged,
            devices: Vec::new(),
            pid: of.pid,
            pid_of: spec.pid_of.clone(),
            tty: spec.tty,
            stdin: spec.stdin,
            stdin_once: spec.stdin_once,
            log: spec.log_path.clone().map(|path| LogFile {
                path,
                max_bytes: spec.log_max_bytes,
                max_files: spec.log_max_files,
            }),
            direct: false,
            oci_runtime: of.oci_runtime.clone(),
            // An OCI runtime runs them itself.
            hooks: of.oci_runtime.is_none() && !spec.hooks.is_empty(),
            id: id.clone(),
        };
        let shm = if of.ipc == IpcMode::Host { "/dev/shm".into() } else { sandbox.dir.join(SHM) };
        let launch = Launch {
            writable: self.places.container(&id),
            id,
            created_at: nanos(SystemClock.now()),
            spec,
            network: of.network,
            ipc: of.ipc,
            hostname: of.hostname.clone(),
            shm,
            users: of.users,
            oci: of.oci_runtime.clone().map(|runtime| Oci {
                runtime,
                state: sandbox.dir.join(OCI_STATE),
                cgroup: start.cgroup.clone(),
                pid: of.pid,
                devices: Vec::new(),
            }),
        };
        (launch, start)
    }

    async fn remove_container(&self, sandbox: &Arc<SandboxEntry>, id: &str) -> Result<()> {
        match sandbox.container(id).map(|container| container.state) {
            Some(ContainerState::Exited(_)) => {}
            Some(_) => return Err(Error::StillRunning(id.to_owned())),
            None => return Err(Error::NoContainer(id.to_owned())),
        }
        if let Ok(client) = sandbox.client() {
            match client.ask(&Request::Forget { id: id.to_owned() }).await {
                Ok(_) | Err(Error::ShimGone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.remove_files(sandbox, id).await?;
        sandbox.lock().containers.retain(|container| container.id != id);
        Ok(())
    }

    pub(crate) async fn remove_files(&self, sandbox: &SandboxEntry, id: &str) -> Result<()> {
        let group = self.groups.group(&format!("{}/{id}", sandbox.file.cgroup));
        let dirs = [sandbox.dir.join(CONTAINERS).join(id), self.places.container(id)];
        let forgotten =
            sandbox.file.spec.oci_runtime.clone().map(|runtime| (runtime, sandbox.dir.join(OCI_STATE)));
        let name = id.to_owned();
        blocking(move || {
            if let Some((runtime, state)) = forgotten {
                oci::forget(&runtime, &state, &name);
            }
            group.remove(Duration::from_secs(5))?;
            dirs.iter().try_for_each(|dir| records::remove_all(dir))
        })
        .await
    }
}

/// The numbers of the devices asked for, for the cgroup.
fn devices(spec: &ContainerSpec) -> Result<Vec<(char, u32, u32, String)>> {
    let mut found = Vec::new();
    for device in &spec.devices {
        let meta = fs::metadata(&device.host_path).at("look at device", &device.host_path)?;
        let kind = if meta.file_type().is_block_device() { 'b' } else { 'c' };
        let (major, minor) = device_numbers(meta.rdev());
        let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        found.push((kind, major as u32, minor as u32, permissions.to_owned()));
    }
    Ok(found)
}
