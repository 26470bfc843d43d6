use client::storage::{self, VolumeNodes, annotation};
use client::{Key, Labels};

use super::known::revision;
use super::{Plan, Volumes};

/// How far a plan has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    NotYet,
    /// It will not come about.
    Failed(String),
}

/// Whether the claims of a plan that was written are bound (kubernetes/kubernetes,
/// `pkg/scheduler/framework/plugins/volumebinding/binder.go`, `checkBindings`).
pub(crate) fn progress(plan: &Plan, node: &str, labels: &Labels, volumes: &Volumes) -> Progress {
    match check(plan, node, labels, volumes) {
        Ok(true) => Progress::Done,
        Ok(false) => Progress::NotYet,
        Err(why) => Progress::Failed(why),
    }
}

fn check(plan: &Plan, node: &str, labels: &Labels, volumes: &Volumes) -> Result<bool, String> {
    let misplaced = |name: &str| format!("pv {name:?} node affinity doesn't match node {node:?}");
    let claim = |key: &Key| {
        let gone = || format!("failed to check binding: could not find v1.PersistentVolumeClaim \"{key}\"");
        volumes.real_claim(key).ok_or_else(gone)
    };
    for binding in &plan.bind {
        let name = binding.volume.metadata.name.as_deref().unwrap_or_default();
        let Some(volume) = volumes.real_volume(name) else {
            return Err(format!("failed to check binding: could not find v1.PersistentVolume {name:?}"));
        };
        if revision(&*binding.volume) > revision(&**volume) {
            return Ok(false);
        }
        if !VolumeNodes::of(volume).admit(labels) {
            return Err(misplaced(name));
        }
        if storage::claim_of(volume).is_none_or(|claim| claim.uid.as_deref().is_none_or(str::is_empty)) {
            return Err(format!("ClaimRef got reset for pv {name:?}"));
        }
        if !storage::is_fully_bound(claim(&binding.claim)?) {
            return Ok(false);
        }
    }
    for wish in &plan.provision {
        let claim = claim(&Key::of(&*wish.claim))?;
        if revision(&*wish.claim) > revision(&**claim) {
            return Ok(false);
        }
        if annotation(&claim.metadata, storage::SELECTED_NODE) != Some(node) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            return Err(format!("provisioning failed for PVC {name:?}"));
        }
        let name = storage::volume_of(claim);
        if !name.is_empty() {
            // The cache may not have it yet.
            let Some(volume) = volumes.real_volume(name) else { return Ok(false) };
            if !VolumeNodes::of(volume).admit(labels) {
                return Err(misplaced(name));
            }
        }
        if !storage::is_fully_bound(claim) {
            return Ok(false);
        }
    }
    Ok(true)
}
