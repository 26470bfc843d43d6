//! Devices that drivers prepare for the claims of pods (kubernetes/kubernetes, `pkg/kubelet/cm/dra`).
//!
//! ```text
//! socket in plugins_registry/ ─► GetInfo ─► registered ─► connected? ── no, for 30 s ──► the node's slices of the driver go
//! pod's sandbox is to be made ─► its claims ─► noted ─► NodePrepareResources ─► noted with the CDI devices
//! container starts ─► the CDI devices of the claims (and requests) that it names
//! all containers have ended ─► NodeUnprepareResources, unless another pod has the claim ─► forgotten
//! ```
//!
//! What is noted outlives the agent. A pod's end is not shown before its claims are given back: whoever waits for the
//! devices could have them otherwise while they are still in use.

mod claims;
mod error;
mod health;
mod messages;
mod plugin;
mod plugins;
mod prepare;
mod registration;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Drain};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceHealth, ResourceStatus};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use error::DraError;

use crate::cdi::Cdi;
use crate::edits::Edits;
use claims::Claims;
use plugins::Plugins;

/// Looks after the claims of a node's pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dra(Arc<Inner>);

struct Inner {
    client: Client,
    /// Where sockets of plugins appear.
    registry: PathBuf,
    plugins: Plugins,
    claims: Mutex<Claims>,
    cdi: Cdi,
    drain: Drain,
}

impl Dra {
    /// Knows what is noted below `root`, a kubelet's folder; nothing happens before [`Dra::start`]. CDI devices are looked for
    /// in `cdi`.
    ///
    /// # Errors
    /// If what is noted cannot be read: claims that nobody knows of would stay prepared for good.
    pub(crate) fn new(
        client: Client,
        node: &str,
        root: &std::path::Path,
        cdi: Cdi,
        drain: Drain,
    ) -> Result<Self, DraError> {
        let claims = Claims::load(root.join("dra_manager_state"))?;
        let plugins = Plugins::new(client.clone(), node, drain.clone());
        let registry = root.join("plugins_registry");
        Ok(Self(Arc::new(Inner { client, registry, plugins, claims: Mutex::new(claims), cdi, drain })))
    }

    /// Begins to look for plugins. Slices that drivers have left are taken away: none of the drivers can be used before
    /// it has come back, and it may not.
    pub(crate) fn start(&self) {
        self.0.plugins.wipe_all();
        let dra = self.clone();
        self.0.drain.spawn_until_started(async move { registration::follow(&dra).await });
    }

    /// Prepares what a pod's claims were given.
    ///
    /// # Errors
    /// If a claim is not the pod's, or a driver is not there or says no.
    pub(crate) async fn prepare(&self, pod: &Pod) -> Result<(), DraError> {
        prepare::prepare(&self.0, pod).await
    }

    /// What a container gets for the claims that it names.
    ///
    /// # Errors
    /// If the pod was never prepared, or what its drivers have prepared is described nowhere.
    pub(crate) fn edits(&self, pod: &Pod, container: &Container) -> Result<Edits, DraError> {
        let names = self.0.claims.lock().devices(pod, container)?;
        self.0.cdi.edits(&names).map_err(|error| DraError::Cdi(error.to_string()))
    }

    /// Gives back what a pod's claims were given, unless another pod has them too.
    ///
    /// # Errors
    /// If a driver is not there or says no; it is to be tried again.
    pub(crate) async fn unprepare(&self, uid: &str) -> Result<(), DraError> {
        prepare::unprepare(&self.0, uid).await
    }

    /// The same for a pod that is gone, however long it takes.
    pub(crate) fn unprepare_patiently(&self, uid: String) {
        let dra = self.clone();
        self.0.drain.spawn_until_started(async move {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            while let Err(error) = dra.unprepare(&uid).await {
                tracing::debug!(pod = uid, %error, "cannot give back what a pod had; will try again");
                tokio::time::sleep(backoff.fail()).await;
            }
        });
    }

    /// How the devices of a container's claims are, for its status: by claim, and by request if it names one.
    pub(crate) fn health(&self, pod: &Pod, container: &Container) -> Vec<ResourceStatus> {
        let health = self.0.plugins.health();
        let mut all = Vec::new();
        for (name, devices) in self.0.claims.lock().by_claim(pod, container) {
            let mut known = BTreeSet::new();
            let one = |(driver, device): (String, messages::PreparedDevice)| {
                let (pool, name) = (&device.pool, &device.device);
                let (is, message) = health.of(&driver, pool, name);
                let resource_id =
                    device.cdi.first().cloned().unwrap_or_else(|| format!("{driver}/{pool}/{name}"));
                ResourceHealth { resource_id, health: Some(is.to_owned()), message }
            };
            let mut resources: Vec<ResourceHealth> = devices.into_iter().map(one).collect();
            resources.retain(|resource| known.insert(resource.resource_id.clone()));
            if !resources.is_empty() {
                all.push(ResourceStatus { name, resources: Some(resources) });
            }
        }
        all
    }

    /// News of how devices are.
    pub(crate) fn health_changes(&self) -> watch::Receiver<u64> {
        self.0.plugins.health().changes()
    }

    /// When the next thing that is known of a device will not be any more.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.0.plugins.health().next_expiry()
    }

    /// The UIDs of the pods that have claims.
    pub(crate) fn users(&self) -> BTreeSet<String> {
        self.0.claims.lock().users()
    }
}

#[cfg(test)]
mod tests;
