//! What runs the node's pods: the runtime, image store and network that are built in, or another runtime behind the
//! Container Runtime Interface. It speaks the built-in runtime's words either way, so the agent knows of no
//! difference but where only one of the two can do a thing.

mod error;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use image::ImageStore;
use network::Network;
use runtime::{
    ContainerEvent, ContainerStatus, Output, Resources, Runtime, Sandbox, SandboxSpec, SandboxStatus,
    SandboxUsage,
};
use sys::cgroup::Usage;
use tokio::sync::broadcast;

pub use error::EngineError;

use crate::cri::Cri;
use crate::stats::{Extent, Link};

/// What runs pods.
#[derive(Clone)]
pub enum Engine {
    /// Everything of our own.
    BuiltIn(BuiltIn),
    /// Another runtime, with its own images and networks.
    Cri(Cri),
}

/// Runtime, images and network of our own.
#[derive(Clone)]
pub struct BuiltIn {
    /// Runs sandboxes and containers.
    pub runtime: Runtime,
    /// Has their images.
    pub images: ImageStore,
    /// Joins sandboxes.
    pub network: Network,
}

type Result<T, E = EngineError> = std::result::Result<T, E>;

impl Engine {
    /// How the ids of its containers begin in the API, without `://`.
    pub(crate) fn scheme(&self) -> &str {
        match self {
            Self::BuiltIn(_) => "gantry",
            Self::Cri(cri) => cri.name(),
        }
    }

    /// As a node's status tells it: `gantry://1.0.0`.
    pub(crate) fn version(&self) -> String {
        match self {
            Self::BuiltIn(_) => concat!("gantry://", env!("CARGO_PKG_VERSION")).to_owned(),
            Self::Cri(cri) => format!("{}://{}", cri.name(), cri.version()),
        }
    }

    /// All sandboxes, by id.
    pub(crate) fn sandboxes(&self) -> Vec<SandboxStatus> {
        match self {
            Self::BuiltIn(own) => own.runtime.sandboxes(),
            Self::Cri(cri) => cri.sandboxes(),
        }
    }

    /// One sandbox.
    pub(crate) fn sandbox(&self, id: &str) -> Option<SandboxStatus> {
        match self {
            Self::BuiltIn(own) => own.runtime.sandbox(id),
            Self::Cri(cri) => cri.sandbox(id),
        }
    }

    /// The sandboxes whose specification is as it is wished.
    pub(crate) fn sandboxes_where(&self, wish: impl Fn(&SandboxSpec) -> bool) -> Vec<SandboxStatus> {
        match self {
            Self::BuiltIn(own) => own.runtime.sandboxes_where(wish),
            Self::Cri(cri) => cri.sandboxes().into_iter().filter(|sandbox| wish(&sandbox.spec)).collect(),
        }
    }

    /// All containers of a sandbox in the order they were made.
    pub(crate) fn containers(&self, sandbox: &str) -> Vec<ContainerStatus> {
        match self {
            Self::BuiltIn(own) => own.runtime.containers(sandbox),
            Self::Cri(cri) => cri.containers(sandbox),
        }
    }

    /// One container.
    pub(crate) fn container(&self, id: &str) -> Option<ContainerStatus> {
        match self {
            Self::BuiltIn(own) => own.runtime.container(id),
            Self::Cri(cri) => cri.container(id),
        }
    }

    /// What happens from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        match self {
            Self::BuiltIn(own) => own.runtime.events(),
            Self::Cri(cri) => cri.events(),
        }
    }

    /// The address of a sandbox that has one of its own.
    pub(crate) fn pod_ip(&self, sandbox: &str) -> Option<String> {
        match self {
            Self::BuiltIn(own) => own.network.address(sandbox).map(|ip| ip.to_string()),
            Self::Cri(cri) => cri.pod_ip(sandbox),
        }
    }

    /// Gives a sandbox's place in the network back; another runtime does that when the sandbox stops.
    pub(crate) async fn leave_network(&self, sandbox: &str) -> Result<(), network::NetworkError> {
        match self {
            Self::BuiltIn(own) => own.network.detach(sandbox).await,
            Self::Cri(_) => Ok(()),
        }
    }

    /// The same for a sandbox that has been removed, and its namespace with it.
    pub(crate) async fn free_network(&self, sandbox: &str) -> Result<(), network::NetworkError> {
        match self {
            Self::BuiltIn(own) => own.network.release(sandbox).await,
            Self::Cri(_) => Ok(()),
        }
    }

    pub(crate) async fn run_sandbox(
        &self,
        spec: SandboxSpec,
        more: impl FnOnce() -> crate::cri::SandboxExtras,
    ) -> Result<Sandbox> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.run_sandbox(spec).await?),
            Self::Cri(cri) => cri.run_sandbox(&spec, more()).await,
        }
    }

    /// Ends all that runs in a sandbox; what it left can still be read.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.stop_sandbox(id).await?),
            Self::Cri(cri) => cri.stop_sandbox(id).await,
        }
    }

    /// The same, and nothing is left.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.remove_sandbox(id).await?),
            Self::Cri(cri) => cri.remove_sandbox(id).await,
        }
    }

    /// Asks a container to end, and kills it after a while.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.stop_container(id, grace, None).await?),
            Self::Cri(cri) => cri.stop_container(id, grace).await,
        }
    }

    /// Resolves when a container has ended, or is gone.
    pub(crate) async fn wait_container(&self, id: &str) {
        match self {
            // Gone is as good as ended.
            Self::BuiltIn(own) => drop(own.runtime.wait_container(id).await),
            Self::Cri(cri) => cri.wait_container(id).await,
        }
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.remove_container(id).await?),
            Self::Cri(cri) => cri.remove_container(id).await,
        }
    }

    /// Runs a short command in a container.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        argv: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<Output> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.exec_sync(id, argv, timeout).await?),
            Self::Cri(cri) => cri.exec_sync(id, argv, timeout).await,
        }
    }

    /// Changes a container's limits while it runs.
    pub(crate) async fn update_resources(&self, id: &str, resources: Resources) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.update_resources(id, resources).await?),
            Self::Cri(cri) => cri.update_resources(id, &resources).await,
        }
    }

    /// Changes the limits on all containers of a sandbox together.
    pub(crate) async fn limit_sandbox(&self, id: &str, resources: &Resources) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.limit_sandbox(id, resources).await?),
            Self::Cri(cri) => cri.limit_sandbox(id, resources).await,
        }
    }

    /// Changes the limits on all sandboxes together.
    pub(crate) async fn limit_together(&self, resources: &Resources) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.limit_together(resources).await?),
            Self::Cri(cri) => cri.limit_together(resources).await,
        }
    }

    /// Makes a cgroup for some of the sandboxes, below that of all, and changes its limits.
    pub(crate) async fn limit_class(&self, name: &str, resources: &Resources) -> Result<()> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.limit_class(name, resources).await?),
            Self::Cri(cri) => cri.limit_class(name, resources).await,
        }
    }

    /// Changes the limits of a cgroup that is somebody else's; gives false if there is none at `path` (below the
    /// hierarchies' roots).
    pub(crate) async fn limit_cgroup(&self, path: &str, resources: &Resources) -> Result<bool> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.limit_cgroup(path, resources).await?),
            Self::Cri(cri) => cri.limit_cgroup(path, resources).await,
        }
    }

    /// What all sandboxes use now.
    pub(crate) async fn usage(&self, details: bool) -> Result<Vec<SandboxUsage>> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.usage(details).await?),
            Self::Cri(cri) => cri.usage(details).await,
        }
    }

    /// What all sandboxes use together, and what keeps them.
    pub(crate) async fn usage_together(&self) -> Result<(Usage, Usage)> {
        match self {
            Self::BuiltIn(own) => Ok(own.runtime.usage_together().await?),
            Self::Cri(cri) => cri.usage_together().await,
        }
    }

    /// The host's interfaces that lead to sandboxes, by sandbox.
    pub(crate) async fn host_interfaces(&self) -> HashMap<String, String> {
        match self {
            Self::BuiltIn(own) => {
                own.network.attached().await.into_iter().map(|a| (a.id, a.host_if)).collect()
            }
            Self::Cri(_) => HashMap::new(),
        }
    }

    /// What only another runtime itself can tell: what went through the interfaces of its sandboxes, and how much its
    /// containers have written to their root, by id.
    pub(crate) async fn told_usage(&self) -> Told {
        match self {
            Self::BuiltIn(_) => Told::default(),
            Self::Cri(cri) => cri.told_usage().await,
        }
    }

    /// Where what a container writes to its root lies, if that is known.
    pub(crate) fn writable_layer(&self, id: &str) -> PathBuf {
        match self {
            Self::BuiltIn(own) => own.runtime.writable_layer(id),
            Self::Cri(_) => PathBuf::new(),
        }
    }
}

/// See [`Engine::told_usage`].
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By sandbox.
    pub(crate) links: HashMap<String, Link>,
    /// By container.
    pub(crate) layers: HashMap<String, Extent>,
}
