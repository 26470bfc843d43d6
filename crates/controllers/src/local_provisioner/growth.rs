//! How a claim that asks for more gets it, step by step (kubernetes-csi/external-resizer,
//! `pkg/controller/expand_and_recover.go`).

use base::Timestamp;
use client::is_deleting;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};
use types::local_volumes::{DIRECTORY, KIND};

use super::provision::{bytes, is_ours, requested};

/// The next step; a status is what the claim is to say.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Growth {
    Nothing,
    Begin(Value),
    /// The volume gets this size.
    Enlarge(String),
    LeaveToNode(Value),
    End(Value),
}

const RESIZES: [&str; 4] =
    ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

pub(super) fn plan(claim: &PersistentVolumeClaim, volume: &PersistentVolume, now: Timestamp) -> Growth {
    let status = claim.status.clone().unwrap_or_default();
    let spec = volume.spec.clone().unwrap_or_default();
    let bound = status.phase.as_deref() == Some("Bound")
        && spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.metadata.uid);
    if !is_ours(volume) || !bound || is_deleting(&claim.metadata) || is_deleting(&volume.metadata) {
        return Growth::Nothing;
    }
    let storage = |amounts: Option<&std::collections::BTreeMap<_, _>>| {
        let text: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            amounts.and_then(|a| a.get("storage"));
        text.map_or(0, |q| bytes(&q.0))
    };
    let (wanted, text) = requested(claim);
    let (given, said) = (storage(spec.capacity.as_ref()), storage(status.capacity.as_ref()));
    let step = status.allocated_resource_statuses.as_ref().and_then(|s| s.get("storage")).map(String::as_str);
    if given < wanted {
        let begun = step == Some("ControllerResizeInProgress")
            && storage(status.allocated_resources.as_ref()) == wanted;
        if begun {
            return Growth::Enlarge(text);
        }
        return Growth::Begin(json!({
            "allocatedResources": {"storage": text},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
            "conditions": conditions(claim, Some(("Resizing", "")), now),
        }));
    }
    if said >= given || said >= wanted {
        return Growth::Nothing;
    }
    let attributes = spec.csi.and_then(|csi| csi.volume_attributes).unwrap_or_default();
    if attributes.get(KIND).map(String::as_str) == Some(DIRECTORY) {
        return Growth::End(json!({
            "capacity": {"storage": spec.capacity.and_then(|c| c.get("storage").cloned())},
            "allocatedResourceStatuses": {"storage": null},
            "conditions": conditions(claim, None, now),
        }));
    }
    if matches!(step, Some("NodeResizePending" | "NodeResizeInProgress" | "NodeResizeInfeasible")) {
        return Growth::Nothing;
    }
    const WAITING: &str =
        "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
    Growth::LeaveToNode(json!({
        "allocatedResourceStatuses": {"storage": "NodeResizePending"},
        "conditions": conditions(claim, Some(("FileSystemResizePending", WAITING)), now),
    }))
}

/// The claim's conditions with this one instead of all that are about its size.
fn conditions(claim: &PersistentVolumeClaim, new: Option<(&str, &str)>, now: Timestamp) -> Value {
    let old = claim.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut all: Vec<Value> =
        old.filter(|c| !RESIZES.contains(&c.type_.as_str())).map(|c| json!(c)).collect();
    if let Some((kind, message)) = new {
        let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let mut condition =
            json!({"type": kind, "status": "True", "lastTransitionTime": seconds.to_string()});
        if !message.is_empty() {
            condition["message"] = message.into();
        }
        all.push(condition);
    }
    if all.is_empty() { Value::Null } else { all.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(claim: Value, given: &str, kind: &str) -> Growth {
        let mut whole = json!({"metadata": {"uid": "1"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        types::patch::merge_patch(&mut whole, claim);
        let volume = json!({"metadata": {"name": "pvc-1"}, "spec": {"capacity": {"storage": given},
            "claimRef": {"uid": "1"},
            "csi": {"driver": "local.gantry.io", "volumeHandle": "pvc-1", "volumeAttributes": {"kind": kind}}}});
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        plan(&testkit::object(whole), &testkit::object(volume), now)
    }

    #[test]
    fn one_step_after_the_other() {
        let Growth::Begin(status) = next(json!({}), "1Gi", "image") else { panic!("begins") };
        assert_eq!(status["conditions"][0]["type"], "Resizing");
        let begun = json!({"status": {"allocatedResources": {"storage": "2Gi"},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"}}});
        assert_eq!(next(begun.clone(), "1Gi", "image"), Growth::Enlarge("2Gi".into()));
        let Growth::LeaveToNode(status) = next(begun.clone(), "2Gi", "image") else { panic!("is left") };
        assert_eq!(status["conditions"][0]["type"], "FileSystemResizePending");
        let left = json!({"status": {"allocatedResourceStatuses": {"storage": "NodeResizePending"}}});
        assert_eq!(next(left, "2Gi", "image"), Growth::Nothing);
        let Growth::End(status) = next(begun, "2Gi", "directory") else { panic!("ends") };
        assert_eq!(status["capacity"]["storage"], "2Gi");
        assert_eq!(
            next(json!({"status": {"capacity": {"storage": "2Gi"}}}), "2Gi", "image"),
            Growth::Nothing
        );
        assert_eq!(next(json!({"status": {"phase": "Lost"}}), "1Gi", "image"), Growth::Nothing);
    }
}
