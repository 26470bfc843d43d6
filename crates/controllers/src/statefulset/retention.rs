//! Whose the claims are, so that they go with their owners (kubernetes/kubernetes,
//! `pkg/controller/statefulset/stateful_set_utils.go`, `isClaimOwnerUpToDate`).
//!
//! | deleted | scaled | owner |
//! |---|---|---|
//! | Retain | Retain | nobody |
//! | Delete | Retain | the set |
//! | Retain | Delete | the pod, once it is too much |
//! | Delete | Delete | the set; the pod, once it is too much |

use client::PodView;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::common::claim::owner_reference;

/// Whether claims go when the set is deleted, and when it is scaled down.
pub(super) fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |value: Option<&String>| value.is_some_and(|v| v == "Delete");
    policy.map_or((false, false), |p| (deletes(p.when_deleted.as_ref()), deletes(p.when_scaled.as_ref())))
}

/// Who owns a new claim.
pub(super) fn first_owners(set: &StatefulSet) -> Option<Vec<OwnerReference>> {
    policy(set).0.then(|| vec![owner_reference(set)])
}

fn is_about<O: Resource<DynamicType = ()>>(reference: &OwnerReference, owner: &O) -> bool {
    reference.kind == O::kind(&())
        && reference.api_version == O::api_version(&())
        && Some(&reference.name) == owner.meta().name.as_ref()
}

/// Whether a claim belongs to another pod of this pod's name, which is to take it along. `uid` is none when the pod is
/// yet to be made.
pub(super) fn is_stale(set: &StatefulSet, claim: &ObjectMeta, pod_name: &str, uid: Option<&str>) -> bool {
    policy(set).1
        && claim.owner_references.iter().flatten().any(|r| {
            r.kind == "Pod" && r.api_version == "v1" && r.name == pod_name && Some(r.uid.as_str()) != uid
        })
}

/// The owners that a claim should have, if it has not.
pub(super) fn owners(
    set: &StatefulSet,
    claim: &ObjectMeta,
    pod: &PodView,
    condemned: bool,
) -> Option<Vec<OwnerReference>> {
    let has = claim.owner_references.clone().unwrap_or_default();
    let ours = |r: &OwnerReference| is_about(r, set) || is_about(r, pod);
    let uid = |meta: &ObjectMeta| meta.uid.clone().unwrap_or_default();
    // What belongs to one of the same name that is gone is for the garbage collector.
    let stale = has.iter().any(|r| {
        (is_about(r, set) && r.uid != uid(&set.metadata)) || (is_about(r, pod) && r.uid != uid(&pod.metadata))
    });
    if stale {
        return None;
    }
    let mut wanted: Vec<OwnerReference> = has.iter().filter(|r| !ours(r)).cloned().collect();
    let managed_elsewhere = wanted.iter().any(|r| r.controller == Some(true));
    let (deleted, scaled) = policy(set);
    if !managed_elsewhere && scaled && condemned {
        wanted.push(owner_reference(pod));
    } else if !managed_elsewhere && deleted {
        wanted.push(owner_reference(set));
    }
    let same = wanted.len() == has.len() && wanted.iter().all(|r| has.contains(r));
    (!same).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        testkit::object(
            json!({"metadata": {"name": "web", "uid": "s"}, "spec": {"selector": {}, "template": {},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}}),
        )
    }

    fn claim(owners: Value) -> ObjectMeta {
        testkit::object(json!({"ownerReferences": owners}))
    }

    #[test]
    fn claims_belong_to_those_they_go_with() {
        let pod: PodView = testkit::object(json!({"metadata": {"name": "web-0", "uid": "p"}}));
        for (deleted, scaled, wanted, too_much) in [
            ("Retain", "Retain", "", ""),
            ("Delete", "Retain", "s", "s"),
            ("Retain", "Delete", "", "p"),
            ("Delete", "Delete", "s", "p"),
        ] {
            let set = set(deleted, scaled);
            for (condemned, uid) in [(false, wanted), (true, too_much)] {
                for before in ["", "s", "p"] {
                    let reference = match before {
                        "s" => json!([owner_reference(&set)]),
                        "p" => json!([owner_reference(&pod)]),
                        _ => json!([]),
                    };
                    let now = owners(&set, &claim(reference), &pod, condemned);
                    let uids: Option<Vec<String>> = now.map(|refs| refs.into_iter().map(|r| r.uid).collect());
                    let expected =
                        (before != uid).then(|| uid.split_terminator(' ').map(str::to_owned).collect());
                    assert_eq!(uids, expected, "{deleted} {scaled} {condemned} {before}");
                }
            }
        }
    }

    #[test]
    fn others_owners_are_left_alone() {
        let pod: PodView = testkit::object(json!({"metadata": {"name": "web-0", "uid": "p"}}));
        let other = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x", "controller": true});
        let set = set("Delete", "Delete");
        assert_eq!(owners(&set, &claim(json!([other])), &pod, false), None);
        let former =
            json!({"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "q", "controller": true});
        assert_eq!(owners(&set, &claim(json!([former])), &pod, true), None);
        assert!(is_stale(&set, &claim(json!([former])), "web-0", None));
        assert!(!is_stale(&set, &claim(json!([other])), "web-0", None));
    }
}
