//! What of the node is not the pods', and what is left to them (kubernetes/kubernetes,
//! `pkg/kubelet/cm/node_container_manager_linux.go`).
//!
//! ```text
//! capacity ─ kubeReserved ─ systemReserved = what the pods' cgroup may use
//!                            ─ hard eviction thresholds = allocatable, as the node's status says
//! ```

mod enforce;
mod settings;

use std::path::Path;

pub use settings::ReservationSettings;

use crate::eviction::{Signal, Threshold};
use crate::settings::KubeletSettings;
use crate::stats::Host;

/// How much of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu_millis: u64,
    /// Bytes.
    pub(crate) memory: u64,
    /// Bytes.
    pub(crate) ephemeral_storage: u64,
    /// Processes and threads.
    pub(crate) pids: u64,
}

impl Amounts {
    fn each(self, other: Self, both: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            cpu_millis: both(self.cpu_millis, other.cpu_millis),
            memory: both(self.memory, other.memory),
            ephemeral_storage: both(self.ephemeral_storage, other.ephemeral_storage),
            pids: both(self.pids, other.pids),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What is left, of nothing less than nothing.
    fn without(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// What the machine has; disks are asked for the file system of `data_dir`.
    fn of_machine(data_dir: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get()) as u64;
        let host = Host::read();
        let disk = nix::sys::statvfs::statvfs(data_dir).map(|s| s.blocks() * s.fragment_size());
        Self {
            cpu_millis: cpus.saturating_mul(1000),
            memory: host.memory.total,
            // In whole KiB, as the status says it.
            ephemeral_storage: disk.unwrap_or(0) >> 10 << 10,
            pids: host.processes.1,
        }
    }
}

/// A node's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// What the machine has.
    pub(crate) capacity: Amounts,
    /// What is reserved.
    pub(crate) reserved: Amounts,
    /// That, and what hard thresholds keep back.
    pub(crate) kept: Amounts,
    /// What the pods together may use before they are stopped.
    pub(crate) pods: Amounts,
    /// What is given out.
    pub(crate) allocatable: Amounts,
}

impl Room {
    /// Those of this machine.
    ///
    /// # Errors
    /// When more is reserved than there is (`validateNodeAllocatable`), or the settings cannot be read.
    pub(crate) fn of(settings: &KubeletSettings, data_dir: &Path) -> Result<Self, String> {
        let thresholds = settings.thresholds().map_err(|fault| fault.to_string())?;
        let reserved = settings.reservations.reserved(settings.managers.reserved_system_cpus.len())?;
        Self::split(Amounts::of_machine(data_dir), reserved, &thresholds, crate::hugepages::bytes())
    }

    /// `huge` bytes of memory are set aside for huge pages.
    pub(crate) fn split(
        capacity: Amounts,
        reserved: Amounts,
        thresholds: &[Threshold],
        huge: u64,
    ) -> Result<Self, String> {
        let all = reserved.plus(eviction(thresholds, capacity));
        let mut faults = Vec::new();
        for (name, reserved, has) in [
            ("thousandths of a CPU", all.cpu_millis, capacity.cpu_millis),
            ("bytes of memory", all.memory, capacity.memory),
            ("bytes of ephemeral-storage", all.ephemeral_storage, capacity.ephemeral_storage),
        ] {
            if reserved > has {
                faults.push(format!("{reserved} {name} are reserved, and there are {has}"));
            }
        }
        if !faults.is_empty() {
            return Err(format!("invalid Node Allocatable configuration: {}", faults.join(", ")));
        }
        let huge = Amounts { memory: huge, ..Amounts::default() };
        Ok(Self {
            capacity,
            reserved,
            kept: all,
            pods: capacity.without(reserved).without(huge),
            allocatable: capacity.without(all).without(huge),
        })
    }
}

impl From<Amounts> for volumes::Allocatable {
    fn from(amounts: Amounts) -> Self {
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        Self {
            cpu_millis: signed(amounts.cpu_millis),
            memory: signed(amounts.memory),
            ephemeral_storage: signed(amounts.ephemeral_storage),
        }
    }
}

/// What hard thresholds keep back (`pkg/kubelet/cm/helpers.go`, `hardEvictionReservation`).
fn eviction(thresholds: &[Threshold], capacity: Amounts) -> Amounts {
    let mut kept = Amounts::default();
    for threshold in thresholds.iter().filter(|threshold| threshold.is_hard()) {
        match threshold.signal {
            Signal::MemoryAvailable => kept.memory = threshold.least(capacity.memory),
            Signal::NodeFsAvailable => kept.ephemeral_storage = threshold.least(capacity.ephemeral_storage),
            _ => {}
        }
    }
    kept
}

/// Bytes as a quantity.
pub(crate) fn bytes(amount: u64) -> String {
    if amount.is_multiple_of(1024) { format!("{}Ki", amount / 1024) } else { amount.to_string() }
}

/// Thousandths of a CPU as a quantity.
pub(crate) fn cpus(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: Amounts =
        Amounts { cpu_millis: 2000, memory: 4 << 30, ephemeral_storage: 100 << 30, pids: 30_000 };

    #[test]
    fn allocatable_is_what_is_neither_reserved_nor_kept_from_evictions() {
        let settings = KubeletSettings {
            eviction_hard: Some(
                [("memory.available", "100Mi"), ("nodefs.available", "10%"), ("pid.available", "5%")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..KubeletSettings::default()
        };
        let thresholds = settings.thresholds().unwrap();
        let reserved = Amounts { cpu_millis: 100, memory: 1 << 30, ephemeral_storage: 1 << 30, pids: 1000 };
        let room = Room::split(CAPACITY, reserved, &thresholds, 2 << 20).unwrap();
        let pods = Amounts {
            cpu_millis: 1900,
            memory: (3 << 30) - (2 << 20),
            ephemeral_storage: 99 << 30,
            pids: 29_000,
        };
        assert_eq!(room.pods, pods);
        let allocatable = Amounts { memory: (3 << 30) - (102 << 20), ephemeral_storage: 89 << 30, ..pods };
        assert_eq!(room.allocatable, allocatable);
        assert_eq!(bytes(allocatable.memory), "3041280Ki");
        assert_eq!((cpus(1900), cpus(3000), bytes(5)), ("1900m".into(), "3".into(), "5".into()));
    }

    #[test]
    fn more_than_there_is_cannot_be_reserved() {
        let reserved = Amounts { cpu_millis: 2001, memory: 5 << 30, ..Amounts::default() };
        let why = Room::split(CAPACITY, reserved, &[], 0).unwrap_err();
        assert!(why.contains("2001 thousandths of a CPU are reserved, and there are 2000"), "{why}");
        assert!(why.contains("5368709120 bytes of memory"), "{why}");
    }

    proptest! {
        #[test]
        fn parts_never_exceed_the_whole(cpu in 0u64..3000, memory in 0u64..(5 << 30), huge in 0u64..(5 << 30)) {
            let reserved = Amounts { cpu_millis: cpu, memory, ..Amounts::default() };
            if let Ok(room) = Room::split(CAPACITY, reserved, &[], huge) {
                prop_assert_eq!(room.allocatable, room.pods);
                prop_assert_eq!(room.pods.cpu_millis, CAPACITY.cpu_millis - cpu);
                prop_assert!(room.pods.memory <= CAPACITY.memory - memory);
            } else {
                prop_assert!(cpu > CAPACITY.cpu_millis || memory > CAPACITY.memory);
            }
        }
    }
}
