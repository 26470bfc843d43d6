use std::collections::HashSet;
use std::sync::Arc;

use client::storage::{self, Candidates, Search, TopologyTerms, VolumeNodes};
use client::{Disk, Key, Labels, is_controlled_by, is_deleting};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use types::LabelSelector;

use super::Volumes;
use super::known::most;
use super::limits::{Attached, attached};
use crate::config::{Plugin, Profile};
use crate::pod::{PodInfo, Use};
use crate::reason::Reason;
use crate::view::ClusterView;

const IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";
const ONCE: &str = "ReadWriteOncePod";
/// The labels of volumes that say where they are (upstream: `volumezone`, `topologyLabels`).
const PLACES: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// What a pod's claims ask, made ready for all nodes.
#[derive(Debug)]
pub(crate) struct VolumeAsk<'a> {
    pub(super) pod: &'a PodInfo,
    pub(super) bound: Vec<Reach>,
    /// A claim's volume is not there.
    pub(super) absent: bool,
    /// The smallest first.
    pub(super) delayed: Vec<Delayed>,
    /// Claims that only one pod may use.
    pub(super) once: Vec<&'a Arc<str>>,
    pub(super) disks: Vec<&'a Disk>,
    pub(super) attached: Vec<Attached>,
}

/// From where a volume can be reached.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) nodes: VolumeNodes,
    places: Vec<(String, HashSet<String>)>,
}

/// A claim that gets its volume when its pod gets its node.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) claim: Arc<PersistentVolumeClaim>,
    pub(super) candidates: Candidates,
    /// Where a volume can be made, if anywhere.
    pub(super) made: Option<Made>,
}

#[derive(Debug)]
pub(super) struct Made {
    pub(super) near: TopologyTerms,
    /// The nodes from which there is room enough, if that is known of the driver.
    pub(super) room: Option<Vec<LabelSelector>>,
}

impl<'a> VolumeAsk<'a> {
    /// What a pod asks, or why it must wait, whatever nodes there are.
    pub(crate) fn new(pod: &'a PodInfo, volumes: &Volumes) -> Result<Self, String> {
        let mut ask = Self {
            pod,
            bound: Vec::new(),
            absent: false,
            delayed: Vec::new(),
            once: Vec::new(),
            disks: Vec::new(),
            attached: Vec::new(),
        };
        let mut claims = Vec::new();
        for used in &pod.kind.uses {
            match used {
                Use::Disk(disk) => ask.disks.push(disk),
                Use::Claim { name, own } => claims.push((name, find(pod, name, *own, volumes)?)),
            }
        }
        let mut immediate = false;
        for (name, claim) in claims {
            let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
            if modes.is_some_and(|modes| modes.iter().any(|mode| mode == ONCE)) {
                ask.once.push(name);
            }
            ask.attached.extend(attached(claim, volumes));
            if storage::is_fully_bound(claim) {
                match volumes.volume(storage::volume_of(claim)) {
                    Some(volume) => ask.bound.push(Reach::of(volume)),
                    None => ask.absent = true,
                }
                continue;
            }
            let class = volumes.class(storage::class_of_claim(claim));
            let delayed = class.is_some_and(|class| storage::waits_for_consumer(class));
            if delayed && storage::volume_of(claim).is_empty() {
                ask.delayed.push(Delayed::of(claim, volumes)?);
            } else {
                immediate = true;
            }
        }
        if immediate {
            return Err(IMMEDIATE.to_owned());
        }
        ask.delayed.sort_by_key(|delayed| storage::requested(&delayed.claim));
        Ok(ask)
    }

    /// Whether the volumes that are bound are within reach (`VolumeZone`).
    pub(super) fn in_zone(&self, labels: &Labels) -> bool {
        let near = |reach: &Reach| {
            reach.places.iter().all(|(key, values)| match place(labels, key) {
                Some(value) => values.contains(value),
                None => false,
            })
        };
        PLACES.iter().all(|key| !labels.contains_key(*key)) || self.bound.iter().all(near)
    }

    /// What is in the way on a node, as the filters say it in their order. `extra` are pods that are there or not there
    /// besides what the view says.
    pub(crate) fn obstacle(
        &self,
        profile: &Profile,
        view: &ClusterView,
        row: usize,
        extra: &[super::limits::Shift],
    ) -> Vec<Reason> {
        if profile.filters(Plugin::VolumeRestrictions) && self.restricted(view, row, extra) {
            let reason = if self.is_taken(view, extra) { Reason::ClaimTaken } else { Reason::DiskTaken };
            return vec![reason];
        }
        if profile.filters(Plugin::NodeVolumeLimits) && self.exceeds(view, row, extra) {
            return vec![Reason::TooManyVolumes];
        }
        if profile.filters(Plugin::VolumeBinding)
            && let Err(reasons) = self.choose(&view.names[row], &view.labels[row])
        {
            return reasons;
        }
        match !profile.filters(Plugin::VolumeZone) || self.in_zone(&view.labels[row]) {
            true => Vec::new(),
            false => vec![Reason::Zone],
        }
    }
}

/// A claim that a pod can go by (`podHasPVCs`).
fn find<'v>(
    pod: &PodInfo,
    name: &str,
    own: bool,
    volumes: &'v Volumes,
) -> Result<&'v Arc<PersistentVolumeClaim>, String> {
    let namespace = pod.key.namespace();
    let Some(claim) = volumes.claim(&Key::new(namespace, name)) else {
        return Err(match own {
            true => {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                )
            }
            false => format!("persistentvolumeclaim {name:?} not found"),
        });
    };
    if storage::claim_phase(claim) == "Lost" {
        let volume = storage::volume_of(claim);
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if is_deleting(&claim.metadata) {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if own && !is_controlled_by(&claim.metadata, &pod.uid) {
        let pod = pod.key.name();
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        ));
    }
    Ok(claim)
}

impl Reach {
    fn of(volume: &PersistentVolume) -> Self {
        let labels = volume.metadata.labels.iter().flatten();
        let places = labels.filter(|(key, _)| PLACES.contains(&key.as_str()));
        // A volume in several zones has them all in one label.
        let places = places.map(|(key, value)| (key.clone(), value.split("__").map(str::to_owned).collect()));
        Self { nodes: VolumeNodes::of(volume), places: places.collect() }
    }
}

/// A node's label, by either of its names.
fn place<'l>(labels: &'l Labels, key: &str) -> Option<&'l String> {
    let other = match key {
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone" => "failure-domain.beta.kubernetes.io/zone",
        _ => "failure-domain.beta.kubernetes.io/region",
    };
    labels.get(key).or_else(|| labels.get(other))
}

impl Delayed {
    fn of(claim: &Arc<PersistentVolumeClaim>, volumes: &Volumes) -> Result<Self, String> {
        let name = storage::class_of_claim(claim);
        let search = Search::new(claim).map_err(|error| error.to_string())?;
        let candidates = search.candidates(volumes.volumes_of(name));
        let class = volumes.class(name);
        let made = class.filter(|class| !matches!(&*class.provisioner, "" | storage::NO_PROVISIONER));
        let made = made.map(|class| {
            let driver = volumes.driver(&class.provisioner);
            let tells = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
            Made { near: TopologyTerms::of(class), room: tells.then(|| room(claim, name, volumes)) }
        });
        Ok(Self { claim: claim.clone(), candidates, made })
    }
}

/// The nodes from which a class has room for a claim (`hasEnoughCapacity`).
fn room(claim: &PersistentVolumeClaim, class: &str, volumes: &Volumes) -> Vec<LabelSelector> {
    let wanted = storage::requested(claim);
    let all = volumes.capacities.values().filter(|capacity| capacity.storage_class_name == class);
    let enough = all.filter(|capacity| most(capacity).is_some_and(|most| most >= wanted.units()));
    enough.filter_map(|capacity| client::selector(capacity.node_topology.as_ref()?).ok()).collect()
}
