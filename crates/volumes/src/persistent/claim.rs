//! From a pod's volume to the claim and the PersistentVolume behind it (kubernetes/kubernetes,
//! `pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go`, `createVolumeSpec`).

use client::controller_of;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client};

use crate::error::ClaimFault;

/// The claim that a pod's volume names, and whether the pod will only read.
pub(crate) fn of_volume(pod: &Pod, volume: &core::Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), source.read_only == Some(true)));
    }
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some((format!("{pod}-{}", volume.name), false))
}

/// The volume, once it and the claim belong together.
pub(crate) async fn resolve(
    client: &Client,
    pod: &Pod,
    volume: &core::Volume,
    name: &str,
) -> Result<PersistentVolume, ClaimFault> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get(name).await.map_err(ClaimFault::Fetch)?;
    if volume.ephemeral.is_some()
        && controller_of(&claim.metadata).map(|o| &o.uid) != pod.metadata.uid.as_ref()
    {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        return Err(ClaimFault::NotOwned {
            namespace: namespace.to_owned(),
            claim: name.to_owned(),
            pod: text(&pod.metadata.name),
        });
    }
    let bound = bound_to(&claim)?.to_owned();
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let pv = volumes.get(&bound).await;
    let pv = pv.map_err(|source| ClaimFault::FetchVolume { name: bound.clone(), source })?;
    belongs(&pv, &claim)?;
    check_mode(pod, &volume.name, &pv)?;
    Ok(pv)
}

/// The volume of a claim that can be used.
fn bound_to(claim: &PersistentVolumeClaim) -> Result<&str, ClaimFault> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(ClaimFault::Deleting);
    }
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|n| !n.is_empty());
    name.filter(|_| phase == Some("Bound")).ok_or(ClaimFault::Unbound)
}

fn belongs(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), ClaimFault> {
    let name = || pv.metadata.name.clone().unwrap_or_default();
    let reference = pv.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let Some(reference) = reference else { return Err(ClaimFault::NoReference(name())) };
    if reference.uid == claim.metadata.uid {
        return Ok(());
    }
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    Err(ClaimFault::OtherClaim {
        volume: name(),
        found: text(&reference.uid),
        wanted: text(&claim.metadata.uid),
    })
}

/// Containers mount file systems, and get block devices as devices.
fn check_mode(pod: &Pod, name: &str, pv: &PersistentVolume) -> Result<(), ClaimFault> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let (mut mounted, mut mapped) = (false, false);
    for container in containers {
        mounted |= container.volume_mounts.iter().flatten().any(|m| m.name == name);
        mapped |= container.volume_devices.iter().flatten().any(|d| d.name == name);
    }
    let mode = pv.spec.as_ref().and_then(|s| s.volume_mode.as_deref()).unwrap_or("Filesystem");
    let wrong = |place| ClaimFault::Mode { volume: name.to_owned(), mode: mode.to_owned(), place };
    match mode {
        "Block" if mounted => Err(wrong("volumeMounts")),
        "Block" => Ok(()),
        _ if mapped => Err(wrong("volumeDevices")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn claims_and_volumes_belong_together() {
        let claim = |more: Value| -> PersistentVolumeClaim {
            object(json!({"metadata": {"name": "c", "uid": "1", "deletionTimestamp": more["deleted"]},
                "spec": {"volumeName": more["volume"]}, "status": {"phase": more["phase"]}}))
        };
        let say =
            |claim: &PersistentVolumeClaim| bound_to(claim).map(str::to_owned).map_err(|e| e.to_string());
        assert_eq!(say(&claim(json!({"volume": "v", "phase": "Bound"}))), Ok("v".into()));
        assert_eq!(say(&claim(json!({"volume": "v", "phase": "Pending"}))), Err("PVC is not bound".into()));
        assert_eq!(say(&claim(json!({"phase": "Bound"}))), Err("PVC is not bound".into()));
        let going = claim(json!({"volume": "v", "phase": "Bound", "deleted": "2026-01-01T00:00:00Z"}));
        assert_eq!(say(&going), Err("PVC is being deleted".into()));
        let pv = |reference: Value| -> PersistentVolume {
            object(json!({"metadata": {"name": "v"}, "spec": {"claimRef": reference}}))
        };
        let claim = claim(json!({"volume": "v", "phase": "Bound"}));
        assert!(belongs(&pv(json!({"uid": "1"})), &claim).is_ok());
        let other = belongs(&pv(json!({"uid": "2"})), &claim).unwrap_err().to_string();
        assert_eq!(other, "found PV object v but its pv.Spec.ClaimRef.UID 2 does not point to claim.UID 1");
        assert!(belongs(&pv(Value::Null), &claim).unwrap_err().to_string().contains("nil pv.Spec.ClaimRef"));
    }

    #[test]
    fn modes_fit() {
        let pod: Pod = object(json!({"spec": {"containers": [{"name": "a",
            "volumeMounts": [{"name": "m", "mountPath": "/m"}], "volumeDevices": [{"name": "d", "devicePath": "/d"}]}]}}));
        let check = |name: &str, mode: &str| {
            let pv = object(json!({"metadata": {}, "spec": {"volumeMode": mode}}));
            check_mode(&pod, name, &pv).map_err(|e| e.to_string())
        };
        assert_eq!((check("m", "Filesystem"), check("d", "Block")), (Ok(()), Ok(())));
        assert_eq!(
            check("m", "Block"),
            Err("volume m has volumeMode Block, but is specified in volumeMounts".into())
        );
        assert_eq!(
            check("d", "Filesystem"),
            Err("volume d has volumeMode Filesystem, but is specified in volumeDevices".into())
        );
    }

    #[test]
    fn ephemeral_claims_are_called_after_pod_and_volume() {
        let pod: Pod = object(json!({"metadata": {"name": "p"}, "spec": {"containers": []}}));
        let of = |volume: Value| of_volume(&pod, &object(volume));
        assert_eq!(of(json!({"name": "v", "ephemeral": {}})), Some(("p-v".into(), false)));
        let named = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}});
        assert_eq!(of(named), Some(("c".into(), true)));
        assert_eq!(of(json!({"name": "v", "emptyDir": {}})), None);
    }
}
