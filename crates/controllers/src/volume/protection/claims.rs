//! Claims stay as long as pods use them (kubernetes/kubernetes,
//! `pkg/controller/volume/pvcprotection/pvc_protection_controller.go`).

use std::sync::Arc;

use client::{Change, Controller, Index, Informer, Key, Next, PodView, VolumeView, WorkQueue};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Need, need, write};
use crate::common::pods::is_finished;
use crate::context::Context;
use crate::error::{Attempt, Error};
use crate::volume::users::{claims_of, pods_by_claim};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct State {
    ctx: Context,
    claims: Informer<PersistentVolumeClaim>,
    users: Index<PodView>,
}

pub(crate) fn start(ctx: &Context) {
    let (claims, pods) = (ctx.informers.of::<PersistentVolumeClaim>(), ctx.informers.of::<PodView>());
    let users = pods_by_claim(&pods);
    let controller = Controller::new("pvc-protection")
        .watches_changes(&claims, |change, queue| {
            let claim = change.object();
            if need(&claim.metadata, FINALIZER) != Need::Nothing {
                queue.add(Key::of(&**claim));
            }
        })
        .watches_changes(&pods, on_pod);
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), claims, users }), look);
}

/// A pod that has just come to a node holds its claims; all others may have let go of some.
fn on_pod(change: &Change<PodView>, queue: &WorkQueue<Key>) {
    let pod = change.object();
    if let Change::Updated { old, new } = change
        && old.metadata.uid != new.metadata.uid
    {
        claims_of(old).for_each(|claim| queue.add(claim));
    }
    let holds = pod.node_name.is_some() && !is_finished(pod) && !is_shut_down(pod);
    if !holds || matches!(change, Change::Deleted(_)) {
        claims_of(pod).for_each(|claim| queue.add(claim));
    }
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(claim) = state.claims.get(&key) else { return Ok(Next::Done) };
    let on = match need(&claim.metadata, FINALIZER) {
        Need::Nothing => return Ok(Next::Done),
        Need::Add => true,
        Need::Check if state.is_used(&claim, &key).await? => return Ok(Next::Done),
        Need::Check => false,
    };
    write(&state.ctx.api(key.namespace()), &*claim, FINALIZER, on).await?;
    Ok(Next::Done)
}

impl State {
    /// The cache may not have heard of a pod; only the server's word lets a claim go.
    async fn is_used(&self, claim: &PersistentVolumeClaim, key: &Key) -> Result<bool, Error> {
        if self.users.get(key.as_str()).iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        let api = self.ctx.api::<PodView>(key.namespace());
        let pods = api.list(&ListParams::default()).await;
        let pods = pods.attempt(|| format!("look for the pods that use claim {key}"))?;
        Ok(pods.items.iter().any(|pod| uses(pod, claim)))
    }
}

/// An agent does not start a pod whose claim is going, so only a pod that has a node counts (`podUsesPVC`).
fn uses(pod: &PodView, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.name_any();
    pod.node_name.is_some()
        && pod.volumes.iter().flatten().any(|volume| match volume {
            VolumeView::Claim(used) => **used == *name,
            VolumeView::Ephemeral(volume) => {
                !is_shut_down(pod) && pod.own_claim(volume) == name && pod.disowns(claim).is_none()
            }
            VolumeView::Disk(_) => false,
        })
}

/// Only finalizers keep the pod: one of them may wait for the claim to go (`podIsShutDown`).
fn is_shut_down(pod: &PodView) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}
