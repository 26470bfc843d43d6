//! What is to be done about a volume (`syncVolume`).

use client::storage::{self, annotation};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

#[derive(Debug, PartialEq)]
pub(super) enum VolumeStep {
    Phase(&'static str),
    /// It is set aside for the claim, which cannot use it.
    Mismatch(Box<PersistentVolumeClaim>),
    /// The claim does not know of it yet; that is for a look at the claim.
    Unfinished,
    /// Nobody has it any more.
    Reclaim,
    /// Its claim has another one.
    Unbind,
}

/// `claim` is the very claim that the volume refers to.
pub(super) fn step(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let Some(reference) = storage::claim_of(volume) else { return VolumeStep::Phase("Available") };
    if reference.uid.as_deref().is_none_or(str::is_empty) {
        return VolumeStep::Phase("Available");
    }
    let Some(claim) = claim else { return VolumeStep::Reclaim };
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    match storage::volume_of(claim) {
        "" if !storage::same_mode(claim, volume) => VolumeStep::Mismatch(Box::new(claim.clone())),
        "" => VolumeStep::Unfinished,
        has if has == name => VolumeStep::Phase("Bound"),
        _ if annotation(&volume.metadata, storage::PROVISIONED_BY).is_some()
            && policy(volume) == "Delete" =>
        {
            VolumeStep::Reclaim
        }
        _ => VolumeStep::Unbind,
    }
}

/// What becomes of the volume when its claim is gone.
pub(super) fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// Whether somebody outside of this program deletes what he has made.
pub(super) fn has_deleter(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata, storage::PROVISIONED_BY)
        .is_some_and(|by| !by.is_empty() && !by.starts_with("kubernetes.io/"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(reference: Value, more: Value) -> PersistentVolume {
        let mut volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": reference}});
        types::patch::merge_patch(&mut volume, more);
        testkit::object(volume)
    }

    fn claim(volume: &str) -> PersistentVolumeClaim {
        testkit::object(json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"volumeName": volume}}))
    }

    #[test]
    fn follows_its_claim() {
        let (none, mine) = (json!(null), json!({"name": "c", "namespace": "n", "uid": "u"}));
        let reserved = json!({"name": "c", "namespace": "n"});
        let plain = json!({});
        assert_eq!(step(&volume(none, plain.clone()), None), VolumeStep::Phase("Available"));
        assert_eq!(step(&volume(reserved, plain.clone()), None), VolumeStep::Phase("Available"));
        assert_eq!(step(&volume(mine.clone(), plain.clone()), None), VolumeStep::Reclaim);
        let bound = volume(mine.clone(), plain);
        assert_eq!(step(&bound, Some(&claim("v"))), VolumeStep::Phase("Bound"));
        assert_eq!(step(&bound, Some(&claim(""))), VolumeStep::Unfinished);
        assert_eq!(step(&bound, Some(&claim("w"))), VolumeStep::Unbind);
        let block = volume(mine.clone(), json!({"spec": {"volumeMode": "Block"}}));
        assert!(matches!(step(&block, Some(&claim(""))), VolumeStep::Mismatch(_)));
        let made = json!({"metadata": {"annotations": {storage::PROVISIONED_BY: "x.io/y"}},
            "spec": {"persistentVolumeReclaimPolicy": "Delete"}});
        let made = volume(mine, made);
        assert_eq!(step(&made, Some(&claim("w"))), VolumeStep::Reclaim, "made for it in vain");
        assert!(has_deleter(&made) && !has_deleter(&block));
    }
}
