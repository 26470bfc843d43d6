//! Another container runtime, behind the Container Runtime Interface (kubernetes/kubernetes,
//! `pkg/kubelet/kuberuntime`, `pkg/kubelet/cri/remote`).
//!
//! The agent asks at any time what there is, without waiting. So a mirror of the runtime's sandboxes and containers is
//! kept ([`World`]): it is looked through anew every second and after each change of ours, and what differs is told as
//! events. A sandbox goes by its pod's UID, whatever the runtime calls it.

mod container;
mod error;
mod health;
mod images;
mod logs;
mod sandbox;
mod stats;
mod streams;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use cri::{Call, Message, runtime as calls};
use grpc::{Channel, Target};
use parking_lot::Mutex;
use runtime::{ContainerEvent, ContainerStatus, SandboxStatus};
use sys::cgroup::{Group, Hierarchies};
use tokio::sync::{broadcast, watch};

pub(crate) use container::Asked;
pub use error::CriError;
pub(crate) use health::{Handler, Health};
pub(crate) use sandbox::SandboxExtras;
use world::World;

use crate::settings::ContainerSettings;

/// How long a call may take that does not wait for anything (`runtimeRequestTimeout`).
const LIMIT: Duration = Duration::from_secs(120);
/// How often the runtime's containers are looked through (`genericPlegRelistPeriod`).
const RELIST: Duration = Duration::from_secs(1);
/// It is asked how it is at every so many looks (`pkg/kubelet/kubelet.go`, `updateRuntimeUp`).
const HEALTH_EVERY: u64 = 5;

/// Where a runtime is, and what it is to use.
#[derive(Clone, Debug)]
pub struct CriConfig {
    /// `unix:///run/containerd/containerd.sock`.
    pub endpoint: String,
    /// Where its images are, if elsewhere.
    pub image_endpoint: Option<String>,
    /// The cgroup, below each hierarchy's root, in which pods get theirs.
    pub cgroup_parent: String,
    /// How long a runtime that does not answer yet is waited for.
    pub patience: Duration,
}

/// A runtime that answers. Clones share one state.
#[derive(Clone)]
pub struct Cri(Arc<Inner>);

struct Inner {
    runtime: Channel,
    images: Channel,
    name: String,
    version: String,
    groups: Arc<Hierarchies>,
    parent: Group,
    world: Mutex<World>,
    /// One looks through the runtime at a time.
    looking: tokio::sync::Mutex<()>,
    events: broadcast::Sender<ContainerEvent>,
    health: watch::Sender<Health>,
}

impl Cri {
    /// Finds the runtime, and what it runs.
    ///
    /// # Errors
    /// When nobody answers in time, or it cannot be used.
    pub async fn connect(config: &CriConfig) -> Result<Self, CriError> {
        let runtime = channel(&config.endpoint)?;
        let images = channel(config.image_endpoint.as_deref().unwrap_or(&config.endpoint))?;
        let begun = tokio::time::Instant::now();
        let version = loop {
            let question = cri::VersionRequest { version: "v1".into() };
            match calls::VERSION.ask(&runtime, &question, Duration::from_secs(5)).await {
                Ok(version) => break version,
                Err(error) if begun.elapsed() >= config.patience => {
                    let endpoint = config.endpoint.clone();
                    return Err(CriError::Connect { endpoint, source: Box::new(error.into()) });
                }
                Err(error) => tracing::info!(%error, "the container runtime is waited for"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let groups = Arc::new(Hierarchies::detect()?);
        let parent = groups.group(&config.cgroup_parent);
        parent.create()?;
        parent.open_to_children()?;
        let found = Self(Arc::new(Inner {
            runtime,
            images,
            name: version.runtime_name,
            version: version.runtime_version,
            groups,
            parent,
            world: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            events: broadcast::Sender::new(4096),
            health: watch::Sender::default(),
        }));
        found.check_cgroup_driver().await?;
        found.look().await?;
        found.remove_unstarted().await;
        found.ask_health().await;
        Ok(found)
    }

    /// Keeps the mirror true, and logs short, until `drain` starts.
    pub(crate) fn follow(&self, settings: &ContainerSettings, drain: &Drain) {
        let looking = self.clone();
        drain.spawn_until_started(async move {
            for look in 1u64.. {
                tokio::time::sleep(RELIST).await;
                match looking.look().await {
                    Ok(()) if look % HEALTH_EVERY == 0 || !looking.is_well() => looking.ask_health().await,
                    Ok(()) => {}
                    Err(error) => looking.note_silence(&error),
                }
            }
        });
        let (logs, settings) = (self.clone(), settings.clone());
        drain.spawn_until_started(async move { logs.keep_logs_short(&settings).await });
    }

    /// Older runtimes do not say; whoever refuses a path of ours as a cgroup then says so itself.
    async fn check_cgroup_driver(&self) -> Result<(), CriError> {
        match self.ask(&calls::RUNTIME_CONFIG, cri::RuntimeConfigRequest {}).await {
            Ok(config) => match config.linux {
                Some(linux) if linux.cgroup_driver == cri::CgroupDriver::Systemd => {
                    Err(CriError::CgroupDriver)
                }
                _ => Ok(()),
            },
            Err(error) if error.is_unimplemented() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask<Q: Message, A: Message>(&self, call: &Call<Q, A>, question: Q) -> Result<A, CriError> {
        self.ask_within(call, question, LIMIT).await
    }

    async fn ask_within<Q: Message, A: Message>(
        &self,
        call: &Call<Q, A>,
        question: Q,
        limit: Duration,
    ) -> Result<A, CriError> {
        Ok(call.ask(&self.0.runtime, &question, limit).await?)
    }

    /// What it calls itself, such as `containerd`.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    pub(crate) fn sandboxes(&self) -> Vec<SandboxStatus> {
        self.0.world.lock().sandboxes.values().map(|place| place.status.clone()).collect()
    }

    pub(crate) fn sandbox(&self, id: &str) -> Option<SandboxStatus> {
        self.0.world.lock().sandboxes.get(id).map(|place| place.status.clone())
    }

    pub(crate) fn containers(&self, sandbox: &str) -> Vec<ContainerStatus> {
        self.0.world.lock().containers_of(sandbox)
    }

    pub(crate) fn container(&self, id: &str) -> Option<ContainerStatus> {
        self.0.world.lock().containers.get(id).cloned()
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.0.events.subscribe()
    }

    pub(crate) fn pod_ip(&self, sandbox: &str) -> Option<String> {
        self.0.world.lock().sandboxes.get(sandbox)?.ip.clone()
    }

    /// How it is, and word of changes of that.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.0.health.subscribe()
    }
}

/// `unix://` and a path, or just a path, as kubelets take it.
fn channel(endpoint: &str) -> Result<Channel, CriError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        return Err(CriError::Endpoint(endpoint.to_owned()));
    }
    Ok(Channel::new(Target::Unix(PathBuf::from(path))))
}

/// Goes on even if the caller stops waiting, so that nothing is left half done.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// What a setting names as an endpoint, if it can be one.
///
/// # Errors
/// When no runtime can be there.
pub(crate) fn check_endpoint(endpoint: &str) -> Result<(), CriError> {
    channel(endpoint).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets() {
        assert_eq!(channel("unix:///run/c.sock").unwrap().name(), "unix:///run/c.sock");
        assert_eq!(channel("/run/c.sock").unwrap().name(), "unix:///run/c.sock");
        for wrong in ["", "tcp://127.0.0.1:1", "unix://c.sock", "npipe:////./pipe/x"] {
            assert!(channel(wrong).is_err(), "{wrong}");
        }
    }
}
