use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::RandomIds;
use sys::cgroup::{Group, Hierarchies};
use sys::{MountAttr, MountTree};
use tokio::sync::broadcast;

use crate::error::{Error, Result};
use crate::records::{self, At, Places};
use crate::sandbox::SandboxEntry;
use crate::spec::SandboxSpec;
use crate::status::{ContainerEvent, ContainerStatus, SandboxStatus};

/// Where a runtime keeps its things.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Writable layers of containers go to `containers/` below it.
    pub data_dir: PathBuf,
    /// Sockets, shims' records and network namespaces; best a tmpfs.
    pub run_dir: PathBuf,
    /// The cgroup (below each hierarchy's root) under which everything is made, e.g. `gantry`.
    pub cgroup_parent: String,
    /// Folders below which things are mounted for single pods. The start of a container copies all mounts that it
    /// sees: it sees none of these then, nor others of the machine that it does not need. With none named it sees all.
    pub pod_mounts: Vec<PathBuf>,
    /// The command that becomes a shim, e.g. `["/proc/self/exe", "shim"]`.
    pub shim: Vec<OsString>,
}

/// Runs sandboxes and containers; clones share one state.
///
/// Sandboxes outlive it: drop it, or end the process, and [`Runtime::open`] finds them again. Its methods need a
/// Tokio runtime with I/O and time.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) places: Places,
    pub(crate) groups: Arc<Hierarchies>,
    pub(crate) parent: Group,
    pub(crate) shim: ShimProgram,
    /// The mounts that starts of containers see, if not all.
    pub(crate) few_mounts: Option<OwnedFd>,
    pub(crate) events: broadcast::Sender<ContainerEvent>,
    pub(crate) ids: RandomIds,
    sandboxes: Mutex<BTreeMap<String, Arc<SandboxEntry>>>,
}

/// What becomes a shim.
pub(crate) struct ShimProgram {
    /// A read-only mount of the program: a container that gets hold of the shim's executable (through `/proc`)
    /// cannot write to it.
    pub(crate) program: Option<MountTree>,
    pub(crate) argv: Vec<OsString>,
}

impl Runtime {
    /// Makes the directories, finds the shims that live and what the dead ones left.
    pub async fn open(config: RuntimeConfig) -> Result<Self> {
        let places = Places { data_dir: absolute(&config.data_dir)?, run_dir: absolute(&config.run_dir)? };
        for dir in [&places.containers(), &places.shims(), &places.run_dir.join("netns")] {
            fs::create_dir_all(dir).at("make directory", dir)?;
        }
        if let Err(error) = crate::load_default_apparmor_profile() {
            tracing::warn!(%error, "the kernel does not take the default AppArmor profile; containers run without");
        }
        let groups = Arc::new(Hierarchies::detect()?);
        let parent = groups.group(&config.cgroup_parent);
        parent.child(SHIMS).create_everywhere()?;
        parent.open_to_children()?;
        let few_mounts = few_mounts(&places, &config.pod_mounts)?;
        let inner = Arc::new(Inner {
            places,
            few_mounts,
            groups,
            parent,
            shim: ShimProgram::new(config.shim)?,
            events: broadcast::Sender::new(4096),
            ids: RandomIds,
            sandboxes: Mutex::default(),
        });
        let runtime = Self { inner };
        runtime.find_sandboxes().await?;
        runtime.remove_stray_layers()?;
        Ok(runtime)
    }

    async fn find_sandboxes(&self) -> Result<()> {
        let shims = self.inner.places.shims();
        for entry in fs::read_dir(&shims).at("list", &shims)? {
            let dir = entry.at("list", &shims)?.path();
            match SandboxEntry::find(&self.inner, &dir).await {
                Ok(Some(sandbox)) => self.inner.insert(sandbox),
                // It never came to be.
                Ok(None) => records::remove_all(&dir)?,
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "a sandbox's records cannot be read; left alone");
                }
            }
        }
        Ok(())
    }

    /// Writable layers of containers that no sandbox knows: the machine was restarted, and `run_dir` is new.
    fn remove_stray_layers(&self) -> Result<()> {
        let dir = self.inner.places.containers();
        let known: Vec<String> =
            self.inner.all().iter().flat_map(|sandbox| sandbox.containers()).map(|c| c.id).collect();
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let entry = entry.at("list", &dir)?;
            if !known.iter().any(|id| entry.file_name() == id.as_str()) {
                records::remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// All sandboxes, by id.
    pub fn sandboxes(&self) -> Vec<SandboxStatus> {
        self.inner.all().iter().map(|sandbox| sandbox.status()).collect()
    }

    /// The sandboxes whose specification is as it is wished.
    pub fn sandboxes_where(&self, wish: impl Fn(&SandboxSpec) -> bool) -> Vec<SandboxStatus> {
        let all = self.inner.all();
        all.iter().filter(|sandbox| wish(&sandbox.file.spec)).map(|sandbox| sandbox.status()).collect()
    }

    /// One sandbox.
    pub fn sandbox(&self, id: &str) -> Option<SandboxStatus> {
        self.inner.sandbox(id).ok().map(|sandbox| sandbox.status())
    }

    /// All containers of a sandbox in the order they were made; none if there is no such sandbox.
    pub fn containers(&self, sandbox: &str) -> Vec<ContainerStatus> {
        self.inner.sandbox(sandbox).map(|sandbox| sandbox.containers()).unwrap_or_default()
    }

    /// One container.
    pub fn container(&self, id: &str) -> Option<ContainerStatus> {
        self.inner.all().iter().find_map(|sandbox| sandbox.container(id))
    }

    /// What happens from now on. Whoever lags by thousands of events gets an error, and must look at all
    /// containers again.
    pub fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }

    /// Removes the directories and cgroups that [`Runtime::open`] made, if no sandbox is left in them.
    pub async fn close_down(&self) -> Result<()> {
        if let Some(sandbox) = self.inner.all().first() {
            return Err(Error::SandboxExists(sandbox.id().to_owned()));
        }
        let inner = self.inner.clone();
        blocking(move || {
            inner.parent.remove(std::time::Duration::from_secs(2))?;
            for dir in [inner.places.shims(), inner.places.run_dir.join("netns"), inner.places.containers()] {
                records::remove_all(&dir)?;
            }
            Ok(())
        })
        .await
    }
}

/// The cgroup of all shims, in the parent.
pub(crate) const SHIMS: &str = "shims";

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<SandboxEntry>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Arc<SandboxEntry>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<SandboxEntry>> {
        self.lock().get(id).cloned().ok_or_else(|| Error::NoSandbox(id.to_owned()))
    }

    /// The sandbox of a container.
    pub(crate) fn sandbox_of(&self, container: &str) -> Result<Arc<SandboxEntry>> {
        let all = self.all();
        let found = all.into_iter().find(|sandbox| sandbox.container(container).is_some());
        found.ok_or_else(|| Error::NoContainer(container.to_owned()))
    }

    pub(crate) fn insert(&self, sandbox: Arc<SandboxEntry>) {
        self.lock().insert(sandbox.id().to_owned(), sandbox);
    }

    /// Adds one unless there is one of that id.
    pub(crate) fn insert_new(&self, sandbox: Arc<SandboxEntry>) -> Result<()> {
        match self.lock().entry(sandbox.id().to_owned()) {
            std::collections::btree_map::Entry::Occupied(at) => Err(Error::SandboxExists(at.key().clone())),
            std::collections::btree_map::Entry::Vacant(at) => {
                at.insert(sandbox);
                Ok(())
            }
        }
    }

    pub(crate) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    pub(crate) fn emit(&self, event: ContainerEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

impl ShimProgram {
    fn new(argv: Vec<OsString>) -> Result<Self> {
        let Some(program) = argv.first().map(Path::new) else {
            return Err(Error::ShimStart { sandbox: String::new(), message: "no command configured".into() });
        };
        let read_only = || -> sys::Result<MountTree> {
            let tree = MountTree::of(program, false)?;
            tree.set(MountAttr { readonly: true, ..MountAttr::default() }, None, false)?;
            Ok(tree)
        };
        let program = match read_only() {
            Ok(tree) => Some(tree),
            Err(error) => {
                tracing::warn!(%error, "the shim's program cannot be mounted read-only; it runs as it is");
                None
            }
        };
        Ok(Self { program, argv })
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).at("find", path)
}

/// Runs what waits for the kernel or a disk away from the asynchronous threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Goes on even if the caller stops waiting, so that nothing is left half done.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A namespace with the machine's own mounts, as far as containers are made out of them, and no pod's.
///
/// What is missing in it is not kept busy by it either: whoever unmounts a disk of the machine can take it out.
fn few_mounts(places: &Places, pod_mounts: &[PathBuf]) -> Result<Option<OwnedFd>> {
    if pod_mounts.is_empty() {
        return Ok(None);
    }
    let pods: Vec<PathBuf> = pod_mounts.iter().map(|dir| absolute(dir)).collect::<Result<_>>()?;
    let pods = pods.into_iter().chain([places.shims(), places.run_dir.join("netns")]);
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let pods: Vec<PathBuf> = pods.map(real).collect();
    let ours = [real(places.data_dir.clone()), real(places.run_dir.clone())];
    let kernel = ["/proc", "/sys", "/dev"];
    let wanted = |path: &Path| {
        let is_ours = ours.iter().any(|dir| dir.starts_with(path) || path.starts_with(dir));
        let is_pods = pods.iter().any(|dir| path != dir && path.starts_with(dir));
        (is_ours && !is_pods) || kernel.iter().any(|dir| path.starts_with(dir))
    };
    Ok(Some(sys::few_mounts(wanted)?))
}
