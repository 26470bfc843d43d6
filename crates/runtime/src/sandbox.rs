//! Sandboxes: starting, finding again, losing and removing shims.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use base::{Clock, SystemClock, Timestamp};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::client::{self, Arrival, Client};
use crate::container::{ContainerEntry, exit_of_lost};
use crate::error::{Error, Result};
use crate::oci;
use crate::protocol::{
    self, CONTAINERS, Event, Known, Launch, OCI_STATE, PROCESS_FILE, ProcessFile, Reply, Request,
    SANDBOX_FILE, SHM, SandboxFile, ShimFile,
};
use crate::records::{self, At};
use crate::runtime::{Inner, Runtime, SHIMS, blocking, to_the_end};
use crate::spec::{NetworkMode, Resources, SandboxSpec};
use crate::status::{ContainerEvent, ContainerState, ContainerStatus, Sandbox, SandboxState, SandboxStatus};
use crate::time::from_nanos;

/// A shim that takes longer to start or end is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sandbox as the agent knows it.
pub(crate) struct SandboxEntry {
    pub(crate) file: SandboxFile,
    pub(crate) dir: PathBuf,
    state: Mutex<State>,
    /// Counts changes of containers and of the shim.
    changed: watch::Sender<u64>,
    /// What the shim speaks, which may be older than we are.
    version: AtomicU32,
}

pub(crate) struct State {
    shim: Shim,
    pub(crate) containers: Vec<ContainerEntry>,
}

enum Shim {
    Starting,
    Running {
        client: Client,
        pid: u32,
    },
    /// It was told to end.
    Ending,
    Gone,
}

impl Runtime {
    /// Starts a shim with the sandbox's namespaces.
    pub async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        let inner = self.inner.clone();
        to_the_end(async move { inner.run_sandbox(spec).await }).await
    }

    /// Ends all containers (`SIGKILL`) and the shim; what is known of them stays. Doing it twice is harmless.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let (inner, sandbox) = (self.inner.clone(), self.inner.sandbox(id)?);
        to_the_end(async move { inner.stop_sandbox(&sandbox).await }).await
    }

    /// Changes the limits on all containers of a sandbox together.
    pub async fn limit_sandbox(&self, id: &str, resources: &Resources) -> Result<()> {
        let group = self.inner.groups.group(&self.inner.sandbox(id)?.file.cgroup);
        let limits = resources.limits();
        blocking(move || Ok(group.limit(&limits)?)).await
    }

    /// Changes the limits on all sandboxes, and all that keeps them, together.
    pub async fn limit_together(&self, resources: &Resources) -> Result<()> {
        let (inner, limits) = (self.inner.clone(), resources.limits());
        blocking(move || Ok(inner.parent.limit(&limits)?)).await
    }

    /// Makes a cgroup for some of the sandboxes, below that of all, and changes its limits. Theirs are those whose
    /// `cgroup_path` begins with `name`.
    pub async fn limit_class(&self, name: &str, resources: &Resources) -> Result<()> {
        let (group, limits) = (self.inner.parent.child(name), resources.limits());
        blocking(move || {
            group.create()?;
            group.open_to_children()?;
            Ok(group.limit(&limits)?)
        })
        .await
    }

    /// Changes the limits of a cgroup that is somebody else's; gives false if there is none at `path` (below the
    /// hierarchies' roots).
    pub async fn limit_cgroup(&self, path: &str, resources: &Resources) -> Result<bool> {
        let (group, limits) = (self.inner.groups.group(path), resources.limits());
        blocking(move || {
            let exists = group.exists();
            if exists {
                group.limit(&limits)?;
            }
            Ok(exists)
        })
        .await
    }

    /// Stops the sandbox if need be, and removes all that is left of it.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let (inner, sandbox) = (self.inner.clone(), self.inner.sandbox(id)?);
        to_the_end(async move {
            inner.stop_sandbox(&sandbox).await?;
            inner.remove_remains(&sandbox).await?;
            inner.forget(sandbox.id());
            Ok(())
        })
        .await
    }
}

impl Inner {
    async fn run_sandbox(self: Arc<Self>, spec: SandboxSpec) -> Result<Sandbox> {
        records::check_id("sandbox", &spec.id)?;
        let below = if spec.cgroup_path.is_empty() {
            format!("sandbox-{}", spec.id)
        } else {
            spec.cgroup_path.clone()
        };
        let file = SandboxFile {
            created_at: nanos(SystemClock.now()),
            cgroup: match below.strip_prefix('/') {
                Some(elsewhere) => self.groups.group(elsewhere).path().to_owned(),
                None => self.parent.child(&below).path().to_owned(),
            },
            shim_cgroup: self.parent.child(SHIMS).path().to_owned(),
            netns: (spec.network == NetworkMode::Own).then(|| self.places.netns(&spec.id)),
            spec: Arc::new(spec),
        };
        let dir = self.places.shim(&file.spec.id);
        let sandbox = Arc::new(SandboxEntry::new(file, dir, Shim::Starting, Vec::new()));
        self.insert_new(sandbox.clone())?;
        let result = self.bring_up(&sandbox).await;
        if let Err(error) = result {
            sandbox.lock().shim = Shim::Gone;
            if let Err(error) = self.remove_remains(&sandbox).await {
                tracing::warn!(sandbox = sandbox.id(), %error, "a failed sandbox left something behind");
            }
            self.forget(sandbox.id());
            return Err(error);
        }
        let shim_pid = sandbox.status().shim_pid.unwrap_or(0);
        Ok(Sandbox { id: sandbox.id().to_owned(), shim_pid, netns: sandbox.file.netns.clone() })
    }

    async fn bring_up(self: &Arc<Self>, sandbox: &Arc<SandboxEntry>) -> Result<()> {
        let group = self.groups.group(&sandbox.file.cgroup);
        let (prepared, groups) = (sandbox.clone(), self.groups.clone());
        let few_mounts = self.few_mounts.as_ref();
        let few_mounts = few_mounts.map(|fd| format!("/proc/{}/fd/{}", sys::pid(), fd.as_raw_fd()).into());
        blocking(move || {
            let containers = prepared.dir.join(CONTAINERS);
            fs::create_dir_all(&containers).at("make directory", &containers)?;
            let file = ShimFile { sandbox: &prepared.file, hierarchies: &*groups, few_mounts };
            records::write(&prepared.dir.join(SANDBOX_FILE), &file)?;
            group.create()?;
            group.open_to_children()?;
            Ok(group.limit(&prepared.file.spec.resources.limits())?)
        })
        .await?;
        self.spawn_shim(sandbox).await?;
        sandbox.connect(self).await.map(drop)
    }

    async fn spawn_shim(&self, sandbox: &SandboxEntry) -> Result<()> {
        let failed = |message: String| Error::ShimStart { sandbox: sandbox.id().to_owned(), message };
        let (Some(name), program) = (self.shim.argv.first(), self.shim.program.as_ref()) else {
            return Err(failed("no command configured".into()));
        };
        let program = match program {
            Some(tree) => PathBuf::from(format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd())),
            None => PathBuf::from(name),
        };
        // No working directory is asked for (the shim enters its own): the standard library then starts the program
        // without a copy of this process's page tables, which costs more than all else of a start.
        let mut child = tokio::process::Command::new(&program)
            .arg0(name)
            .args(&self.shim.argv[1..])
            .arg(&sandbox.dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(4096);
            tokio::pin!(read);
            match tokio::time::timeout(PATIENCE, read.read_to_string(&mut said)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => said = error.to_string(),
                Err(_) => said = format!("nothing heard from it in {PATIENCE:?}"),
            }
        }
        if said != "ok\n" {
            // It may hang; it must not come up later. If it has ended by itself, there is nothing to kill.
            let _ = child.start_kill();
            let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
            let said = said.trim();
            return Err(failed(if said.is_empty() { status.to_string() } else { said.to_owned() }));
        }
        // While this process lives it is the shim's parent, and must take note of its end.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    async fn stop_sandbox(self: &Arc<Self>, sandbox: &Arc<SandboxEntry>) -> Result<()> {
        let client = sandbox.begin_ending();
        if let Some(client) = client {
            match tokio::time::timeout(PATIENCE, client.ask(&Request::Shutdown)).await {
                Ok(Ok(_) | Err(Error::ShimGone(_))) => {}
                Ok(Err(error)) => {
                    tracing::warn!(sandbox = sandbox.id(), %error, "the shim does not end; it is killed")
                }
                Err(_) => {
                    tracing::warn!(sandbox = sandbox.id(), "the shim does not end in time; it is killed")
                }
            }
        }
        sandbox.settle(self, true).await?;
        let stopped = sandbox.clone();
        blocking(move || {
            sys::detach(&stopped.dir.join(SHM))?;
            if let Some(netns) = &stopped.file.netns {
                sys::detach(netns)?;
                match fs::remove_file(netns) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(error).at("remove", netns)?
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes away what was described but never ran, so that it can be started after all.
    async fn forget_unbegun(&self, sandbox: &Arc<SandboxEntry>, id: &str) {
        if let Err(error) = self.remove_files(sandbox, id).await {
            tracing::warn!(container = id, %error, "cannot clear away what never began");
            return;
        }
        let mut exit = None;
        sandbox.lock().containers.retain(|container| {
            let other = container.id != id;
            exit =
                if other { exit.take() } else { Some(exit_of_lost(container, "its start was interrupted")) };
            other
        });
        sandbox.changed.send_modify(|count| *count += 1);
        if let Some(exit) = exit {
            // Whoever looks after the sandbox looks again.
            self.emit(ContainerEvent::Exited {
                sandbox_id: sandbox.id().to_owned(),
                id: id.to_owned(),
                exit,
            });
        }
    }

    /// Removes files and cgroups of a sandbox whose shim is gone.
    async fn remove_remains(&self, sandbox: &Arc<SandboxEntry>) -> Result<()> {
        let group = self.groups.group(&sandbox.file.cgroup);
        let layers: Vec<PathBuf> =
            sandbox.containers().iter().map(|container| self.places.container(&container.id)).collect();
        let dir = sandbox.dir.clone();
        let netns = sandbox.file.netns.clone();
        let runtime = sandbox.file.spec.oci_runtime.clone();
        blocking(move || {
            if let Some(runtime) = runtime {
                oci::forget_all(&runtime, &dir.join(OCI_STATE));
            }
            sys::detach(&dir.join(SHM))?;
            if let Some(netns) = netns {
                sys::detach(&netns)?;
                // Absent is fine.
                let _ = fs::remove_file(&netns);
            }
            group.remove(Duration::from_secs(5))?;
            layers.iter().try_for_each(|layer| records::remove_all(layer))?;
            records::remove_all(&dir)
        })
        .await
    }
}

impl SandboxEntry {
    fn new(file: SandboxFile, dir: PathBuf, shim: Shim, containers: Vec<ContainerEntry>) -> Self {
        let state = Mutex::new(State { shim, containers });
        Self { file, dir, state, changed: watch::Sender::new(0), version: AtomicU32::new(0) }
    }

    /// Reads the records in `dir` and connects to the shim, if it lives. `None` if there are no records.
    pub(crate) async fn find(inner: &Arc<Inner>, dir: &Path) -> Result<Option<Arc<Self>>> {
        let Some(file) = records::read::<SandboxFile>(&dir.join(SANDBOX_FILE))? else { return Ok(None) };
        let mut containers = Vec::new();
        let list = dir.join(CONTAINERS);
        for entry in fs::read_dir(&list).at("list", &list)? {
            let path = entry.at("list", &list)?.path();
            match records::read::<Launch>(&path.join(protocol::LAUNCH_FILE))? {
                Some(launch) => containers.push(ContainerEntry::found(launch, &path)?),
                None => records::remove_all(&path)?,
            }
        }
        containers.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.id.cmp(&b.id)));
        let sandbox = Arc::new(Self::new(file, dir.to_owned(), Shim::Gone, containers));
        match sandbox.connect(inner).await {
            Ok(known) => {
                for id in sandbox.learn(&known) {
                    inner.forget_unbegun(&sandbox, &id).await;
                }
            }
            Err(error) => {
                tracing::warn!(sandbox = sandbox.id(), %error, "the shim does not answer");
                sandbox.settle(inner, false).await?;
            }
        }
        Ok(Some(sandbox))
    }

    /// Connects to the shim and listens to it from then on.
    async fn connect(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<Vec<Known>> {
        let stream = client::connect(&self.dir).await?;
        let (weak, owner) = (Arc::downgrade(self), Arc::downgrade(inner));
        let client = Client::new(self.id(), stream, move |arrival| arrive(&weak, &owner, &arrival));
        let hello =
            tokio::time::timeout(PATIENCE, client.ask(&Request::Hello { version: protocol::VERSION }));
        let reply = hello
            .await
            .map_err(|_| Error::Timeout { what: "greeting the shim".into(), limit: PATIENCE })??;
        let Reply::Hello { version, pid, containers } = reply else {
            return Err(Error::Shim { sandbox: self.id().to_owned(), message: "it does not greet".into() });
        };
        tracing::debug!(sandbox = self.id(), version, pid, "connected to the shim");
        self.version.store(version, Ordering::Relaxed);
        self.lock().shim = Shim::Running { client, pid };
        Ok(containers)
    }

    /// The version of the protocol that the shim speaks.
    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    pub(crate) fn id(&self) -> &str {
        &self.file.spec.id
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to the shim of a sandbox that runs.
    pub(crate) fn client(&self) -> Result<Client> {
        match &self.lock().shim {
            Shim::Running { client, .. } => Ok(client.clone()),
            _ => Err(Error::SandboxStopped(self.id().to_owned())),
        }
    }

    pub(crate) fn status(&self) -> SandboxStatus {
        let shim_pid = match self.lock().shim {
            Shim::Running { pid, .. } => Some(pid),
            _ => None,
        };
        SandboxStatus {
            spec: self.file.spec.clone(),
            state: if shim_pid.is_some() { SandboxState::Ready } else { SandboxState::Stopped },
            created_at: from_nanos(self.file.created_at),
            netns: self.file.netns.clone(),
            shim_pid,
        }
    }

    pub(crate) fn containers(&self) -> Vec<ContainerStatus> {
        self.lock().containers.iter().map(|container| container.status(self.id())).collect()
    }

    pub(crate) fn container(&self, id: &str) -> Option<ContainerStatus> {
        let state = self.lock();
        state
            .containers
            .iter()
            .find(|container| container.id == id)
            .map(|container| container.status(self.id()))
    }

    /// Changes a container, if it is known, and wakes whoever waits for changes. True if it was changed.
    pub(crate) fn update(&self, id: &str, change: impl FnOnce(&mut ContainerEntry) -> bool) -> bool {
        let mut state = self.lock();
        let changed = state.containers.iter_mut().find(|container| container.id == id).is_some_and(change);
        drop(state);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        changed
    }

    /// Waits until `is` holds.
    pub(crate) async fn wait_until(&self, is: impl Fn(&Self) -> bool) {
        let mut changes = self.changed.subscribe();
        while !is(self) {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Tells whoever waits for a change that there has been one.
    pub(crate) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Takes what the shim says of its containers for true. Gives those that never began: whoever was to start them
    /// was killed before he could ask for it.
    fn learn(&self, known: &[Known]) -> Vec<String> {
        let mut unbegun = Vec::new();
        for container in &mut self.lock().containers {
            if matches!(container.state, ContainerState::Exited(_)) {
                // An end is final, and may have been heard after the answer was written.
                continue;
            }
            container.state = match known.iter().find(|known| known.id == container.id) {
                Some(Known { exit: Some(exit), .. }) => ContainerState::Exited(exit.clone()),
                Some(Known { running: Some(running), .. }) => {
                    ContainerState::Running { pid: running.pid, started_at: from_nanos(running.at) }
                }
                Some(_) => ContainerState::Created,
                // Ended and forgotten, or never begun.
                None => {
                    if matches!(container.state, ContainerState::Created) {
                        unbegun.push(container.id.clone());
                    }
                    ContainerState::Exited(exit_of_lost(container, "its start was interrupted"))
                }
            };
        }
        unbegun
    }

    fn begin_ending(&self) -> Option<Client> {
        let mut state = self.lock();
        match std::mem::replace(&mut state.shim, Shim::Ending) {
            Shim::Running { client, .. } => Some(client),
            Shim::Gone => {
                state.shim = Shim::Gone;
                None
            }
            Shim::Starting | Shim::Ending => None,
        }
    }

    /// Makes sure that neither shim nor containers live, and records how they ended. `told` is whether the shim was
    /// told to end.
    pub(crate) async fn settle(self: &Arc<Self>, inner: &Arc<Inner>, told: bool) -> Result<()> {
        let group = inner.groups.group(&self.file.cgroup);
        let process = self.dir.join(PROCESS_FILE);
        let left = blocking(move || {
            if let Some(shim) = records::read::<ProcessFile>(&process)? {
                end_process(shim)?;
            }
            Ok(group.kill_all(Duration::from_secs(5)))
        })
        .await?;
        if !left {
            tracing::warn!(sandbox = self.id(), "processes of the sandbox cannot be killed");
        }
        let why = if told { "its sandbox was stopped" } else { "its shim ended" };
        let mut ended = Vec::new();
        {
            let mut state = self.lock();
            state.shim = Shim::Gone;
            for container in &mut state.containers {
                if matches!(container.state, ContainerState::Exited(_)) {
                    continue;
                }
                let path = self.dir.join(CONTAINERS).join(&container.id).join(protocol::EXIT_FILE);
                let exit = records::read(&path)?.unwrap_or_else(|| exit_of_lost(container, why));
                container.state = ContainerState::Exited(exit.clone());
                ended.push((container.id.clone(), exit));
            }
        }
        self.changed.send_modify(|count| *count += 1);
        for (id, exit) in ended {
            inner.emit(ContainerEvent::Exited { sandbox_id: self.id().to_owned(), id, exit });
        }
        Ok(())
    }
}

/// What the shim says, in the order it says it.
fn arrive(sandbox: &Weak<SandboxEntry>, inner: &Weak<Inner>, arrival: &Arrival<'_>) {
    let (Some(sandbox), Some(inner)) = (sandbox.upgrade(), inner.upgrade()) else { return };
    let sandbox_id = sandbox.id().to_owned();
    match arrival {
        Arrival::Reply(Reply::Started { id, pid, at }) => {
            let running = ContainerState::Running { pid: *pid, started_at: from_nanos(*at) };
            if sandbox.update(id, |container| {
                container.state = running;
                true
            }) {
                inner.emit(ContainerEvent::Started { sandbox_id, id: id.clone() });
            }
        }
        Arrival::Reply(Reply::Event(Event::Exited { id, exit })) => {
            if sandbox.update(id, |container| {
                let first = !matches!(container.state, ContainerState::Exited(_));
                container.state = ContainerState::Exited(exit.clone());
                first
            }) {
                inner.emit(ContainerEvent::Exited { sandbox_id, id: id.clone(), exit: exit.clone() });
            }
        }
        Arrival::Reply(Reply::Event(Event::NotStarted { id, message })) => {
            tracing::warn!(sandbox = sandbox_id, container = id, message, "an interrupted start has failed");
            let (sandbox, id) = (sandbox.clone(), id.clone());
            tokio::spawn(async move { inner.forget_unbegun(&sandbox, &id).await });
        }
        Arrival::Reply(_) => {}
        Arrival::Closed => {
            let lost = matches!(sandbox.lock().shim, Shim::Running { .. });
            if lost {
                tracing::warn!(sandbox = sandbox_id, "the shim is gone");
                sandbox.lock().shim = Shim::Ending;
                tokio::spawn(async move {
                    if let Err(error) = sandbox.settle(&inner, false).await {
                        tracing::error!(sandbox = sandbox.id(), %error, "a lost sandbox cannot be settled");
                    }
                    inner.emit(ContainerEvent::SandboxLost { sandbox_id: sandbox.id().to_owned() });
                });
            }
        }
    }
}

/// Makes sure that a shim has ended.
fn end_process(shim: ProcessFile) -> Result<()> {
    // The handle first, the look at its start time second: then the handle is that process or useless.
    let Some(pidfd) = sys::pidfd_open(shim.pid)? else { return Ok(()) };
    if sys::process_start(shim.pid) != Some(shim.start) {
        return Ok(());
    }
    if !sys::wait_pidfd(pidfd.as_fd(), Duration::from_secs(1))? {
        sys::kill_pidfd(pidfd.as_fd(), KILL)?;
        sys::wait_pidfd(pidfd.as_fd(), Duration::from_secs(5))?;
    }
    Ok(())
}

const KILL: i32 = 9;

pub(crate) fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Running;
    use crate::spec::{ContainerSpec, IpcMode};

    #[test]
    fn an_end_that_was_heard_is_not_unheard() {
        let dir = tempfile::tempdir().unwrap();
        let launch = Launch {
            id: "c".into(),
            created_at: 0,
            spec: ContainerSpec::default(),
            network: NetworkMode::Own,
            ipc: IpcMode::Own,
            hostname: String::new(),
            writable: PathBuf::new(),
            shm: PathBuf::new(),
            users: None,
            oci: None,
        };
        let file = SandboxFile {
            spec: Arc::default(),
            created_at: 0,
            cgroup: String::new(),
            shim_cgroup: String::new(),
            netns: None,
        };
        let container = ContainerEntry::found(launch, dir.path()).unwrap();
        let sandbox = SandboxEntry::new(file, dir.path().to_owned(), Shim::Gone, vec![container]);
        let runs = Known { id: "c".into(), running: Some(Running { pid: 1, at: 0 }), exit: None };
        let state = || sandbox.container("c").unwrap().state;
        assert!(sandbox.learn(std::slice::from_ref(&runs)).is_empty());
        assert!(matches!(state(), ContainerState::Running { .. }));
        let exit = exit_of_lost(&sandbox.lock().containers[0], "it was killed");
        sandbox.lock().containers[0].state = ContainerState::Exited(exit);
        // The shim had answered before, and its answer is taken up after.
        sandbox.learn(&[runs]);
        assert!(matches!(state(), ContainerState::Exited(_)));
    }
}
