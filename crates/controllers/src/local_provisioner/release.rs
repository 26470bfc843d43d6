//! What becomes of volumes that nobody claims any more.

use std::sync::Arc;

use client::{Key, Next, is_deleting};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use types::local_volumes::{DRIVER, FINALIZER, NODE};

use super::State;
use super::provision::{PROVISIONED_BY, is_ours};
use crate::error::{Attempt, Error};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Its node deals with the data first.
    Delete,
    /// Its node is no more, nor is the data.
    LetGo,
}

fn plan(volume: &PersistentVolume, node_is_there: impl Fn(&str) -> bool) -> Step {
    if !is_ours(volume) {
        return Step::Nothing;
    }
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let made_by = volume.metadata.annotations.as_ref().and_then(|a| a.get(PROVISIONED_BY));
    if !is_deleting(&volume.metadata) {
        let ours = made_by.map(String::as_str) == Some(DRIVER);
        return if ours && phase == "Released" && policy == Some("Delete") {
            Step::Delete
        } else {
            Step::Nothing
        };
    }
    let node = node_of(volume).unwrap_or_default();
    let held = volume.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    if held && phase != "Bound" && !node_is_there(node) { Step::LetGo } else { Step::Nothing }
}

/// The node that keeps the data of a volume of ours.
pub(super) fn node_of(volume: &PersistentVolume) -> Option<&str> {
    let csi = volume.spec.as_ref()?.csi.as_ref().filter(|_| is_ours(volume))?;
    csi.volume_attributes.as_ref()?.get(NODE).map(String::as_str)
}

pub(super) async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(volume) = state.volumes.get(&key) else { return Ok(Next::Done) };
    let api: Api<PersistentVolume> = Api::all(state.ctx.client());
    let meta = &volume.metadata;
    match plan(&volume, |node| state.nodes.store().by_name("", node).is_some()) {
        Step::Nothing => {}
        Step::Delete => {
            let only =
                Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
            let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
            match api.delete(key.name(), &params).await {
                Err(error) if client::is_not_found(&error) => {}
                deleted => drop(deleted.attempt(|| format!("delete volume {}", key.name()))?),
            }
        }
        Step::LetGo => {
            let rest: Vec<_> = meta.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
            let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": rest}});
            match api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(error) if client::is_not_found(&error) => {}
                patched => drop(patched.attempt(|| format!("let volume {} go", key.name()))?),
            }
        }
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn only_what_is_released_and_to_be_deleted_goes() {
        let plan = |more: Value| {
            let mut volume = json!({"metadata": {"name": "v", "annotations": {PROVISIONED_BY: DRIVER}, "finalizers": [FINALIZER]},
                "spec": {"persistentVolumeReclaimPolicy": "Delete",
                    "csi": {"driver": DRIVER, "volumeHandle": "v", "volumeAttributes": {NODE: "n1"}}},
                "status": {"phase": "Released"}});
            types::patch::merge_patch(&mut volume, more);
            plan(&testkit::object(volume), |node| node == "n1")
        };
        let deleted = |more: Value| {
            let mut all = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
            types::patch::merge_patch(&mut all, more);
            plan(all)
        };
        assert_eq!(plan(json!({})), Step::Delete);
        assert_eq!(plan(json!({"status": {"phase": "Bound"}})), Step::Nothing);
        assert_eq!(plan(json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})), Step::Nothing);
        assert_eq!(plan(json!({"metadata": {"annotations": null}})), Step::Nothing);
        assert_eq!(plan(json!({"spec": {"csi": {"driver": "x.io"}}})), Step::Nothing);
        assert_eq!(deleted(json!({})), Step::Nothing);
        let elsewhere = json!({"spec": {"csi": {"volumeAttributes": {NODE: "lost"}}}});
        assert_eq!(deleted(elsewhere.clone()), Step::LetGo);
        let mut bound = elsewhere;
        bound["status"]["phase"] = "Bound".into();
        assert_eq!(deleted(bound), Step::Nothing);
    }
}
