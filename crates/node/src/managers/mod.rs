//! The managers of a node's resources, as one (kubernetes/kubernetes, `pkg/kubelet/cm/container_manager_linux.go`):
//! devices, CPUs and memory, brought together by topology.
//!
//! A pod is admitted as a whole, one after the other: for each container the managers say from which NUMA nodes they could
//! give what it asks for, the policy decides, and each gives. What was given is written down, and given back when the pod
//! has ended.

mod asks;
mod cpusets;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Drain;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::admit::Refusal;
use crate::cdi::Cdi;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::NodeConfig;
use crate::cpu::{self, CpuError, CpuState, Options, Static};
use crate::devices::{Asker, Count, DeviceError, Devices};
use crate::edits::Edits;
use crate::error::NodeError;
use crate::memory::{self, MemoryError, MemoryState, Who};
use crate::plan::is_over;
use crate::pod_resources;
use crate::topology::{CpuSet, Hint, Machine, TopologyPolicy, TopologyScope, Wishes, decide};
use crate::worker::{Agent, uid_of};

pub(crate) use asks::{Ask, PodAsk};
pub use settings::ManagerSettings;

/// Why the managers cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Settings that do not fit each other or the machine.
    #[error("the node's resource managers cannot be set up: {0}")]
    Settings(String),
    /// What an earlier agent wrote down does not fit.
    #[error(
        "could not restore state from checkpoint: {why}, please drain this node and delete the {manager} checkpoint file {path:?} before restarting"
    )]
    State {
        /// Whose.
        manager: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A state file cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A state and the file it is in.
struct Kept<T> {
    state: Mutex<T>,
    file: Checkpoint,
}

/// What dynamic resources a container has; for the pod resources API.
pub(crate) trait Dynamic: Send + Sync {
    /// The claims' devices of a container.
    fn of(&self, uid: &str, container: &str) -> Vec<DynamicResource>;
}

/// One claim's part of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DynamicResource {
    pub(crate) claim_name: String,
    pub(crate) claim_namespace: String,
    pub(crate) devices: Vec<ClaimDevice>,
}

/// One device of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimDevice {
    /// CDI devices, by their full names.
    pub(crate) cdi: Vec<String>,
    pub(crate) driver: String,
    pub(crate) pool: String,
    pub(crate) device: String,
    pub(crate) share_id: Option<String>,
}

/// All of them.
pub(crate) struct Managers {
    machine: Arc<Machine>,
    settings: ManagerSettings,
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

impl<T: Serialize + DeserializeOwned + PartialEq> Kept<T> {
    /// Takes up what is in the file, or begins with `fresh`. Absent if there is no file and nothing to begin with.
    fn open(
        manager: &'static str,
        path: PathBuf,
        fresh: Option<T>,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> Result<Option<Self>, ManagerError> {
        let file = Checkpoint::at(path.clone());
        let wrong = |why: String| ManagerError::State { manager, path, why };
        let state = match file.load::<T>() {
            Err(error) => return Err(wrong(error.to_string())),
            Ok(Some(state)) => {
                check(&state).map_err(wrong)?;
                state
            }
            Ok(None) => match fresh {
                None => return Ok(None),
                Some(fresh) => {
                    file.save(&fresh)?;
                    fresh
                }
            },
        };
        Ok(Some(Self { state: Mutex::new(state), file }))
    }

    /// Changes the state and writes it down.
    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, CheckpointError> {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.file.save(&*state)?;
        Ok(result)
    }
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
    Managers::open(config.kubelet.managers.clone(), machine, drain.clone())
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
        let pods = self.pods.store().list();
        self.managers.keep(|uid| match pods.iter().find(|pod| uid_of(pod) == uid) {
            Some(pod) => !is_over(pod),
            None => self.runtime.sandboxes().iter().any(|sandbox| sandbox.spec.id == uid),
        });
    }
}

fn same_policy(configured: &str, saved: &str) -> Result<(), String> {
    if configured == saved {
        return Ok(());
    }
    Err(format!("configured policy {configured:?} differs from state checkpoint policy {saved:?}"))
}

impl Managers {
    /// Takes up what an earlier agent left.
    ///
    /// # Errors
    /// If the settings do not fit the machine, or what was left.
    pub(crate) fn open(
        settings: ManagerSettings,
        machine: Machine,
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
        let cpus = open_cpus(&settings, &machine)?;
        let memory = open_memory(&settings, &machine)?;
        let devices = Devices::open(settings.kubelet_dir.join("device-plugins"), machine.clone(), drain);
        Ok(Self {
            cdi: Cdi::new(settings.cdi_spec_dirs.clone()),
            machine,
            settings,
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

    /// Gives a pod what it asks for, or says why not. What an interrupted attempt left is given back first: nothing of the
    /// pod runs yet.
    ///
    /// # Errors
    /// In upstream's words; the pod has nothing then.
    pub(crate) async fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let ask = PodAsk::of(pod);
        let _turn = self.admitting.lock().await;
        self.release(&ask.uid);
        if !ask.containers.iter().any(|container| self.concerns(container)) {
            return Ok(());
        }
        let admitted = self.admit_all(&ask).await;
        if admitted.is_err() {
            self.release(&ask.uid);
        }
        admitted
    }

    fn concerns(&self, ask: &Ask) -> bool {
        (ask.cpus > 0 && self.cpus.is_some())
            || (!ask.memory.is_empty() && self.memory.is_some())
            || ask.devices.keys().any(|resource| self.devices.is_ours(resource))
    }

    async fn admit_all(&self, ask: &PodAsk) -> Result<(), Refusal> {
        let settings = &self.settings;
        let whole = match (settings.topology_manager_policy, settings.topology_manager_scope) {
            (TopologyPolicy::None, _) => Some(Hint { affinity: None, preferred: false }),
            (_, TopologyScope::Pod) => Some(self.decide(&self.pod_wishes(ask))?),
            (_, TopologyScope::Container) => None,
        };
        for (place, container) in ask.containers.iter().enumerate() {
            let ended = ask.ended(place);
            let asker = Asker { uid: &ask.uid, container: &container.name, ended: &ended };
            let hint = match whole {
                Some(hint) => hint,
                None => self.decide(&self.wishes(asker, container))?,
            };
            for (resource, count) in &container.devices {
                if self.devices.is_ours(resource) {
                    let done = self.devices.allocate(asker, resource, *count, hint.affinity).await;
                    done.map_err(|why| unexpected(&why))?;
                }
            }
            self.give_cpus(asker, container, hint)?;
            self.give_memory(asker, container, hint)?;
        }
        Ok(())
    }

    fn decide(&self, wishes: &[Wishes]) -> Result<Hint, Refusal> {
        let policy = self.settings.topology_manager_policy;
        match decide(policy, self.closest, &self.machine, wishes) {
            (hint, true) => Ok(hint),
            (_, false) => Err(Refusal {
                reason: "TopologyAffinityError".to_owned(),
                message: "Resources cannot be allocated with Topology locality".to_owned(),
            }),
        }
    }

    fn wishes(&self, asker: Asker<'_>, ask: &Ask) -> Vec<Wishes> {
        let mut wishes = vec![Wishes::new(), Wishes::new(), Wishes::new()];
        for (resource, count) in &ask.devices {
            if self.devices.is_ours(resource) {
                wishes[0].insert(resource.clone(), self.devices.hints(asker, resource, *count));
            }
        }
        if let (Some((policy, kept)), true) = (&self.cpus, ask.cpus > 0) {
            let state = kept.state.lock();
            let hints = policy.hints(&policy.available(&state), &reusable_cpus(&state, asker), ask.cpus);
            wishes[1].insert("cpu".to_owned(), Some(hints));
        }
        if let (Some(kept), false) = (&self.memory, ask.memory.is_empty()) {
            let hints = kept.state.lock().hints(who(asker), &ask.memory);
            // Nobody who has too little has a wish: giving it will say what is wrong.
            if !hints.is_empty() {
                wishes[2].insert("memory".to_owned(), Some(hints));
            }
        }
        wishes
    }

    /// The wishes for all containers together, as if they were one.
    fn pod_wishes(&self, ask: &PodAsk) -> Vec<Wishes> {
        let names = |of: fn(&Ask) -> Vec<&String>| -> BTreeSet<String> {
            ask.containers.iter().flat_map(of).cloned().collect()
        };
        let devices = names(|c| c.devices.keys().collect()).into_iter().map(|name| {
            let most = ask.most(|c| c.devices.get(&name).copied().unwrap_or(0) as u64);
            (name, most as usize)
        });
        let memory = names(|c| c.memory.keys().collect()).into_iter().map(|name| {
            let most = ask.most(|c| c.memory.get(&name).copied().unwrap_or(0));
            (name, most)
        });
        let whole = Ask {
            name: String::new(),
            role: asks::Role::Main,
            cpus: ask.most(|c| c.cpus as u64) as usize,
            memory: memory.collect(),
            devices: devices.collect(),
        };
        self.wishes(Asker { uid: &ask.uid, container: "", ended: &[] }, &whole)
    }

    fn give_cpus(&self, asker: Asker<'_>, ask: &Ask, hint: Hint) -> Result<(), Refusal> {
        let Some((policy, kept)) = self.cpus.as_ref().filter(|_| ask.cpus > 0) else { return Ok(()) };
        let given = kept.change(|state| {
            let reusable = reusable_cpus(state, asker);
            policy.allocate(state, (asker.uid, asker.container), ask.cpus, hint.affinity, &reusable)
        });
        self.cpus_changed.notify_one();
        match given.map_err(|why| unexpected(&why))? {
            Ok(_) => Ok(()),
            Err(why @ (CpuError::SplitsCore { .. } | CpuError::FewCores { .. })) => {
                Err(Refusal { reason: "SMTAlignmentError".to_owned(), message: why.to_string() })
            }
            Err(why) => Err(unexpected(&why)),
        }
    }

    fn give_memory(&self, asker: Asker<'_>, ask: &Ask, hint: Hint) -> Result<(), Refusal> {
        let Some(kept) = self.memory.as_ref().filter(|_| !ask.memory.is_empty()) else { return Ok(()) };
        let given: Result<(), MemoryError> = kept
            .change(|state| state.allocate(who(asker), &ask.memory, hint))
            .map_err(|why| unexpected(&why))?;
        given.map_err(|why| unexpected(&why))
    }

    /// Gives back what a pod had.
    pub(crate) fn release(&self, uid: &str) {
        self.devices.release(uid);
        let failed =
            |error: CheckpointError| tracing::warn!(%error, "cannot write down what a pod gave back");
        if let Some((_, kept)) = &self.cpus {
            let has = kept.state.lock().entries.contains_key(uid);
            if has {
                kept.change(|state| drop_flag(state.release(uid))).unwrap_or_else(failed);
                self.cpus_changed.notify_one();
            }
        }
        if let Some(kept) = &self.memory {
            let has = kept.state.lock().entries.contains_key(uid);
            if has {
                kept.change(|state| drop_flag(state.release(uid))).unwrap_or_else(failed);
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

/// A refusal that nobody has a name for (`pkg/kubelet/cm/admission/errors.go`).
fn unexpected(why: &dyn std::error::Error) -> Refusal {
    Refusal {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!("Allocate failed due to {why}, which is unexpected"),
    }
}

fn drop_flag(_: bool) {}

fn who(asker: Asker<'_>) -> Who<'_> {
    Who { uid: asker.uid, container: asker.container, ended: asker.ended }
}

/// The CPUs of init containers that have ended, and that nobody who runs has taken over.
fn reusable_cpus(state: &CpuState, asker: Asker<'_>) -> CpuSet {
    let Some(pod) = state.entries.get(asker.uid) else { return CpuSet::default() };
    let of = |ended: bool| {
        let wanted = pod.iter().filter(|(name, _)| asker.ended.contains(&name.as_str()) == ended);
        wanted.fold(CpuSet::default(), |all, (_, cpus)| all.or(cpus))
    };
    of(true).without(&of(false))
}

fn open_cpus(
    settings: &ManagerSettings,
    machine: &Arc<Machine>,
) -> Result<Option<(Static, Kept<CpuState>)>, ManagerError> {
    let path = settings.kubelet_dir.join("cpu_manager_state");
    let configured = settings.cpu_manager_policy.as_str();
    let policy = match configured {
        cpu::STATIC => {
            let options =
                Options::parse(&settings.cpu_manager_policy_options).map_err(ManagerError::Settings)?;
            options.check(settings.topology_manager_policy, machine).map_err(ManagerError::Settings)?;
            let (reserved, all) = (settings.reserved_system_cpus.clone(), machine.all());
            if !all.holds(&reserved) {
                return Err(ManagerError::Settings(format!(
                    "reserved CPUs {reserved} are not all CPUs of this machine, which are {all}"
                )));
            }
            Some(Static::new(machine.clone(), reserved, options))
        }
        _ => None,
    };
    let check = |state: &CpuState| {
        same_policy(configured, &state.policy_name)?;
        policy.as_ref().map_or(Ok(()), |policy| policy.check(state))
    };
    let kept = Kept::open("CPU manager", path, policy.as_ref().map(Static::fresh), check)?;
    Ok(policy.zip(kept))
}

fn open_memory(
    settings: &ManagerSettings,
    machine: &Machine,
) -> Result<Option<Kept<MemoryState>>, ManagerError> {
    let path = settings.kubelet_dir.join("memory_manager_state");
    let configured = settings.memory_manager_policy.as_str();
    let fresh = match configured {
        memory::STATIC => {
            if let Some(node) = settings.reserved_memory.keys().find(|n| !machine.nodes.contains_key(n)) {
                return Err(ManagerError::Settings(format!(
                    "memory is reserved on NUMA node {node}, which this machine does not have"
                )));
            }
            Some(MemoryState::fresh(machine, &settings.reserved_memory))
        }
        _ => None,
    };
    let binds = fresh.is_some();
    let expected = fresh.clone();
    let check = move |state: &MemoryState| {
        same_policy(configured, &state.policy_name)?;
        expected.map_or(Ok(()), |fresh| state.check(&fresh))
    };
    Ok(Kept::open("memory manager", path, fresh, check)?.filter(|_| binds))
}
