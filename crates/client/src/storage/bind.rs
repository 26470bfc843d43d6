use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};

use super::matching::is_bound_to;
use super::{BOUND_BY_CONTROLLER, annotate, annotation, claim_of};

/// A volume's reference to its claim.
pub fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    crate::reference(claim)
}

/// The volume with a reference to the claim, unless it has one (kubernetes/kubernetes,
/// `component-helpers/storage/volume/pv_helpers.go`, `GetBindVolumeToClaim`).
pub fn bound_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let complete = claim_of(volume).is_some_and(|known| {
        known.name == claim.metadata.name
            && known.namespace == claim.metadata.namespace
            && known.uid == claim.metadata.uid
    });
    let ours = !is_bound_to(volume, claim) && annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_none();
    if complete && !ours {
        return None;
    }
    let mut volume = volume.clone();
    volume.spec.get_or_insert_default().claim_ref = Some(reference_to(claim));
    if ours {
        annotate(&mut volume.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    Some(volume)
}
