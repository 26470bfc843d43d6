//! What the managers wrote down, and whether it still fits.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ManagerSettings;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::cpu::{self, CpuState, Options, Static};
use crate::memory::{self, MemoryState};
use crate::topology::Machine;

/// Why the managers cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Settings that do not fit each other or the machine.
    #[error("the node's resource managers cannot be set up: {0}")]
    Settings(String),
    /// Reservations that do not fit the machine.
    #[error("{0}")]
    Reservations(String),
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
pub(super) struct Kept<T> {
    pub(super) state: Mutex<T>,
    file: Checkpoint,
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
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, CheckpointError> {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.file.save(&*state)?;
        Ok(result)
    }
}

fn same_policy(configured: &str, saved: &str) -> Result<(), String> {
    if configured == saved {
        return Ok(());
    }
    Err(format!("configured policy {configured:?} differs from state checkpoint policy {saved:?}"))
}

/// `kept` is what is reserved, in thousandths of a CPU: as many whole CPUs are the system's, unless it is said which.
pub(super) fn open_cpus(
    settings: &ManagerSettings,
    machine: &Arc<Machine>,
    kept: u64,
) -> Result<Option<(Static, Kept<CpuState>)>, ManagerError> {
    let path = settings.kubelet_dir.join("cpu_manager_state");
    let configured = settings.cpu_manager_policy.as_str();
    let policy = match configured {
        cpu::STATIC => {
            let options =
                Options::parse(&settings.cpu_manager_policy_options).map_err(ManagerError::Settings)?;
            options.check(settings.topology_manager_policy, machine).map_err(ManagerError::Settings)?;
            let (mut reserved, all) = (settings.reserved_system_cpus.clone(), machine.all());
            if reserved.is_empty() {
                let count = usize::try_from(kept.div_ceil(1000)).unwrap_or(usize::MAX);
                if count == 0 {
                    return Err(ManagerError::Settings(
                        "the CPU manager's policy static needs CPUs for the system: set --reserved-cpus, or cpu in --kube-reserved or --system-reserved".into(),
                    ));
                }
                reserved = cpu::reserve(machine, count)
                    .map_err(|why| ManagerError::Settings(format!("CPUs cannot be reserved: {why}")))?;
            }
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

/// `kept` is what is kept back, in bytes: what is reserved on NUMA nodes must be that (`memory_manager.go`,
/// `validateReservedMemory`).
pub(super) fn open_memory(
    settings: &ManagerSettings,
    machine: &Machine,
    kept: u64,
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
            let sum: u64 = settings.reserved_memory.values().filter_map(|node| node.get("memory")).sum();
            if sum != kept {
                return Err(ManagerError::Settings(format!(
                    "the total amount \"{sum}\" of type \"memory\" is not equal to the value \"{kept}\" determined by Node Allocatable feature: --reserved-memory has to be what --kube-reserved, --system-reserved and the hard eviction threshold of memory.available keep back together"
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
