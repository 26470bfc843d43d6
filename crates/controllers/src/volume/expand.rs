//! Whose affair it is that a claim wants to grow (kubernetes/kubernetes,
//! `pkg/controller/volume/expand/expand_controller.go`): no volume is resized here, but by those who have made it.

use std::sync::Arc;

use client::{Change, Controller, Informer, Key, Next, Recorder, is_deleting, storage};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::context::Context;
use crate::error::Error;

struct State {
    recorder: Recorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

pub(crate) fn start(ctx: &Context) {
    let (claims, volumes) =
        (ctx.informers.of::<PersistentVolumeClaim>(), ctx.informers.of::<PersistentVolume>());
    let controller =
        Controller::new("volume-expand").after(&volumes).watches_changes(&claims, |change, queue| {
            let grows = match change {
                Change::Added(claim) => wants_more(claim),
                Change::Updated { old, new } => storage::requested(new) > storage::requested(old),
                Change::Deleted(_) => false,
            };
            if grows {
                queue.add(Key::of(&**change.object()));
            }
        });
    let recorder = ctx.recorder("volume_expand");
    ctx.spawn(controller, Arc::new(State { recorder, claims, volumes }), look);
}

/// Whether a claim has less than it asks for.
fn wants_more(claim: &PersistentVolumeClaim) -> bool {
    let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    storage::claim_phase(claim) == "Bound" && storage::requested(claim) > storage::storage(has)
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(claim) = state.claims.get(&key).filter(|claim| wants_more(claim)) else { return Ok(Next::Done) };
    let volume = state.volumes.store().by_name("", storage::volume_of(&claim));
    let is_its = volume.is_some_and(|volume| {
        storage::claim_of(&volume).is_some_and(|reference| reference.uid == claim.metadata.uid)
    });
    if is_its && !is_deleting(&claim.metadata) {
        let said = "waiting for an external controller to expand this PVC";
        state.recorder.normal(&*claim, "ExternalExpanding", said);
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use kube::api::{Patch, PatchParams};
    use serde_json::json;

    use super::*;
    use crate::testing::cluster;
    use crate::volume::testing::{claim, class, volume, wait_claim, wait_for_event};

    #[tokio::test]
    async fn people_are_told_who_makes_a_claim_larger() {
        let cluster = cluster().await;
        let mut class = class("elastic", "x.io/y", false);
        class.allow_volume_expansion = Some(true);
        cluster.create_global(&class).await;
        cluster.create_global(&volume("v", json!({"storageClassName": "elastic"}))).await;
        cluster
            .create("default", &claim("c", json!({"storageClassName": "elastic", "volumeName": "v"})))
            .await;
        wait_claim(&cluster, "c", "Bound").await;
        let more = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}));
        let claims = cluster.api::<PersistentVolumeClaim>("default");
        claims.patch("c", &PatchParams::default(), &more).await.unwrap();
        let why = "waiting for an external controller to expand this PVC";
        wait_for_event(&cluster, "c", "ExternalExpanding", why).await;
        let status = claims.get("c").await.unwrap().status.unwrap();
        assert_eq!(status.capacity.unwrap()["storage"].0, "1Gi", "that is for somebody else to write");
    }
}
