//! Pods get claims of devices made of templates, and claims that nobody uses any more are freed (kubernetes/kubernetes,
//! `pkg/controller/resourceclaim/controller.go`).
//!
//! ```text
//! pod ─► claim of its template ─► its name in the pod's status ─► (scheduler: allocated, reserved)
//! pod over, or gone ─► its reservation goes ─► the last one: deallocated ─► finalizer off ─► made for the pod: deleted
//! ```

mod claims;
mod make;
mod pods;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Change, Controller, Index, Informer, Key, PodView, Recorder, WorkQueue, is_deleting};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::common::pods::is_finished;
use crate::context::Context;

pub(crate) use make::asks_as_admin;

struct State {
    ctx: Context,
    recorder: Recorder,
    pods: Informer<PodView>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    /// Claims by the UID of the pod that they were made for.
    owned: Index<ResourceClaim>,
    /// What was made and the cache need not know of yet, by the pod's UID and its own name for it.
    made: Mutex<HashMap<(String, String), Arc<ResourceClaim>>>,
}

pub(crate) fn start(ctx: &Context) {
    let (pods, claims) = (ctx.informers.of::<PodView>(), ctx.informers.of::<ResourceClaim>());
    let templates = ctx.informers.of::<ResourceClaimTemplate>();
    crate::metrics::claims_of(&ctx.drain, &claims);
    let users: Index<PodView> = pods.index("resource-claims", |pod: &PodView| {
        claims_of(pod).map(|key| key.as_str().to_owned()).collect::<Vec<_>>()
    });
    let waiting: Index<PodView> = pods.index("resource-claim-templates", |pod: &PodView| {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let names = pod.spec.resource_claims.iter().flatten();
        let names = names.filter_map(|claim| claim.resource_claim_template_name.clone());
        names.map(|name| Key::new(&namespace, &name).as_str().to_owned()).collect::<Vec<_>>()
    });
    let owned = claims.index("owning-pod", |claim: &ResourceClaim| owning_pod(claim).map(|(_, uid)| uid));

    let by_pod = Controller::new("resource-claim").after(&claims);
    let by_claim = Controller::new("resource-claim-use").workers(10).after(&pods);
    let (pod_queue, claim_queue) = (by_pod.queue(), by_claim.queue());
    let by_pod = by_pod
        .watches_changes(&pods, |change, queue| {
            let pod = change.object();
            if !matches!(change, Change::Deleted(_)) && may_need_work(pod) {
                queue.add(Key::of(&**pod));
            }
        })
        // A template may be late.
        .watches_changes(&templates, move |change, queue| {
            if let Change::Added(template) = change {
                let pods = waiting.get(Key::of(&**template).as_str());
                pods.iter().filter(|pod| may_need_work(pod)).for_each(|pod| queue.add(Key::of(&**pod)));
            }
        });
    pods.on_change(move |change| release(change, &claim_queue));
    let by_claim = by_claim.watches_changes(&claims, move |change, queue| {
        let key = Key::of(&**change.object());
        for pod in users.get(key.as_str()).iter().filter(|pod| may_need_work(pod)) {
            pod_queue.add(Key::of(&**pod));
        }
        if !matches!(change, Change::Deleted(_)) {
            queue.add(key);
        }
    });
    let recorder = ctx.recorder("resource_claim");
    let made = Mutex::default();
    let state = State { ctx: ctx.clone(), recorder, pods, claims, templates, owned, made };
    let state = Arc::new(state);
    ctx.spawn(by_pod, state.clone(), pods::look);
    ctx.spawn(by_claim, state, claims::look);
}

/// The claims that a pod uses.
fn claims_of(pod: &PodView) -> impl Iterator<Item = Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let names = pod.resource_claims().filter_map(|(_, name)| name.object()).chain(pod.extended_claim());
    names.map(move |name| Key::new(namespace, name))
}

fn may_need_work(pod: &PodView) -> bool {
    !is_deleting(&pod.metadata) && pod.spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
}

/// A pod that will not run (any more) lets go of its claims (`podNeedsClaims`).
fn release(change: &Change<PodView>, queue: &WorkQueue<Key>) {
    if matches!(change, Change::Deleted(_)) || is_done(change.object()) {
        claims_of(change.object()).for_each(|claim| queue.add(claim));
    }
    // Under the same name there may be another one.
    if let Change::Updated { old, new } = change
        && old.metadata.uid != new.metadata.uid
    {
        claims_of(old).for_each(|claim| queue.add(claim));
    }
}

/// Whether nothing of the pod runs, nor ever will (`isPodDone`).
fn is_done(pod: &PodView) -> bool {
    is_finished(pod) || (is_deleting(&pod.metadata) && pod.node_name.is_none())
}

/// The name and UID of the pod that a claim was made for.
fn owning_pod(claim: &ResourceClaim) -> Option<(String, String)> {
    let mut owners = claim.owner_references().iter();
    let owner = owners.find(|o| o.controller == Some(true) && o.api_version == "v1" && o.kind == "Pod")?;
    Some((owner.name.clone(), owner.uid.clone()))
}

#[cfg(test)]
mod tests;
