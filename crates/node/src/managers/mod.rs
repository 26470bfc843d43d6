//! The managers of a node's resources, as one (kubernetes/kubernetes, `pkg/kubelet/cm/container_manager_linux.go`):
//! devices, CPUs and memory, brought together by topology.
//!
//! A pod is admitted as a whole, one after the other: for each container the managers say from which NUMA nodes they could
//! give what it asks for, the policy decides, and each gives. What was given is written down, and given back when the pod
//! has ended.

mod admit;
mod asks;
mod cpusets;
mod dynamic;
mod kept;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use base::Drain;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::cdi::Cdi;
use crate::checkpoint::CheckpointError;
use crate::config::NodeConfig;
use crate::cpu::{self, CpuState, Static};
use crate::devices::{Asker, Count, DeviceError, Devices};
use crate::edits::Edits;
use crate::error::NodeError;
use crate::memory::{self, MemoryState};
use crate::plan::is_over;
use crate::pod_resources;
use crate::reservations::Room;
use crate::topology::{CpuSet, Machine, TopologyPolicy};
use crate::worker::{Agent, uid_of};

pub(crate) use asks::{Ask, PodAsk};
pub(crate) use dynamic::{Dynamic, DynamicResource};
pub use kept::ManagerError;
use kept::{Kept, open_cpus, open_memory};
pub use settings::ManagerSettings;

/// All of them.
pub(crate) struct Managers {
    machine: Arc<Machine>,
    settings: ManagerSettings,
    /// What the node has, and what is left to pods.
    pub(crate) room: Room,
    /// Near nodes are preferred.
    closest: bool,
    pub(crate) devices: Arc<Devices>,
    pub(crate) cdi: Cdi,
    cpus: Option<(Static, Kept<CpuState>)>,
    memory: Option<Kept<MemoryState>>,
    /// One pod at a time.
    admitting: tokio::sync::Mutex<()>,
    /// Somebody's CPUs have changed.
    pub(crate) cpus_changed: Notify,
    /// Resources that the node's status has named; those that are gone are told as zero.
    named: Mutex<BTreeSet<String>>,
    /// Who knows about dynamic resources, if anybody does.
    pub(crate) dynamic: Mutex<Option<Arc<dyn Dynamic>>>,
}

/// Takes up what an earlier agent left, on this machine.
///
/// # Errors
/// If the settings do not fit the machine, or what was left.
pub(crate) fn open(config: &NodeConfig, drain: &Drain) -> Result<Managers, ManagerError> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    let machine = Machine::read(Path::new("/sys"), kib * 1024);
    let room = Room::of(&config.kubelet, &config.data_dir).map_err(ManagerError::Reservations)?;
    Managers::open(config.kubelet.managers.clone(), machine, room, drain.clone())
}

/// Begins to serve plugins and monitors, and to keep containers on their CPUs.
pub(crate) fn start(agent: &Arc<Agent>, drain: &Drain) {
    let managers = &agent.managers;
    let folder = managers.kubelet_dir().display().to_string();
    // A node without them is better than none.
    if let Err(error) = managers.devices.serve() {
        tracing::error!(%error, folder, "device plugins cannot register");
    }
    if let Err(error) = pod_resources::serve(managers.clone(), agent.pods.clone(), drain) {
        tracing::error!(%error, folder, "nobody can ask for the resources of pods");
    }
    drain.spawn_until_started(managers.devices.clone().forget_the_missing());
    drain.spawn_until_started(agent.clone().follow_cpus());
}

impl Agent {
    /// Takes back what pods had that are over or gone. A pod that was deleted has its own until its sandbox is.
    pub(crate) fn release_ended(&self) {
        let pods = self.pods.list();
        self.managers.keep(|uid| match pods.iter().find(|pod| uid_of(pod) == uid) {
            Some(pod) => !is_over(pod),
            None => self.runtime.sandbox(uid).is_some(),
        });
    }
}

impl Managers {
    /// Takes up what an earlier agent left.
    ///
    /// # Errors
    /// If the settings do not fit the machine, or what was left.
    pub(crate) fn open(
        settings: ManagerSettings,
        machine: Machine,
        room: Room,
        drain: Drain,
    ) -> Result<Self, ManagerError> {
        settings.check().map_err(ManagerError::Settings)?;
        let machine = Arc::new(machine);
        let (closest, most) = settings.topology_options().map_err(ManagerError::Settings)?;
        if settings.topology_manager_policy != TopologyPolicy::None && machine.nodes.len() > most {
            return Err(ManagerError::Settings(format!(
                "the topology manager is unsupported on machines with more than {most} NUMA nodes"
            )));
        }
        // Also in a folder of the node's own: several may share a machine.
        let mut cdi = settings.cdi_spec_dirs.clone();
        cdi.push(settings.kubelet_dir.join("cdi"));
        let cpus = open_cpus(&settings, &machine, room.reserved.cpu_millis)?;
        let memory = open_memory(&settings, &machine, room.kept.memory)?;
        let devices = Devices::open(settings.kubelet_dir.join("device-plugins"), machine.clone(), drain);
        Ok(Self {
            cdi: Cdi::new(cdi),
            machine,
            settings,
            room,
            closest,
            devices,
            cpus,
            memory,
            admitting: tokio::sync::Mutex::default(),
            cpus_changed: Notify::new(),
            named: Mutex::default(),
            dynamic: Mutex::default(),
        })
    }

    /// The folder of sockets and state files.
    pub(crate) fn kubelet_dir(&self) -> &Path {
        &self.settings.kubelet_dir
    }

    /// Gives back what a pod had.
    pub(crate) fn release(&self, uid: &str) {
        self.devices.release(uid);
        let freed = |done: Result<bool, CheckpointError>| {
            if let Err(error) = done {
                tracing::warn!(%error, "cannot write down what a pod gave back");
            }
        };
        if let Some((_, kept)) = &self.cpus {
            let has = kept.state.lock().entries.contains_key(uid);
            if has {
                freed(kept.change(|state| state.release(uid)));
                self.cpus_changed.notify_one();
            }
        }
        if let Some(kept) = &self.memory {
            let has = kept.state.lock().entries.contains_key(uid);
            if has {
                freed(kept.change(|state| state.release(uid)));
            }
        }
    }

    /// Gives back what pods had of which `lives` says no.
    pub(crate) fn keep(&self, lives: impl Fn(&str) -> bool) {
        let mut holders: BTreeSet<String> = self.devices.holders().into_iter().collect();
        if let Some((_, kept)) = &self.cpus {
            holders.extend(kept.state.lock().entries.keys().cloned());
        }
        if let Some(kept) = &self.memory {
            holders.extend(kept.state.lock().entries.keys().cloned());
        }
        holders.iter().filter(|uid| !lives(uid)).for_each(|uid| self.release(uid));
    }

    /// What has to be done to a container that is about to start.
    ///
    /// # Errors
    /// If a plugin refuses, or a CDI device is not described.
    pub(crate) async fn edits(&self, pod: &Pod, container: &Container) -> Result<Edits, NodeError> {
        let (uid, name) = (uid_of(pod), container.name.as_str());
        let config = |why: String| NodeError::Config(why);
        self.recover(pod, name).await.map_err(|why| config(why.to_string()))?;
        let (mut edits, cdi) =
            self.devices.prepare(uid, name).await.map_err(|why| config(why.to_string()))?;
        edits.extend(self.cdi.edits(&cdi).map_err(|why| config(why.to_string()))?);
        edits.exclusive = self.exclusive_cpus(uid, name).is_some();
        edits.cpus = self.cpus_of(uid, name).map(|cpus| cpus.to_string());
        if let Some(kept) = &self.memory {
            let nodes = kept.state.lock().nodes_of(uid, name);
            edits.mems = nodes.map(|mask| mask.nodes().collect::<CpuSet>().to_string());
        }
        Ok(edits)
    }

    /// Gives a container devices that it was promised by an agent whose checkpoint is lost.
    async fn recover(&self, pod: &Pod, name: &str) -> Result<(), DeviceError> {
        let ask = PodAsk::of(pod);
        let Some(place) = ask.containers.iter().position(|c| c.name == name) else { return Ok(()) };
        let has = self.devices.of(&ask.uid, name);
        let ended = ask.ended(place);
        for (resource, count) in &ask.containers[place].devices {
            if self.devices.is_ours(resource) && !has.contains_key(resource) {
                let _turn = self.admitting.lock().await;
                let asker = Asker { uid: &ask.uid, container: name, ended: &ended };
                self.devices.allocate(asker, resource, *count, None).await?;
            }
        }
        Ok(())
    }

    /// The CPUs that a container has to itself.
    pub(crate) fn exclusive_cpus(&self, uid: &str, container: &str) -> Option<CpuSet> {
        let (_, kept) = self.cpus.as_ref()?;
        kept.state.lock().of(uid, container).cloned()
    }

    /// The CPUs that a container is to run on; absent if nobody cares.
    pub(crate) fn cpus_of(&self, uid: &str, container: &str) -> Option<CpuSet> {
        let (_, kept) = self.cpus.as_ref()?;
        let state = kept.state.lock();
        let cpus = state.of(uid, container).unwrap_or(&state.default_cpu_set);
        Some(cpus.clone()).filter(|cpus| !cpus.is_empty())
    }

    /// Why a running pod cannot become another size, if it cannot: what containers have to themselves stays what it is
    /// (`pkg/kubelet/allocation`, `canResizePod`).
    pub(crate) fn bars_resize(&self, now: &Pod, wanted: &Pod) -> Option<String> {
        if wanted.status.as_ref().and_then(|s| s.qos_class.as_deref()) != Some("Guaranteed") {
            return None;
        }
        let bars = |manager: &str, policy: &str| {
            format!(
                "Resize is infeasible for Guaranteed Pods alongside {manager} Manager policy \"{policy}\""
            )
        };
        if self.cpus.is_some() && asks::differ(now, wanted, "cpu") {
            return Some(bars("CPU", cpu::STATIC));
        }
        (self.memory.is_some() && asks::differ(now, wanted, "memory")).then(|| bars("Memory", memory::STATIC))
    }

    /// Whether containers are bound to CPUs.
    pub(crate) fn binds_cpus(&self) -> bool {
        self.cpus.is_some()
    }

    /// The memory that a container is bound to.
    pub(crate) fn memory_of(&self, uid: &str, container: &str) -> Vec<memory::Block> {
        let kept = self.memory.as_ref();
        kept.and_then(|kept| kept.state.lock().of(uid, container).cloned()).unwrap_or_default()
    }

    /// CPUs and memory that containers can have to themselves.
    pub(crate) fn allocatable(&self) -> (CpuSet, Vec<memory::Block>) {
        let cpus = self.cpus.as_ref().map(|(policy, _)| policy.allocatable()).unwrap_or_default();
        let blocks = self.memory.as_ref().map(|kept| kept.state.lock().allocatable()).unwrap_or_default();
        (cpus, blocks)
    }

    /// Resources of plugins in the node's status; those that are gone are zero.
    pub(crate) fn extended(&self) -> BTreeMap<String, Count> {
        let mut counts = self.devices.counts();
        let mut named = self.named.lock();
        named.extend(counts.keys().cloned());
        for name in named.iter() {
            counts.entry(name.clone()).or_insert(Count { capacity: 0, allocatable: 0 });
        }
        counts
    }

    /// Puts into the node's status what there is besides the machine.
    pub(crate) fn show(&self, status: &mut Value) {
        for (name, count) in self.extended() {
            status["capacity"][&name] = json!(count.capacity.to_string());
            status["allocatable"][&name] = json!(count.allocatable.to_string());
        }
    }

    /// The node as its plugins have it now, which may be ahead of its object: what is given out is never too much
    /// (`sanitizeNodeAllocatable`).
    pub(crate) fn with_devices(&self, node: &Node) -> Node {
        let mut node = node.clone();
        let all = node.status.get_or_insert_default().allocatable.get_or_insert_default();
        let mut amounts: BTreeMap<String, usize> =
            self.devices.counts().into_iter().map(|(name, count)| (name, count.allocatable)).collect();
        for (name, used) in self.devices.in_use() {
            let amount = amounts.entry(name).or_default();
            *amount = used.max(*amount);
        }
        all.extend(amounts.into_iter().map(|(name, amount)| (name, Quantity(amount.to_string()))));
        node
    }
}
