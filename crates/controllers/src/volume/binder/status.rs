//! What claims and volumes say of themselves.

use base::Timestamp;
use client::storage::{annotation, claim_phase, storage};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// On a volume, by whoever has made it larger (upstream: `AnnPreResizeCapacity`).
const SIZE_BEFORE_GROWTH: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// A claim's status in a phase, if that is another one than it has (`updateClaimStatus`).
pub(super) fn of_claim(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaimStatus> {
    let old = claim.status.clone().unwrap_or_default();
    let mut new = old.clone();
    new.phase = Some(phase.to_owned());
    let Some((known, volume)) = volume.and_then(|volume| Some((volume, volume.spec.as_ref()?))) else {
        (new.access_modes, new.capacity, new.current_volume_attributes_class_name) = (None, None, None);
        return (new != old).then_some(new);
    };
    new.access_modes.clone_from(&volume.access_modes);
    // Once it is bound, those who resize volumes and change their attributes say how large and of what sort it is.
    if claim_phase(claim) != phase {
        if let Some(size) = size_before_growth(known) {
            new.capacity.get_or_insert_default().insert("storage".to_owned(), size);
        } else if old.capacity.is_none()
            || storage(volume.capacity.as_ref()) != storage(old.capacity.as_ref())
        {
            new.capacity.clone_from(&volume.capacity);
        }
        if claim_phase(claim) == "Pending" && phase == "Bound" {
            new.current_volume_attributes_class_name.clone_from(&volume.volume_attributes_class_name);
        }
    }
    (new != old).then_some(new)
}

/// How large the file system of a volume is that has grown itself, as long as its file system has not.
fn size_before_growth(volume: &PersistentVolume) -> Option<Quantity> {
    let size = annotation(&volume.metadata, SIZE_BEFORE_GROWTH)?;
    size.parse::<types::Quantity>().ok()?;
    Some(Quantity(size.to_owned()))
}

/// A volume's status in a phase, if that is another one than it has (`updateVolumePhase`).
pub(super) fn of_volume(
    volume: &PersistentVolume,
    phase: &str,
    message: Option<&str>,
    now: Timestamp,
) -> Option<PersistentVolumeStatus> {
    let old = volume.status.clone().unwrap_or_default();
    if old.phase.as_deref() == Some(phase) {
        return None;
    }
    Some(PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        message: message.map(str::to_owned),
        last_phase_transition_time: Some(Time(now)),
        ..old
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(status: Value) -> PersistentVolumeClaim {
        testkit::object(json!({"spec": {}, "status": status}))
    }

    #[test]
    fn a_claim_gets_its_size_when_it_is_bound_and_keeps_it() {
        let volume: PersistentVolume = testkit::object(json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "5Gi"}, "volumeAttributesClassName": "gold"}}));
        let bound = of_claim(&claim(json!({"phase": "Pending"})), "Bound", Some(&volume)).unwrap();
        assert_eq!(bound.capacity.as_ref().unwrap()["storage"].0, "5Gi");
        assert_eq!(bound.current_volume_attributes_class_name.as_deref(), Some("gold"));
        let small =
            json!({"phase": "Bound", "capacity": {"storage": "4Gi"}, "accessModes": ["ReadWriteOnce"]});
        assert_eq!(of_claim(&claim(small), "Bound", Some(&volume)), None);
        let mut grown = volume.clone();
        let mark = [(SIZE_BEFORE_GROWTH.to_owned(), "3Gi".to_owned())];
        grown.metadata.annotations = Some(mark.into());
        let grown = of_claim(&claim(json!({"phase": "Pending"})), "Bound", Some(&grown)).unwrap();
        assert_eq!(grown.capacity.unwrap()["storage"].0, "3Gi", "its file system has not grown yet");
        let lost = of_claim(&PersistentVolumeClaim { status: Some(bound), ..claim(json!({})) }, "Lost", None);
        let expected = PersistentVolumeClaimStatus { phase: Some("Lost".into()), ..Default::default() };
        assert_eq!(lost, Some(expected));
    }
}
