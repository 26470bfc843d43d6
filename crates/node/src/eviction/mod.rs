//! When the node runs short of something: pods that must go, and pods that are not taken (kubernetes/kubernetes,
//! `pkg/kubelet/eviction`).
//!
//! ```text
//! look ─► decide.rs: which pressures, which threshold ─► gc.rs: images and dead containers go
//!                                                        └─ not enough ─► rank.rs: a pod goes
//!      └► storage.rs: who writes more than it may goes
//! ```

mod decide;
mod gc;
mod rank;
mod storage;
mod threshold;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::time::Instant;

use decide::{Observations, Observed, State, step};
pub(crate) use rank::is_critical;
use rank::{PodUse, message, rank};
pub use threshold::{Amount, Signal, Threshold, ThresholdError, statements};
pub(crate) use threshold::{
    Pressure, default_texts, defaults as default_thresholds, duration, parse as parse_thresholds,
    with_allocatable,
};

use crate::plan::{grace_of, is_over};
use crate::stats::{Extent, FileSystem, Host, PodSample};
use crate::worker::{Agent, uid_of};

/// How often the node is looked at (`pkg/kubelet/kubelet.go`, `evictionMonitoringPeriod`).
const PERIOD: Duration = Duration::from_secs(10);
/// How often when something is nearly used up.
const NEAR: Duration = Duration::from_secs(1);
/// How often unused images are looked for (`ImageGCPeriod`).
const IMAGE_PERIOD: Duration = Duration::from_secs(300);
/// What pods get to end when there is no time (`immediateEvictionGracePeriodSeconds`).
const AT_ONCE: u64 = 1;

/// A pod that must go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Eviction {
    /// A word for programs: what the pod's status gives as its reason.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) grace: u64,
}

/// Watches over the node's resources until it is aborted.
pub(crate) async fn watch(agent: Arc<Agent>, thresholds: Vec<Threshold>) {
    agent.pods.ready().await;
    let (mut state, mut uses) = (State::default(), gc::Uses::default());
    // When images were last looked through, and when room was last made.
    let (mut collected, mut reclaimed) = (None::<Instant>, None::<Instant>);
    let due = |last: Option<Instant>, period: Duration| last.is_none_or(|at| at.elapsed() >= period);
    loop {
        let observations = observe(&agent).await;
        let now = agent.clock.now();
        let transition = agent.config.kubelet.eviction_pressure_transition_period;
        let (next, verdict) = step(&thresholds, &state, &observations, transition, now);
        state = next;
        agent.pressures.send_if_modified(|known| {
            let changed = *known != verdict.pressures;
            known.clone_from(&verdict.pressures);
            changed
        });
        let mut busy = agent.evict_for_storage().await;
        let reclaim = verdict.reclaim.map(|place| &thresholds[place]);
        // One pod after the other: what the last one leaves takes a moment to be seen.
        if let Some(threshold) = reclaim.filter(|_| !busy && due(reclaimed, PERIOD)) {
            reclaimed = Some(Instant::now());
            let resource = threshold.signal.resource();
            let what = format!("Attempting to reclaim {resource}");
            let node = ObjectReference {
                kind: Some("Node".into()),
                name: Some(agent.config.name.clone()),
                uid: Some(agent.config.name.clone()),
                ..ObjectReference::default()
            };
            agent.recorder.say(node, client::EventKind::Warning, "EvictionThresholdMet", what);
            busy = agent.reclaim(threshold, &observations, &mut uses).await;
        }
        if due(collected, IMAGE_PERIOD) {
            collected = Some(Instant::now());
            agent.collect_images(&mut uses, false).await;
        }
        agent.stats.folders().forget(Duration::from_secs(600));
        tokio::time::sleep(if busy || verdict.near { NEAR } else { PERIOD }).await;
    }
}

/// What is left of everything that is watched.
async fn observe(agent: &Agent) -> Observations {
    let host = Host::read();
    let mut all = Observations::new();
    let memory = Observed { available: host.memory.available(), capacity: host.memory.total };
    all.insert(Signal::MemoryAvailable, memory);
    if agent.config.kubelet.reservations.limits_pods()
        && let Ok((used, _)) = agent.runtime.usage_together().await
    {
        let capacity = agent.managers.room.pods.memory;
        let available = capacity.saturating_sub(used.working_set());
        all.insert(Signal::AllocatableMemoryAvailable, Observed { available, capacity });
    }
    let (used, most) = host.processes;
    if most > 0 {
        let pids = Observed { available: most.saturating_sub(used), capacity: most };
        all.insert(Signal::PidAvailable, pids);
    }
    if let Some(disk) = FileSystem::of(&agent.config.data_dir) {
        let bytes = Observed { available: disk.available, capacity: disk.capacity };
        let inodes = Observed { available: disk.inodes_free, capacity: disk.inodes };
        // One file system for all.
        for signal in [Signal::NodeFsAvailable, Signal::ImageFsAvailable, Signal::ContainerFsAvailable] {
            all.insert(signal, bytes);
        }
        // Some file systems make inodes as they go, and count none.
        if disk.inodes > 0 {
            for signal in [Signal::NodeFsInodesFree, Signal::ImageFsInodesFree, Signal::ContainerFsInodesFree]
            {
                all.insert(signal, inodes);
            }
        }
    }
    all
}

impl Agent {
    /// Makes room for what a threshold is about; gives whether a pod goes for it.
    async fn reclaim(&self, threshold: &Threshold, before: &Observations, uses: &mut gc::Uses) -> bool {
        let signal = threshold.signal;
        if signal.pressure() == Pressure::Disk {
            self.collect_containers().await;
            self.collect_images(uses, true).await;
            let enough = |o: &Observed| {
                let more = threshold.reclaim.map_or(0, |reclaim| reclaim.of(o.capacity));
                o.available >= threshold.least(o.capacity).saturating_add(more)
            };
            if observe(self).await.get(&signal).is_some_and(enough) {
                return false;
            }
        }
        let Ok(sample) = self.stats.sample(false).await else { return false };
        let (mut pods, mut signals) = (Vec::new(), Vec::new());
        for pod in self.pods.list() {
            let found = sample.pods.iter().find(|p| p.uid == uid_of(&pod));
            if let Some(found) = found.filter(|_| !is_over(&pod) && pod.metadata.deletion_timestamp.is_none())
            {
                let disk = signal.pressure() == Pressure::Disk;
                signals.push(self.use_of(found, &pod, disk, PERIOD).await.0);
                pods.push(pod);
            }
        }
        let uses: Vec<(&Pod, PodUse)> = pods.iter().map(|pod| &**pod).zip(signals).collect();
        let Some(observed) = before.get(&signal) else { return false };
        // Those that go already are waited for.
        if pods.iter().any(|pod| self.evictions.lock().contains_key(uid_of(pod))) {
            return true;
        }
        for place in rank(signal.resource(), &uses) {
            let (pod, used) = &uses[place];
            if is_critical(pod) {
                continue;
            }
            let most = self.config.kubelet.eviction_max_pod_grace_period;
            let grace = match threshold.is_hard() {
                true => AT_ONCE,
                false => pod.spec.as_ref().map_or(0, grace_of).min(most),
            };
            self.begin_eviction(pod, message(threshold, observed, pod, used), grace, signal.name());
            return true;
        }
        tracing::warn!(signal = signal.name(), "there is no pod left to make room with");
        false
    }

    /// Sends away who writes more than it may; gives whether somebody goes.
    async fn evict_for_storage(&self) -> bool {
        let limited: Vec<Arc<Pod>> = self
            .pods
            .list()
            .into_iter()
            .filter(|pod| {
                storage::is_limited(pod) && !is_over(pod) && pod.metadata.deletion_timestamp.is_none()
            })
            .collect();
        if limited.is_empty() {
            return false;
        }
        let Ok(sample) = self.stats.sample(false).await else { return false };
        let mut any = false;
        for pod in limited {
            let Some(found) = sample.pods.iter().find(|p| p.uid == uid_of(&pod)) else { continue };
            let (used, volumes) = self.use_of(found, &pod, true, PERIOD / 2).await;
            if let Some((why, signal)) =
                storage::exceeded(&pod, &used, &volumes).filter(|_| !is_critical(&pod))
            {
                any |= self.begin_eviction(&pod, why, AT_ONCE, signal);
            }
        }
        any
    }

    /// What a pod uses, and what its volumes hold by name; of the disk only if asked for.
    async fn use_of(
        &self,
        found: &PodSample,
        pod: &Pod,
        disk: bool,
        fresh: Duration,
    ) -> (PodUse, Vec<(String, u64)>) {
        let mut used =
            PodUse { memory: found.usage.working_set(), pids: found.usage.pids, ..PodUse::default() };
        let mut volumes = Vec::new();
        if disk {
            let own = self.pod_dir(uid_of(pod)).join("volumes");
            let local =
                pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| v.empty_dir.is_some());
            let local: Vec<_> = local.collect();
            let count = found.containers.len();
            let layers = found.containers.iter().map(|c| c.writable.clone());
            let logs = found.containers.iter().map(|c| {
                c.log.as_deref().and_then(std::path::Path::parent).map(Into::into).unwrap_or_default()
            });
            let paths = layers.chain(logs).chain(local.iter().map(|v| own.join(&v.name))).collect();
            let extents = self.stats.folders().measure(paths, fresh).await;
            let at = |place: usize| extents.get(place).copied().unwrap_or_default();
            let mut sum = Extent::default();
            for (place, container) in found.containers.iter().enumerate() {
                let both = container.layer.unwrap_or_else(|| at(place)).plus(at(count + place));
                sum = sum.plus(both);
                used.containers.push((container.name.clone(), container.usage.working_set(), both.bytes));
            }
            for (place, volume) in local.iter().enumerate() {
                let extent = at(2 * count + place);
                volumes.push((volume.name.clone(), extent.bytes));
                // What is in memory counts as such.
                if volume.empty_dir.as_ref().and_then(|e| e.medium.as_deref()).unwrap_or_default().is_empty()
                {
                    sum = sum.plus(extent);
                }
            }
            (used.disk, used.inodes) = (sum.bytes, sum.inodes);
        } else {
            let containers = found.containers.iter();
            used.containers = containers.map(|c| (c.name.clone(), c.usage.working_set(), 0)).collect();
        }
        (used, volumes)
    }

    /// Says that a pod must go, and has it done; gives whether that is news.
    fn begin_eviction(&self, pod: &Pod, message: String, grace: u64, signal: &str) -> bool {
        let eviction = Eviction { reason: "Evicted", message: message.clone(), grace };
        let known = self.evictions.lock().insert(uid_of(pod).to_owned(), eviction);
        if known.is_none() {
            self.recorder.warning(pod, "Evicted", message);
            self.meters.note(|counted| *counted.evictions.entry(signal.to_owned()).or_default() += 1);
        }
        // Whoever is busy with the pod hears of it.
        self.endings.send_modify(|count| *count += 1);
        self.queue.add(Key::of(pod));
        known.is_none()
    }

    /// Why a new pod is not taken, if so (`Admit`).
    pub(crate) fn refusal(&self, pod: &Pod) -> Option<String> {
        refusal(pod, &self.pressures.borrow())
    }
}

/// Under pressure only what the node cannot do without is taken; when it is only memory, also what says how much of it
/// it needs.
fn refusal(pod: &Pod, pressures: &BTreeSet<Pressure>) -> Option<String> {
    if pressures.is_empty() || is_critical(pod) {
        return None;
    }
    if pressures.iter().eq([&Pressure::Memory]) {
        let class = pod.status.as_ref().and_then(|s| s.qos_class.as_deref());
        let tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
        let tolerates = |t| client::tolerates(t, "node.kubernetes.io/memory-pressure", "", "NoSchedule");
        if class.is_some_and(|class| class != "BestEffort") || tolerations.into_iter().any(tolerates) {
            return None;
        }
    }
    let names: Vec<&str> = pressures.iter().map(|p| p.name()).collect();
    Some(format!("The node had condition: [{}]. ", names.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_is_taken_under_pressure() {
        let pod = |class: &str, priority: i32, toleration: &str| -> Pod {
            serde_json::from_value(json!({
                "spec": {"priority": priority, "containers": [],
                    "tolerations": [{"key": toleration, "operator": "Exists", "effect": "NoSchedule"}]},
                "status": {"qosClass": class},
            }))
            .unwrap()
        };
        let memory = BTreeSet::from([Pressure::Memory]);
        let both = BTreeSet::from([Pressure::Memory, Pressure::Disk]);
        let tolerant = "node.kubernetes.io/memory-pressure";
        assert_eq!(refusal(&pod("BestEffort", 0, "x"), &BTreeSet::new()), None);
        assert!(refusal(&pod("BestEffort", 0, "x"), &memory).is_some());
        assert_eq!(refusal(&pod("Burstable", 0, "x"), &memory), None);
        assert_eq!(refusal(&pod("BestEffort", 0, tolerant), &memory), None);
        assert_eq!(
            refusal(&pod("Guaranteed", 0, tolerant), &both).as_deref(),
            Some("The node had condition: [MemoryPressure DiskPressure]. ")
        );
        assert_eq!(refusal(&pod("BestEffort", 2_000_000_000, "x"), &both), None);
    }
}
