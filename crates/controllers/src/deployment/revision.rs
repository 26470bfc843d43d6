//! Which replica set is the new one, and what is written on each (kubernetes/kubernetes,
//! `pkg/controller/deployment/util/deployment_util.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::sizes::{fenceposts, replicas, wanted};
use crate::common::claim::owner_reference;
use crate::common::hash::short_hash;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's size when the set was last scaled, and with the surge.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub(super) const HASH: &str = "pod-template-hash";
/// Annotations that are about the one object they are on.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
];
/// `revision-history` is cut at this length.
const HISTORY_BYTES: usize = 2000;

/// A deployment's replica sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    /// The one with the present template.
    pub(super) new: Option<Arc<ReplicaSet>>,
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    pub(super) fn of(deployment: &Deployment, all: Vec<Arc<ReplicaSet>>) -> Self {
        let mut old = oldest_first(&all);
        let template = deployment.spec.as_ref().map(|s| bare(&s.template));
        // Should several fit, the oldest is the new one: the choice must not change.
        let fits =
            |set: &Arc<ReplicaSet>| set.spec.as_ref().and_then(|s| s.template.as_ref()).map(bare) == template;
        let new = old.iter().position(fits).map(|place| old.remove(place));
        Self { new, old }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// The only set with replicas, or the latest when none has any; `None` when several have.
    pub(super) fn active_or_latest(&self) -> Option<Arc<ReplicaSet>> {
        let mut active = self.all().filter(|s| replicas(s) > 0);
        match (active.next(), active.next()) {
            (None, _) => self.new.clone().or_else(|| self.old.last().cloned()),
            (only, None) => only.cloned(),
            _ => None,
        }
    }
}

pub(super) fn oldest_first(sets: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let mut sets = sets.to_vec();
    sets.sort_by_key(|s| (s.metadata.creation_timestamp.as_ref().map(|t| t.0), s.metadata.name.clone()));
    sets
}

/// A template without the label that tells the replica sets' pods apart.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        metadata.creation_timestamp = None;
        if let Some(labels) = &mut metadata.labels {
            labels.remove(HASH);
        }
    }
    template
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// A whole number written on a set.
pub(super) fn annotated(set: &ReplicaSet, name: &str) -> Option<i32> {
    annotation(&set.metadata, name)?.parse().ok()
}

pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The revision that the new set has or gets.
pub(super) fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|s| revision(&s.metadata)).max().unwrap_or(0) + 1
}

/// What is written on the new set (upstream: `SetNewReplicaSetAnnotations`).
pub(super) fn annotations(
    deployment: &Deployment,
    set: Option<&ReplicaSet>,
    next: i64,
) -> BTreeMap<String, String> {
    let had = set.and_then(|s| s.metadata.annotations.clone()).unwrap_or_default();
    let mut has = had.clone();
    let of_deployment = deployment.metadata.annotations.iter().flatten();
    has.extend(
        of_deployment.filter(|(k, _)| !OWN.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())),
    );
    let before = set.map_or(0, |s| revision(&s.metadata));
    if before < next {
        has.insert(REVISION.into(), next.to_string());
        // A set that is the new one for the second time remembers which revisions it has been.
        if before > 0 {
            let mut history: Vec<String> =
                had.get(HISTORY).map(|h| h.split(',').map(str::to_owned).collect()).unwrap_or_default();
            history.push(before.to_string());
            while history.join(",").len() > HISTORY_BYTES {
                history.remove(0);
            }
            has.insert(HISTORY.into(), history.join(","));
        }
    }
    if set.is_none() {
        has.extend(size_annotations(deployment));
    }
    has
}

/// Notes what a set's size is a share of.
pub(super) fn size_annotations(deployment: &Deployment) -> [(String, String); 2] {
    let all = wanted(deployment);
    [(DESIRED.into(), all.to_string()), (MAX.into(), (all + fenceposts(deployment).0).to_string())]
}

/// A short name for a template. Upstream hashes a Go structure; which hash it is matters to nobody, as long as it
/// stays the same.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let text = serde_json::to_vec(&bare(template)).unwrap_or_default();
    let salt = collisions.map(i32::to_le_bytes);
    short_hash(text.into_iter().chain(salt.into_iter().flatten()))
}

/// The replica set for the deployment's present template.
pub(super) fn new_set(deployment: &Deployment, sets: &Sets, size: i32) -> Option<ReplicaSet> {
    let spec = deployment.spec.as_ref()?;
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    Some(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            labels: Some(labels),
            annotations: Some(annotations(deployment, None, next_revision(&sets.old))),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..Default::default()
        },
        spec: Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    })
}

/// Old sets beyond the number to be kept, the oldest first.
pub(super) fn superfluous(deployment: &Deployment, sets: &Sets) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit);
    let Some(limit) = limit.filter(|l| *l != i32::MAX) else { return Vec::new() };
    let mut old: Vec<_> =
        sets.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).cloned().collect();
    let surplus = old.len().saturating_sub(limit.max(0) as usize);
    old.sort_by_key(|s| revision(&s.metadata));
    old.truncate(surplus);
    old.retain(|s| {
        let status = s.status.clone().unwrap_or_default();
        let seen = status.observed_generation.unwrap_or(0) >= s.metadata.generation.unwrap_or(0);
        status.replicas == 0 && replicas(s) == 0 && seen
    });
    old
}
