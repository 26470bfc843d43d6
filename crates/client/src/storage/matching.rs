use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use types::SelectorError;

use super::nodes::VolumeNodes;
use super::{capacity, claim_of, class_of_claim, class_of_volume, requested, volume_phase};
use crate::meta::{Labels, is_deleting, selector};

/// Whether a volume is for this claim, and no other of the same name.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_of(volume).is_some_and(|known| {
        known.name == claim.metadata.name
            && known.namespace == claim.metadata.namespace
            && (known.uid.as_deref().is_none_or(str::is_empty) || known.uid == claim.metadata.uid)
    })
}

/// Whether a volume is used the way that a claim wants: as files, or as a block device.
pub fn same_mode(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    let has = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    wanted.unwrap_or("Filesystem") == has.unwrap_or("Filesystem")
}

/// Whether a volume allows every access that a claim wants.
pub fn has_modes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| modes(volume).contains(mode))
}

fn modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

fn same_attributes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let has = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    wanted.unwrap_or_default() == has.unwrap_or_default()
}

/// Why a volume that a claim names cannot be its volume (kubernetes/kubernetes,
/// `pkg/controller/volume/persistentvolume/pv_controller.go`, `checkVolumeSatisfyClaim`).
pub fn misfit(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if is_deleting(&volume.metadata) {
        return Some(format!("the volume is marked for deletion {name:?}"));
    }
    let why = if capacity(volume) < requested(claim) {
        "requested PV is too small"
    } else if class_of_volume(volume) != class_of_claim(claim) {
        "storageClassName does not match"
    } else if !same_attributes(claim, volume) {
        "volumeAttributesClassName does not match"
    } else if !same_mode(claim, volume) {
        "incompatible volumeMode"
    } else if !has_modes(claim, volume) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(why.into())
}

/// A look for the volume that suits a claim best (kubernetes/kubernetes,
/// `component-helpers/storage/volume/pv_helpers.go`, `FindMatchingVolume`).
pub struct Search<'a> {
    claim: &'a PersistentVolumeClaim,
    selector: Option<types::LabelSelector>,
}

impl<'a> Search<'a> {
    /// A look for a claim.
    pub fn new(claim: &'a PersistentVolumeClaim) -> Result<Self, SelectorError> {
        let wanted = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        Ok(Self { claim, selector: wanted.map(selector).transpose()? })
    }

    /// The binder's choice: a volume that is set aside for the claim, or else the smallest one with the fewest other
    /// accesses. If the claim is `delayed`, what is not set aside is for the scheduler to choose from.
    pub fn best(
        &self,
        volumes: impl IntoIterator<Item = Arc<PersistentVolume>>,
        delayed: bool,
    ) -> Option<Arc<PersistentVolume>> {
        let possible = volumes.into_iter().filter(|v| self.is_possible(v) && has_modes(self.claim, v));
        let ranked = possible.filter_map(|volume| {
            let reserved = is_bound_to(&volume, self.claim);
            let counts = reserved || (!delayed && self.is_free(&volume));
            counts.then(|| ((!reserved, modes(&volume).len(), capacity(&volume)), volume))
        });
        ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, volume)| volume)
    }

    /// What the scheduler chooses from, node by node.
    pub fn candidates(&self, volumes: impl IntoIterator<Item = Arc<PersistentVolume>>) -> Candidates {
        let possible: Vec<_> = volumes.into_iter().filter(|volume| self.is_possible(volume)).collect();
        let reserved = possible.iter().find(|volume| is_bound_to(volume, self.claim));
        let mut all: Vec<Arc<PersistentVolume>> = match reserved {
            Some(volume) => vec![volume.clone()],
            None => possible.into_iter().filter(|volume| self.is_free(volume)).collect(),
        };
        all.sort_by_cached_key(|volume| (capacity(volume), volume.metadata.name.clone()));
        Candidates(all.into_iter().map(|volume| (VolumeNodes::of(&volume), volume)).collect())
    }

    /// What must hold whether the volume is set aside or not.
    fn is_possible(&self, volume: &PersistentVolume) -> bool {
        (claim_of(volume).is_none() || is_bound_to(volume, self.claim))
            && capacity(volume) >= requested(self.claim)
            && same_mode(self.claim, volume)
            && same_attributes(self.claim, volume)
            && !is_deleting(&volume.metadata)
    }

    fn is_free(&self, volume: &PersistentVolume) -> bool {
        volume_phase(volume) == "Available"
            && class_of_volume(volume) == class_of_claim(self.claim)
            && has_modes(self.claim, volume)
            && self.selector.as_ref().is_none_or(|selector| {
                selector.matches(|key| volume.metadata.labels.as_ref()?.get(key).map(String::as_str))
            })
    }
}

/// Volumes that a claim could have, the smallest first; if one is set aside for it, that one only.
#[derive(Clone, Debug, Default)]
pub struct Candidates(Vec<(VolumeNodes, Arc<PersistentVolume>)>);

impl Candidates {
    /// The best one on a node with these labels that nobody else has taken.
    pub fn on(
        &self,
        labels: &Labels,
        taken: impl Fn(&PersistentVolume) -> bool,
    ) -> Option<&Arc<PersistentVolume>> {
        let mut all = self.0.iter();
        all.find(|(nodes, volume)| !taken(volume) && nodes.admit(labels)).map(|(_, volume)| volume)
    }
}

#[cfg(test)]
mod tests;
