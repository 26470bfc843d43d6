//! Which devices there are, who has them, and who gets which: pure (kubernetes/kubernetes,
//! `pkg/kubelet/cm/devicemanager/manager.go`, `pod_devices.go`, `topology_hints.go`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::api::Told;
use crate::topology::{Hint, Machine, Mask};

/// Names of devices, or of anything else.
pub(crate) type Ids = BTreeSet<String>;

/// Why a container gets no devices; upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error(
        "pod {uid:?} container {container:?} changed request for resource {resource:?} from {had} to {asked}"
    )]
    Changed { uid: String, container: String, resource: String, had: usize, asked: usize },
    #[error("cannot allocate unregistered device {0}")]
    Unregistered(String),
    #[error("no healthy devices present; cannot allocate unhealthy devices {0}")]
    NoneHealthy(String),
    #[error("previously allocated devices are no longer healthy; cannot allocate unhealthy devices {0}")]
    NoLongerHealthy(String),
    #[error(
        "requested number of devices unavailable for {resource}. Requested: {asked}, Available: {available}"
    )]
    Unavailable { resource: String, asked: usize, available: usize },
    #[error("{0}")]
    Plugin(String),
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) healthy: bool,
    /// The NUMA nodes it is near to; absent if it does not matter.
    pub(crate) nodes: Option<Vec<usize>>,
}

/// What a container has of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) ids: Ids,
    /// What the plugin answered, as it came.
    #[serde(with = "base64_bytes")]
    pub(crate) answer: Vec<u8>,
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Shares by container and resource.
pub(crate) type PodShares = BTreeMap<String, BTreeMap<String, Share>>;

/// What is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Saved {
    /// By the pods' UIDs.
    pub(crate) pods: BTreeMap<String, PodShares>,
    pub(crate) registered: Ids,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceState {
    /// Devices by resource and ID. A resource without devices is one whose plugin has not come back yet.
    pub(crate) resources: BTreeMap<String, BTreeMap<String, Device>>,
    pub(crate) pods: BTreeMap<String, PodShares>,
}

/// Who asks: the pod, the container, and the init containers that have ended when it runs; and who of the pod goes on running
/// beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) uid: &'a str,
    pub(crate) container: &'a str,
    pub(crate) ended: &'a [&'a str],
}

/// How devices can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Devices of init containers that have ended come first.
    pub(crate) reused: Ids,
    /// How many more.
    pub(crate) needed: usize,
    pub(crate) available: Ids,
    /// Of those: near where they should be, elsewhere, anywhere.
    pub(crate) aligned: Ids,
    unaligned: Ids,
    anywhere: Ids,
}

impl Choice {
    /// Whether the plugin's opinion is asked about the aligned ones alone.
    pub(crate) fn within_aligned(&self) -> bool {
        self.needed < self.aligned.len()
    }

    /// Chooses; `preferred` are the plugin's favourites.
    pub(crate) fn choose(&self, preferred: &Ids) -> Ids {
        let mut taken = self.reused.clone();
        let mut needed = self.needed;
        let mut take = |from: &mut dyn Iterator<Item = &String>| {
            for id in from {
                if needed > 0 && taken.insert(id.clone()) {
                    needed -= 1;
                }
            }
        };
        if self.within_aligned() {
            take(&mut preferred.intersection(&self.aligned));
            take(&mut self.aligned.iter());
        } else {
            take(&mut self.aligned.iter());
            take(&mut preferred.intersection(&self.available));
            take(&mut self.unaligned.iter());
            take(&mut self.anywhere.iter());
        }
        taken
    }
}

impl DeviceState {
    /// Takes in what a plugin says there is.
    pub(crate) fn told(&mut self, resource: &str, devices: Vec<Told>) {
        let devices = devices.into_iter().map(|d| (d.id, Device { healthy: d.healthy, nodes: d.nodes }));
        self.resources.insert(resource.to_owned(), devices.collect());
    }

    /// A plugin has gone.
    pub(crate) fn unwell(&mut self, resource: &str) {
        self.resources.entry(resource.to_owned()).or_default().values_mut().for_each(|d| d.healthy = false);
    }

    /// Whether plugins have to do with a resource.
    pub(crate) fn is_ours(&self, resource: &str) -> bool {
        self.resources.contains_key(resource)
            || self.pods.values().flat_map(BTreeMap::values).any(|c| c.contains_key(resource))
    }

    fn healthy(&self, resource: &str) -> Ids {
        let all = self.resources.get(resource).into_iter().flatten();
        all.filter(|(_, device)| device.healthy).map(|(id, _)| id.clone()).collect()
    }

    /// All that pods have of a resource.
    pub(crate) fn in_use(&self, resource: &str) -> Ids {
        let shares = self.pods.values().flat_map(BTreeMap::values).filter_map(|c| c.get(resource));
        shares.flat_map(|share| share.ids.iter().cloned()).collect()
    }

    fn available(&self, resource: &str) -> Ids {
        &self.healthy(resource) - &self.in_use(resource)
    }

    pub(crate) fn share(&self, uid: &str, container: &str, resource: &str) -> Option<&Share> {
        self.pods.get(uid)?.get(container)?.get(resource)
    }

    /// What init containers that have ended had, and nobody who runs has taken over.
    pub(crate) fn reusable(&self, asker: Asker<'_>, resource: &str) -> Ids {
        let Some(pod) = self.pods.get(asker.uid) else { return Ids::new() };
        let of = |ended: bool| -> Ids {
            let wanted = pod.iter().filter(|(name, _)| asker.ended.contains(&name.as_str()) == ended);
            let shares = wanted.filter_map(|(_, container)| container.get(resource));
            shares.flat_map(|share| share.ids.iter().cloned()).collect()
        };
        &of(true) - &of(false)
    }

    /// How a container's `asked` devices can be chosen; nothing if it has them already (`devicesToAllocate`).
    pub(crate) fn plan(
        &self,
        asker: Asker<'_>,
        resource: &str,
        asked: usize,
        affinity: Option<Mask>,
    ) -> Result<Option<Choice>, DeviceError> {
        let has = self.share(asker.uid, asker.container, resource).map(|share| &share.ids);
        let name = || resource.to_owned();
        if let Some(ids) = has.filter(|ids| ids.len() != asked) {
            return Err(DeviceError::Changed {
                uid: asker.uid.to_owned(),
                container: asker.container.to_owned(),
                resource: name(),
                had: ids.len(),
                asked,
            });
        }
        if !self.resources.contains_key(resource) {
            return Err(DeviceError::Unregistered(name()));
        }
        let healthy = self.healthy(resource);
        if healthy.is_empty() {
            return Err(DeviceError::NoneHealthy(name()));
        }
        if let Some(ids) = has {
            return if ids.is_subset(&healthy) {
                Ok(None)
            } else {
                Err(DeviceError::NoLongerHealthy(name()))
            };
        }
        let reused: Ids = self.reusable(asker, resource).into_iter().take(asked).collect();
        let needed = asked - reused.len();
        let available = self.available(resource);
        if available.len() < needed {
            return Err(DeviceError::Unavailable {
                resource: name(),
                asked: needed,
                available: available.len(),
            });
        }
        let mut choice = Choice {
            reused,
            needed,
            available: available.clone(),
            aligned: Ids::new(),
            unaligned: Ids::new(),
            anywhere: Ids::new(),
        };
        for id in available {
            let nodes = self.nodes(resource, &id);
            let place = match (affinity, nodes) {
                (Some(mask), Some(nodes)) if mask.any(nodes) => &mut choice.aligned,
                (Some(_), Some(_)) => &mut choice.unaligned,
                _ => &mut choice.anywhere,
            };
            place.insert(id);
        }
        Ok(Some(choice))
    }

    fn nodes(&self, resource: &str, id: &str) -> Option<&Vec<usize>> {
        self.resources.get(resource)?.get(id)?.nodes.as_ref()
    }

    /// From which nodes `asked` devices can be given; absent if it does not matter (`GetTopologyHints`).
    pub(crate) fn hints(
        &self,
        machine: &Machine,
        asker: Asker<'_>,
        resource: &str,
        asked: usize,
    ) -> Option<Vec<Hint>> {
        let devices = self.resources.get(resource)?;
        if devices.values().all(|device| device.nodes.is_none()) {
            return None;
        }
        if let Some(share) = self.share(asker.uid, asker.container, resource) {
            let same = share.ids.len() == asked;
            return Some(if same {
                self.spots(machine, resource, &share.ids, &Ids::new(), asked)
            } else {
                Vec::new()
            });
        }
        let (available, reusable) = (self.available(resource), self.reusable(asker, resource));
        if (&available | &reusable).len() < asked {
            return Some(Vec::new());
        }
        Some(self.spots(machine, resource, &available, &reusable, asked))
    }

    /// (`generateDeviceTopologyHints`)
    fn spots(
        &self,
        machine: &Machine,
        resource: &str,
        available: &Ids,
        reusable: &Ids,
        asked: usize,
    ) -> Vec<Hint> {
        let numbers = machine.node_numbers();
        let mut least = numbers.len();
        let mut masks = Vec::new();
        for mask in Mask::all_of(&numbers) {
            let near = |id: &&String| self.nodes(resource, id).is_some_and(|nodes| mask.any(nodes));
            let all = self.resources.get(resource).into_iter().flat_map(BTreeMap::keys).filter(near).count();
            if all >= asked {
                least = least.min(mask.count());
            }
            let placed = || reusable.iter().filter(|id| self.nodes(resource, id).is_some());
            if placed().any(|id| !near(&id)) {
                continue;
            }
            if placed().count() + available.difference(reusable).filter(near).count() >= asked {
                masks.push(mask);
            }
        }
        masks
            .into_iter()
            .map(|mask| Hint { affinity: Some(mask), preferred: mask.count() == least })
            .collect()
    }

    /// Notes what a container got.
    pub(crate) fn give(&mut self, uid: &str, container: &str, resource: &str, share: Share) {
        let pod = self.pods.entry(uid.to_owned()).or_default();
        pod.entry(container.to_owned()).or_default().insert(resource.to_owned(), share);
    }

    /// How many there are of each resource, and how many are well.
    pub(crate) fn counts(&self) -> BTreeMap<String, (usize, usize)> {
        let count = |devices: &BTreeMap<String, Device>| {
            (devices.len(), devices.values().filter(|device| device.healthy).count())
        };
        self.resources.iter().map(|(name, devices)| (name.clone(), count(devices))).collect()
    }

    /// What is to be written down.
    pub(crate) fn saved(&self) -> Saved {
        Saved { pods: self.pods.clone(), registered: self.resources.keys().cloned().collect() }
    }

    /// What was written down: who has what is known, what there is plugins will tell again.
    pub(crate) fn restored(saved: Saved) -> Self {
        let resources = saved.registered.into_iter().map(|name| (name, BTreeMap::new())).collect();
        Self { resources, pods: saved.pods }
    }
}
