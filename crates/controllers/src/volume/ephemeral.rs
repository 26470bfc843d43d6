//! Pods get the claims that they bring along (kubernetes/kubernetes, `pkg/controller/volume/ephemeral/controller.go`).

use std::sync::Arc;

use client::{
    Change, Controller, Index, Informer, Key, Next, PodView, Recorder, VolumeView, WorkQueue, is_deleting,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use super::users::pods_by_claim;
use crate::common::claim::owner_reference;
use crate::context::Context;
use crate::error::{Attempt, Error};

struct State {
    ctx: Context,
    recorder: Recorder,
    pods: Informer<PodView>,
    claims: Informer<PersistentVolumeClaim>,
}

pub(crate) fn start(ctx: &Context) {
    let (pods, claims) = (ctx.informers.of::<PodView>(), ctx.informers.of::<PersistentVolumeClaim>());
    let users = pods_by_claim(&pods);
    let controller = Controller::new("ephemeral-volume")
        .watches_changes(&pods, |change, queue| match change {
            Change::Added(pod) if needs_claims(pod) => queue.add(Key::of(&**pod)),
            // What a pod brings along never changes.
            _ => {}
        })
        .watches_changes(&claims, move |change, queue| on_claim(change, &users, queue));
    let recorder = ctx.recorder("ephemeral_volume");
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), recorder, pods, claims }), look);
}

fn needs_claims(pod: &PodView) -> bool {
    own_volumes(pod).next().is_some() && !is_deleting(&pod.metadata)
}

fn own_volumes(pod: &PodView) -> impl Iterator<Item = &str> {
    pod.volumes.iter().flatten().filter_map(|volume| match volume {
        VolumeView::Ephemeral(name) => Some(&**name),
        VolumeView::Claim(_) | VolumeView::Disk(_) => None,
    })
}

/// A claim that goes while its pod stays is made anew.
fn on_claim(change: &Change<PersistentVolumeClaim>, users: &Index<PodView>, queue: &WorkQueue<Key>) {
    if let Change::Deleted(claim) = change {
        let pods = users.get(Key::of(&**claim).as_str());
        pods.iter().filter(|pod| needs_claims(pod)).for_each(|pod| queue.add(Key::of(&**pod)));
    }
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(pod) = state.pods.get(&key).filter(|pod| needs_claims(pod)) else { return Ok(Next::Done) };
    let mut whole = None;
    for volume in own_volumes(&pod) {
        let outcome = state.provide(&pod, volume, &mut whole).await;
        if let Err(error) = outcome {
            let said = format!("ephemeral volume {volume}: {error}");
            state.recorder.warning(&*pod, "FailedBinding", said);
            return Err(error);
        }
    }
    Ok(Next::Done)
}

impl State {
    /// The views of pods have no templates: the first claim that is missing makes us read the whole pod.
    async fn provide(&self, pod: &PodView, volume: &str, whole: &mut Option<Pod>) -> Result<(), Error> {
        let key = Key::of(pod);
        let name = pod.own_claim(volume);
        if let Some(claim) = self.claims.store().by_name(key.namespace(), &name) {
            return match pod.disowns(&claim) {
                Some(why) => Err(Error::ForeignClaim { why }),
                None => Ok(()),
            };
        }
        if whole.is_none() {
            let api = self.ctx.api::<Pod>(key.namespace());
            *whole = api.get_opt(key.name()).await.attempt(|| format!("look at pod {key}"))?;
        }
        let same = |found: &&Pod| found.metadata.uid == pod.metadata.uid && !is_deleting(&found.metadata);
        let Some(claim) = whole.as_ref().filter(same).and_then(|whole| claim(whole, volume, &name)) else {
            return Ok(());
        };
        let api = self.ctx.api::<PersistentVolumeClaim>(key.namespace());
        let made = api.create(&PostParams::default(), &claim).await;
        crate::metrics::ephemeral_claim(made.is_ok());
        made.map(drop).attempt(|| format!("create PVC {name}"))
    }
}

/// The claim for a volume of a pod.
fn claim(pod: &Pod, volume: &str, name: &str) -> Option<PersistentVolumeClaim> {
    let PodSpec { volumes, .. } = pod.spec.as_ref()?;
    let found: &Volume = volumes.iter().flatten().find(|v| v.name == volume)?;
    let template = found.ephemeral.as_ref()?.volume_claim_template.clone()?;
    let meta = template.metadata.unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: meta.annotations,
            labels: meta.labels,
            owner_references: Some(vec![owner_reference(pod)]),
            ..Default::default()
        },
        spec: Some(template.spec),
        status: None,
    })
}

#[cfg(test)]
mod tests;
