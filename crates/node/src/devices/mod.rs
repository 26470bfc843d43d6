//! Device plugins: programs that tell of a node's devices and hand them to containers (kubernetes/kubernetes,
//! `pkg/kubelet/cm/devicemanager`).
//!
//! ```text
//! plugin ─ Register ─► kubelet.sock          agent ─ ListAndWatch ─► the plugin's own socket: devices, well or not
//!                                            a pod comes: GetPreferredAllocation, Allocate ─► written down
//!                                            a container starts: PreStartContainer, what was allocated is put in
//! ```
//!
//! A plugin whose stream ends has unwell devices; five minutes later its resource is none of the node's any more. Who has
//! which device is in a checkpoint, and outlives agent and plugins.

mod api;
#[cfg(test)]
pub(crate) mod fake;
mod plugin;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use bytes::Bytes;
use grpc::{Channel, RpcError};
use k8s_openapi::api::core::v1::{ResourceHealth, ResourceStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::edits::Edits;
use crate::topology::{Machine, Mask};

use api::{Given, PluginOptions};
pub(crate) use state::{Asker, Device, DeviceError, Ids};
use state::{Choice, DeviceState, Share};

/// As upstream names the file.
const CHECKPOINT: &str = "kubelet_internal_checkpoint";
/// A plugin that hangs must not hang the node.
const LIMIT: Duration = Duration::from_secs(60);

/// A plugin that is connected.
#[derive(Clone)]
struct Plugin {
    channel: Arc<Channel>,
    options: PluginOptions,
    /// Tells one registration of a resource from the next.
    number: u64,
}

/// All device plugins of the node.
pub(crate) struct Devices {
    /// Where the sockets are.
    folder: PathBuf,
    machine: Arc<Machine>,
    state: Mutex<DeviceState>,
    plugins: Mutex<HashMap<String, Plugin>>,
    checkpoint: Checkpoint,
    /// Counts changes of what there is.
    changes: watch::Sender<u64>,
    drain: Drain,
}

/// What the node's status says of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) capacity: usize,
    pub(crate) allocatable: usize,
}

impl Devices {
    /// Goes on from the checkpoint in `folder`. One that is corrupted is as good as none: plugins tell again what there is,
    /// but who had what is forgotten, as upstream does.
    pub(crate) fn open(folder: PathBuf, machine: Arc<Machine>, drain: Drain) -> Arc<Self> {
        let checkpoint = Checkpoint::at(folder.join(CHECKPOINT));
        let saved = checkpoint.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "going on without knowing who has which device");
            None
        });
        Arc::new(Self {
            folder,
            machine,
            state: Mutex::new(DeviceState::restored(saved.unwrap_or_default())),
            plugins: Mutex::default(),
            checkpoint,
            changes: watch::Sender::new(0),
            drain,
        })
    }

    /// News of what there is.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// What there is of each resource. Resources that are gone are not among them.
    pub(crate) fn counts(&self) -> BTreeMap<String, Count> {
        let counts = self.state.lock().counts();
        counts
            .into_iter()
            .map(|(name, (capacity, allocatable))| (name, Count { capacity, allocatable }))
            .collect()
    }

    /// How many pods have of each resource, whether its plugin is there or not.
    pub(crate) fn in_use(&self) -> BTreeMap<String, usize> {
        let state = self.state.lock();
        let names: Ids =
            state.pods.values().flat_map(|pod| pod.values()).flat_map(|c| c.keys().cloned()).collect();
        names.into_iter().map(|name| (name.clone(), state.in_use(&name).len())).collect()
    }

    /// Whether plugins have to do with a resource.
    pub(crate) fn is_ours(&self, resource: &str) -> bool {
        self.state.lock().is_ours(resource)
    }

    /// From which NUMA nodes a container's devices can be given; absent if it does not matter.
    pub(crate) fn hints(
        &self,
        asker: Asker<'_>,
        resource: &str,
        asked: usize,
    ) -> Option<Vec<crate::topology::Hint>> {
        self.state.lock().hints(&self.machine, asker, resource, asked)
    }

    /// Gives a container its devices of one resource, unless it has them.
    ///
    /// One pod at a time: the caller sees to that.
    ///
    /// # Errors
    /// If there are too few, or the plugin refuses. The container then has none of them.
    pub(crate) async fn allocate(
        &self,
        asker: Asker<'_>,
        resource: &str,
        asked: usize,
        affinity: Option<Mask>,
    ) -> Result<(), DeviceError> {
        let Some(choice) = self.state.lock().plan(asker, resource, asked, affinity)? else { return Ok(()) };
        let plugin = self.plugins.lock().get(resource).cloned();
        let plugin = plugin.ok_or_else(|| DeviceError::NoneHealthy(resource.to_owned()))?;
        let ids = choice.choose(&preferred(&plugin, &choice, asked).await?);
        let list: Vec<String> = ids.iter().cloned().collect();
        let answer = call(&plugin, "Allocate", &api::allocate(&list)).await?;
        let malformed = |why: String| DeviceError::Plugin(why);
        let first = api::first_message(&answer).map_err(|e| malformed(e.to_string()))?;
        let first = first.ok_or_else(|| malformed("no containers return in allocation response".into()))?;
        Given::read(first).map_err(|e| malformed(e.to_string()))?;
        let share = Share { ids, answer: first.to_vec() };
        self.state.lock().give(asker.uid, asker.container, resource, share);
        self.save().map_err(|e| DeviceError::Plugin(e.to_string()))
    }

    /// Gives back what a pod had.
    pub(crate) fn release(&self, uid: &str) {
        let had = self.state.lock().pods.remove(uid).is_some();
        if had && let Err(error) = self.save() {
            // It is released again when an agent begins.
            tracing::warn!(%error, "cannot write down that devices are free");
        }
    }

    /// The pods that have devices.
    pub(crate) fn holders(&self) -> Vec<String> {
        self.state.lock().pods.keys().cloned().collect()
    }

    fn save(&self) -> Result<(), crate::checkpoint::CheckpointError> {
        // Held while writing, so that what is written last is what is so.
        let state = self.state.lock();
        self.checkpoint.save(&state.saved())
    }

    /// Devices of a container, by resource.
    pub(crate) fn of(&self, uid: &str, container: &str) -> BTreeMap<String, Ids> {
        let state = self.state.lock();
        let shares = state.pods.get(uid).and_then(|pod| pod.get(container)).into_iter().flatten();
        shares.map(|(resource, share)| (resource.clone(), share.ids.clone())).collect()
    }

    /// How the devices of a container are, for its status. What no plugin tells of counts as well.
    pub(crate) fn health(&self, uid: &str, container: &str) -> Vec<ResourceStatus> {
        let state = self.state.lock();
        let shares = state.pods.get(uid).and_then(|pod| pod.get(container)).into_iter().flatten();
        let of = |(resource, share): (&String, &Share)| {
            let known = state.resources.get(resource);
            let well = |id: &String| known.and_then(|all| all.get(id)).is_none_or(|device| device.healthy);
            let one = |id: &String| ResourceHealth {
                resource_id: id.clone(),
                health: Some(if well(id) { "Healthy" } else { "Unhealthy" }.to_owned()),
                message: None,
            };
            let resources = Some(share.ids.iter().map(one).collect());
            ResourceStatus { name: resource.clone(), resources }
        };
        shares.map(of).collect()
    }

    /// All devices that are well, by resource.
    pub(crate) fn all(&self) -> BTreeMap<String, BTreeMap<String, Device>> {
        self.state.lock().resources.clone()
    }

    /// What has to be put into a container that is about to start, and its CDI devices. Plugins that want to are told.
    ///
    /// # Errors
    /// If a plugin has gone or refuses.
    pub(crate) async fn prepare(
        &self,
        uid: &str,
        container: &str,
    ) -> Result<(Edits, Vec<String>), DeviceError> {
        let shares = {
            let state = self.state.lock();
            state.pods.get(uid).and_then(|pod| pod.get(container)).cloned().unwrap_or_default()
        };
        let (mut edits, mut cdi) = (Edits::default(), Vec::new());
        for (resource, share) in shares {
            let plugin = self.plugins.lock().get(&resource).cloned();
            if let Some(plugin) = plugin.filter(|plugin| plugin.options.pre_start) {
                let ids: Vec<String> = share.ids.iter().cloned().collect();
                call(&plugin, "PreStartContainer", &api::pre_start(&ids)).await?;
            }
            let given = Given::read(&share.answer).map_err(|e| DeviceError::Plugin(e.to_string()))?;
            edits.extend(given.edits);
            cdi.extend(given.cdi);
        }
        Ok((edits, cdi))
    }
}

/// The plugin's favourites, if it has any.
async fn preferred(plugin: &Plugin, choice: &Choice, asked: usize) -> Result<Ids, DeviceError> {
    if !plugin.options.preferred || choice.needed == 0 {
        return Ok(Ids::new());
    }
    let among = if choice.within_aligned() { &choice.aligned } else { &choice.available };
    let mut must = choice.reused.clone();
    if !choice.within_aligned() {
        must.extend(choice.aligned.iter().cloned());
    }
    let available: Vec<String> = (among | &must).into_iter().collect();
    let must: Vec<String> = must.into_iter().collect();
    let answer = call(plugin, "GetPreferredAllocation", &api::preferred(&available, &must, asked)).await?;
    let ids = api::read_preferred(&answer).map_err(|e| DeviceError::Plugin(e.to_string()))?;
    Ok(ids.into_iter().collect())
}

async fn call(plugin: &Plugin, method: &str, message: &[u8]) -> Result<Bytes, DeviceError> {
    let path = format!("/v1beta1.DevicePlugin/{method}");
    plugin.channel.unary(&path, message, LIMIT).await.map_err(|e| DeviceError::Plugin(words(&e)))
}

/// What a plugin says, as Go's gRPC puts it.
fn words(error: &RpcError) -> String {
    match error {
        RpcError::Status { code, message, .. } => {
            let capital = |word: &str| {
                let mut letters = word.chars();
                letters
                    .next()
                    .map(|first| first.to_ascii_uppercase())
                    .into_iter()
                    .chain(letters)
                    .collect::<String>()
            };
            let code: String = code.to_string().split(' ').map(capital).collect();
            format!("rpc error: code = {code} desc = {message}")
        }
        other => other.to_string(),
    }
}
