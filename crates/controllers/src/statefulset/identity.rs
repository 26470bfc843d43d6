//! What makes a pod the one of its ordinal: name, labels, host name and claims (kubernetes/kubernetes,
//! `pkg/controller/statefulset/stateful_set_utils.go`).

use client::{Labelled, PodView};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::common::history::REVISION;
use crate::common::template::pod_of;

pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(super) fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set_name(set))
}

/// The ordinal of a name that only a pod of the set has. Such a number has one way to be written.
pub(super) fn ordinal_in(set: &StatefulSet, name: &str) -> Option<i32> {
    let digits = name.strip_prefix(set_name(set))?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal >= 0 && ordinal.to_string() == digits).then_some(ordinal)
}

pub(super) fn ordinal(set: &StatefulSet, pod: &PodView) -> Option<i32> {
    ordinal_in(set, pod.metadata.name.as_deref()?)
}

/// Whether the pod bears its own name as a label. An adopted one may not.
pub(super) fn is_labelled(pod: &PodView) -> bool {
    pod.labels().and_then(|l| l.get(POD_NAME)) == pod.metadata.name.as_ref()
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    let name = template.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}-{ordinal}", set_name(set))
}

fn templates(spec: Option<&StatefulSetSpec>) -> impl Iterator<Item = &PersistentVolumeClaim> {
    spec.into_iter().flat_map(|s| s.volume_claim_templates.iter().flatten())
}

/// The names of the claims of an ordinal.
pub(super) fn claim_names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = String> {
    templates(set.spec.as_ref()).map(move |template| claim_name(set, template, ordinal))
}

/// Whether a claim of this name is one of the set's.
pub(super) fn is_claim_of(set: &StatefulSet, name: &str) -> bool {
    templates(set.spec.as_ref()).any(|template| {
        let prefix = template.metadata.name.as_deref().unwrap_or_default();
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| ordinal_in(set, rest).is_some())
    })
}

/// The claims of an ordinal as they are made. They bear the labels that the set selects by.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let selected = set.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selected.clone());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(set, template, ordinal)),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                finalizers: template.metadata.finalizers.clone(),
                ..Default::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    templates(set.spec.as_ref()).map(claim).collect()
}

/// The pod of an ordinal.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let name = pod_name(set, ordinal);
    let mut pod = pod_of(set, template);
    pod.metadata.generate_name = None;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(REVISION.into(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain =
        set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|service| !service.is_empty());
    let mut volumes: Vec<Volume> = templates(set.spec.as_ref())
        .map(|template| Volume {
            name: template.metadata.name.clone().unwrap_or_default(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                read_only: None,
            }),
            ..Default::default()
        })
        .collect();
    // What the template says of a volume of a claim's name does not count.
    let others: Vec<Volume> = spec
        .volumes
        .take()
        .into_iter()
        .flatten()
        .filter(|v| volumes.iter().all(|c| c.name != v.name))
        .collect();
    volumes.extend(others);
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    pod.metadata.name = Some(name);
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_tell_ordinals_and_claims() {
        let set: StatefulSet = testkit::object(json!({"metadata": {"name": "web-1"}, "spec": {
            "selector": {"matchLabels": {"app": "x"}}, "template": {},
            "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"app": "y", "a": "b"}}}]}}));
        assert_eq!(ordinal_in(&set, "web-1-12"), Some(12));
        for other in ["web-1", "web-1-", "web-1-01", "web-1--1", "web-1-+1", "web-1-x", "web-12", "db-1-1"] {
            assert_eq!(ordinal_in(&set, other), None, "{other}");
        }
        assert!(
            is_claim_of(&set, "data-web-1-3")
                && !is_claim_of(&set, "data-web-1")
                && !is_claim_of(&set, "web-1-3")
        );
        let claim = claims(&set, 3).remove(0);
        assert_eq!(claim.metadata.name.as_deref(), Some("data-web-1-3"));
        let labels = claim.metadata.labels.unwrap();
        assert_eq!((labels["app"].as_str(), labels["a"].as_str()), ("x", "b"));
    }

    #[test]
    fn a_pod_has_its_claims_as_volumes() {
        let set: StatefulSet =
            testkit::object(json!({"metadata": {"name": "web"}, "spec": {"serviceName": "svc",
            "selector": {}, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}));
        let pod = pod(&set, &set.spec.as_ref().unwrap().template, "web-abc", 2);
        let labels = pod.metadata.labels.unwrap();
        assert_eq!((labels[POD_NAME].as_str(), labels[POD_INDEX].as_str()), ("web-2", "2"));
        assert_eq!(labels[REVISION], "web-abc");
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-2"), Some("svc")));
        let volumes = spec.volumes.unwrap();
        assert_eq!(volumes.len(), 2);
        assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "data-web-2");
        assert_eq!(volumes[1].name, "tmp");
    }
}
