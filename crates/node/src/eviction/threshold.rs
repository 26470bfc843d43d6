use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use types::Quantity;

/// What is watched (kubernetes/kubernetes, `pkg/kubelet/eviction/api/types.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// The machine's memory.
    MemoryAvailable,
    /// What the pods together may still use; it follows the machine's, and no setting names it.
    AllocatableMemoryAvailable,
    /// The file system of volumes and logs.
    NodeFsAvailable,
    /// Its inodes.
    NodeFsInodesFree,
    /// The file system of images.
    ImageFsAvailable,
    /// Its inodes.
    ImageFsInodesFree,
    /// The file system of containers' writable layers.
    ContainerFsAvailable,
    /// Its inodes.
    ContainerFsInodesFree,
    /// Process ids.
    PidAvailable,
}

const SIGNALS: [(Signal, &str); 8] = [
    (Signal::MemoryAvailable, "memory.available"),
    (Signal::NodeFsAvailable, "nodefs.available"),
    (Signal::NodeFsInodesFree, "nodefs.inodesFree"),
    (Signal::ImageFsAvailable, "imagefs.available"),
    (Signal::ImageFsInodesFree, "imagefs.inodesFree"),
    (Signal::ContainerFsAvailable, "containerfs.available"),
    (Signal::ContainerFsInodesFree, "containerfs.inodesFree"),
    (Signal::PidAvailable, "pid.available"),
];

/// What pods are sent away for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        })
    }
}

/// A condition of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    Memory,
    Disk,
    Pid,
}

impl Pressure {
    /// As the condition is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

impl Signal {
    /// As settings call it.
    pub fn name(self) -> &'static str {
        SIGNALS
            .iter()
            .find(|(signal, _)| *signal == self)
            .map_or("allocatableMemory.available", |(_, name)| name)
    }

    pub(crate) fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Resource::Memory,
            Self::PidAvailable => Resource::Pids,
            Self::NodeFsInodesFree | Self::ImageFsInodesFree | Self::ContainerFsInodesFree => {
                Resource::Inodes
            }
            _ => Resource::EphemeralStorage,
        }
    }
}

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No such thing is watched.
    #[error("unsupported eviction signal {0:?}; there are {known}", known = SIGNALS.map(|(_, name)| name).join(", "))]
    Signal(String),
    /// Neither an amount nor a percentage.
    #[error(
        "eviction threshold {signal} has the value {value:?}; give an amount such as 100Mi, or a percentage such as 10%"
    )]
    Value {
        /// Of which.
        signal: String,
        /// As given.
        value: String,
    },
    /// Soft ones need it.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGrace(&'static str),
    /// Not `1m30s` or the like.
    #[error(
        "the grace period {value:?} of eviction threshold {signal} is no duration; give one such as 1m30s"
    )]
    Grace {
        /// Of which.
        signal: String,
        /// As given.
        value: String,
    },
    /// Not of the form `signal<value`.
    #[error("eviction threshold {0:?} is not of the form signal<value, such as memory.available<100Mi")]
    Form(String),
}

impl FromStr for Signal {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let found = SIGNALS.iter().find(|(_, name)| *name == text);
        found.map(|(signal, _)| *signal).ok_or_else(|| ThresholdError::Signal(text.to_owned()))
    }
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So much.
    Absolute(u64),
    /// Such a part of all there is.
    Percent(f64),
}

impl Amount {
    /// So much when there is `capacity` in all.
    pub(crate) fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount,
            // Capacities are far below what a double counts exactly.
            Self::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }

    fn parse(signal: &str, value: &str) -> Result<Option<Self>, ThresholdError> {
        let wrong = || ThresholdError::Value { signal: signal.to_owned(), value: value.to_owned() };
        match value.strip_suffix('%') {
            // These turn a threshold off (`parseThresholdStatement`).
            Some("0" | "100") => Ok(None),
            Some(percent) => match percent.parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(Some(Self::Percent(percent))),
                _ => Err(wrong()),
            },
            None => {
                let units = value.parse::<Quantity>().map_err(|_| wrong())?.units();
                u64::try_from(units).map(|units| Some(Self::Absolute(units))).map_err(|_| wrong())
            }
        }
    }
}

/// When too little of something is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// Less than this is too little.
    pub value: Amount,
    /// And never more than so much is asked for: the built-in parts of a large disk would be far more than a node
    /// needs.
    pub most: Option<u64>,
    /// How long it may be so before pods must go.
    pub grace: Duration,
    /// How much more must be left before it is enough again.
    pub reclaim: Option<Amount>,
}

impl Threshold {
    /// What must be left of `capacity`.
    pub(crate) fn least(&self, capacity: u64) -> u64 {
        let value = self.value.of(capacity);
        self.most.map_or(value, |most| value.min(most))
    }

    pub(crate) fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

/// Upstream's own (`pkg/kubelet/apis/config/v1beta1/defaults_linux.go`, `DefaultEvictionHard`).
const DEFAULTS: [(Signal, Amount); 4] = [
    (Signal::MemoryAvailable, Amount::Absolute(100 << 20)),
    (Signal::NodeFsAvailable, Amount::Percent(10.0)),
    (Signal::NodeFsInodesFree, Amount::Percent(5.0)),
    (Signal::ImageFsAvailable, Amount::Percent(15.0)),
];
/// A tenth of a disk of a terabyte is not what a node needs to go on.
const MOST_OF_DISK: u64 = 5 << 30;

/// The thresholds that hold when nothing is said.
pub(crate) fn defaults() -> Vec<Threshold> {
    let threshold = |(signal, value): (Signal, Amount)| {
        let bytes = signal.resource() == Resource::EphemeralStorage;
        let most = bytes.then_some(MOST_OF_DISK);
        Threshold { signal, value, most, grace: Duration::ZERO, reclaim: None }
    };
    DEFAULTS.map(threshold).into()
}

/// The same in the words of settings.
pub(crate) fn default_texts() -> BTreeMap<String, String> {
    let texts = ["100Mi", "10%", "5%", "15%"];
    DEFAULTS
        .iter()
        .zip(texts)
        .map(|((signal, _), text)| (signal.name().to_owned(), text.to_owned()))
        .collect()
}

/// The same for what the pods together may use as for the machine's memory, hard ones only
/// (`pkg/kubelet/eviction/helpers.go`, `addAllocatableThresholds`).
pub(crate) fn with_allocatable(mut thresholds: Vec<Threshold>) -> Vec<Threshold> {
    let memory = |t: &&Threshold| t.signal == Signal::MemoryAvailable && t.is_hard();
    if let Some(memory) = thresholds.iter().find(memory).copied() {
        thresholds.push(Threshold { signal: Signal::AllocatableMemoryAvailable, ..memory });
    }
    thresholds
}

/// Reads the settings of hard and soft thresholds (`ParseThresholdConfig`).
pub(crate) fn parse(
    hard: &BTreeMap<String, String>,
    soft: &BTreeMap<String, String>,
    grace: &BTreeMap<String, String>,
    reclaim: &BTreeMap<String, String>,
) -> Result<Vec<Threshold>, ThresholdError> {
    let mut reclaims = BTreeMap::new();
    for (signal, value) in reclaim {
        reclaims.insert(signal.parse::<Signal>()?, Amount::parse(signal, value)?);
    }
    let mut graces = BTreeMap::new();
    for (signal, value) in grace {
        let wrong = || ThresholdError::Grace { signal: signal.clone(), value: value.clone() };
        graces.insert(signal.parse::<Signal>()?, duration(value).ok_or_else(wrong)?);
    }
    let mut all = Vec::new();
    for (is_soft, list) in [(false, hard), (true, soft)] {
        for (name, value) in list {
            let signal: Signal = name.parse()?;
            let Some(value) = Amount::parse(name, value)? else { continue };
            let grace = match (is_soft, graces.get(&signal)) {
                (false, _) => Duration::ZERO,
                (true, Some(grace)) => *grace,
                (true, None) => return Err(ThresholdError::NoGrace(signal.name())),
            };
            let reclaim = reclaims.get(&signal).copied().flatten();
            all.push(Threshold { signal, value, most: None, grace, reclaim });
        }
    }
    Ok(all)
}

/// Reads `memory.available<100Mi,nodefs.available<10%`, or with `=` for `<`.
///
/// # Errors
/// At what is not of this form.
pub fn statements(text: &str, sign: char) -> Result<BTreeMap<String, String>, ThresholdError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let part = |part: &str| {
        let (signal, value) = part.split_once(sign).ok_or_else(|| ThresholdError::Form(part.to_owned()))?;
        Ok((signal.trim().to_owned(), value.trim().to_owned()))
    };
    parts.map(part).collect()
}

/// Go's form of durations: `1h2m3.5s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let units = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * seconds;
        rest = &after[unit.len()..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(text: &str) -> BTreeMap<String, String> {
        statements(text, '<').unwrap()
    }

    #[test]
    fn settings_are_read() {
        let graces = statements("memory.available=1m30s", '=').unwrap();
        let all = parse(
            &map("memory.available<100Mi,nodefs.available<10%, imagefs.available<0%"),
            &map("memory.available<1.5Gi"),
            &graces,
            &map("nodefs.available<500Mi"),
        );
        let all = all.unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(
            (all[0].signal, all[0].least(1 << 40), all[0].grace),
            (Signal::MemoryAvailable, 100 << 20, Duration::ZERO)
        );
        assert_eq!((all[1].least(1000), all[1].reclaim), (100, Some(Amount::Absolute(500 << 20))));
        assert_eq!((all[2].least(0), all[2].grace), (3 << 29, Duration::from_secs(90)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let none = BTreeMap::new();
        let hard = |text: &str| parse(&map(text), &none, &none, &none).unwrap_err().to_string();
        assert!(
            hard("memory<1Gi")
                .starts_with("unsupported eviction signal \"memory\"; there are memory.available,")
        );
        assert!(hard("pid.available<x").contains("has the value \"x\""));
        assert!(hard("pid.available<120%").contains("has the value \"120%\""));
        let soft = parse(&none, &map("pid.available<5%"), &none, &none).unwrap_err();
        assert_eq!(
            soft.to_string(),
            "grace period must be specified for the soft eviction threshold pid.available"
        );
        assert!(matches!(statements("memory.available", '<'), Err(ThresholdError::Form(_))));
    }

    #[test]
    fn defaults_ask_for_no_more_than_a_node_needs() {
        let disk = defaults().into_iter().find(|t| t.signal == Signal::NodeFsAvailable).unwrap();
        assert_eq!(disk.least(10 << 30), 1 << 30);
        assert_eq!(disk.least(1 << 40), 5 << 30);
        assert_eq!(default_texts()["imagefs.available"], "15%");
    }

    #[test]
    fn durations() {
        for (text, want) in
            [("1h2m3.5s", Some(3723.5)), ("90s", Some(90.0)), ("0", Some(0.0)), ("250ms", Some(0.25))]
        {
            assert_eq!(duration(text), want.map(Duration::from_secs_f64), "{text}");
        }
        for text in ["", "5", "s", "1x", "-1s", "1..2s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-zA-Z.<=%0-9,]{0,40}") {
            if let Ok(map) = statements(&text, '<') {
                let none = BTreeMap::new();
                let _ = parse(&map, &none, &none, &map);
            }
            let _ = duration(&text);
        }
    }
}
