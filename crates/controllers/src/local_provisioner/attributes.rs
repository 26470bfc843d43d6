//! Classes of attributes: this storage has none that could change, and says so (kubernetes-csi/external-resizer,
//! `pkg/modifycontroller/modify_volume.go`).

use base::Timestamp;
use client::is_deleting;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};
use types::local_volumes::DRIVER;

use super::provision::is_ours;

/// What a modification is called in a claim's conditions.
const MODIFIES: [&str; 2] = ["ModifyingVolume", "ModifyVolumeError"];

/// What a claim is to say; and whether it has got what it asks for by now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: Value,
    /// Why it cannot be; nothing if it is not asked for any more.
    pub(super) refusal: Option<String>,
}

fn wanted(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_attributes_class_name.as_deref().filter(|name| !name.is_empty())
}

/// Why a claim that names a class of attributes cannot have a volume.
pub(super) fn refusal(claim: &PersistentVolumeClaim) -> Option<String> {
    let class = wanted(claim)?;
    Some(format!(
        "volumeAttributesClassName {class:?}: volumes of {DRIVER} have no attributes that can be changed"
    ))
}

/// Answers a claim that has a volume and wants another class for it, or does not want it any more.
pub(super) fn plan(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    now: Timestamp,
) -> Option<Answer> {
    let spec = volume.spec.as_ref()?;
    let bound = spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.metadata.uid);
    if !is_ours(volume) || !bound || is_deleting(&claim.metadata) {
        return None;
    }
    let status = claim.status.clone().unwrap_or_default();
    let others = status.conditions.iter().flatten().filter(|c| !MODIFIES.contains(&c.type_.as_str()));
    let mut conditions: Vec<Value> = others.map(|c| json!(c)).collect();
    let said = status.modify_volume_status;
    let has = spec.volume_attributes_class_name.as_deref();
    match wanted(claim).filter(|class| Some(*class) != has) {
        Some(class) => {
            let known = |s: &k8s_openapi::api::core::v1::ModifyVolumeStatus| {
                s.status == "Infeasible" && s.target_volume_attributes_class_name.as_deref() == Some(class)
            };
            if said.as_ref().is_some_and(known) {
                return None;
            }
            let why = refusal(claim)?;
            conditions.push(json!({"type": "ModifyVolumeError", "status": "True", "message": why,
                "lastTransitionTime": now.to_string()}));
            let target = json!({"targetVolumeAttributesClassName": class, "status": "Infeasible"});
            Some(Answer {
                status: json!({"modifyVolumeStatus": target, "conditions": conditions}),
                refusal: Some(why),
            })
        }
        None => said.map(|_| Answer {
            status: json!({"modifyVolumeStatus": null,
                "conditions": if conditions.is_empty() { Value::Null } else { json!(conditions) }}),
            refusal: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(wanted: Value, said: Value) -> Option<Answer> {
        let claim = json!({"metadata": {"name": "c", "uid": "1"}, "spec": {"volumeAttributesClassName": wanted},
            "status": {"phase": "Bound", "modifyVolumeStatus": said,
                "conditions": [{"type": "Own", "status": "True"}, {"type": "ModifyVolumeError", "status": "True"}]}});
        let volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"uid": "1"},
            "csi": {"driver": DRIVER, "volumeHandle": "v"}}});
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        plan(&testkit::object(claim), &testkit::object(volume), now)
    }

    #[test]
    fn what_is_not_to_be_had_is_said_once_and_taken_back() {
        let said = answer(json!("gold"), Value::Null).unwrap();
        let why = "volumeAttributesClassName \"gold\": volumes of local.gantry.io have no attributes that can be changed";
        assert_eq!(said.refusal.as_deref(), Some(why));
        let target = json!({"targetVolumeAttributesClassName": "gold", "status": "Infeasible"});
        assert_eq!(said.status["modifyVolumeStatus"], target);
        let kinds = |answer: &Answer| {
            let all = answer.status["conditions"].as_array().unwrap().clone();
            all.iter().map(|c| c["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&said), ["Own", "ModifyVolumeError"]);
        assert_eq!(answer(json!("gold"), target.clone()), None);
        assert!(answer(json!("silver"), target.clone()).is_some());
        let back = answer(Value::Null, target).unwrap();
        assert_eq!((back.refusal.as_ref(), &back.status["modifyVolumeStatus"]), (None, &Value::Null));
        assert_eq!(kinds(&back), ["Own"]);
        assert_eq!(answer(Value::Null, Value::Null), None);
    }
}
