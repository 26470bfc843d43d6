//! Pods that nobody will count any more lose the finalizer that keeps them (kubernetes/kubernetes,
//! `pkg/controller/job/job_controller.go`, `syncOrphanPod`).

use std::sync::Arc;

use client::{Change, Controller, Informer, Key, Next, PodView, controller_of};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::ask::*;
use super::pods;
use crate::common::owned::Owned;
use crate::context::Context;
use crate::error::{Attempt, Error};

struct State {
    ctx: Context,
    jobs: Informer<Job>,
    pods: Informer<PodView>,
}

pub(super) fn start(ctx: &Context, jobs: &Informer<Job>, pods: &Informer<PodView>) {
    let owned = Owned::new(pods);
    let known = jobs.clone();
    let controller = Controller::new("job-orphan-pods")
        .watches_changes(pods, move |change, queue| {
            let pod = change.object();
            if !matches!(change, Change::Deleted(_)) && has_finalizer(pod) && is_orphan(pod, &known) {
                queue.add(Key::of(&**pod));
            }
        })
        .watches_changes(jobs, move |change, queue| {
            let job = change.object();
            if matches!(change, Change::Deleted(_)) || ending(job).is_some() {
                let pods = owned.of(job.metadata.uid.as_deref().unwrap_or_default());
                pods.iter().filter(|pod| has_finalizer(pod)).for_each(|pod| queue.add(Key::of(&**pod)));
            }
        });
    let state = State { ctx: ctx.clone(), jobs: jobs.clone(), pods: pods.clone() };
    ctx.spawn(controller, Arc::new(state), look);
}

fn owner_of(pod: &PodView) -> Option<&OwnerReference> {
    controller_of(&pod.metadata)
}

fn is_job(owner: &OwnerReference) -> bool {
    owner.kind == "Job" && owner.api_version == "batch/v1"
}

fn will_count(job: &Job) -> bool {
    ending(job).is_none() || job.spec.as_ref().is_some_and(is_managed_elsewhere)
}

/// Whether no job will count the pod, as far as the cache knows.
fn is_orphan(pod: &PodView, jobs: &Informer<Job>) -> bool {
    let Some(owner) = owner_of(pod) else { return true };
    let job = jobs.store().by_name(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name);
    let job = job.filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid));
    is_job(owner) && !job.is_some_and(|job| will_count(&job))
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(pod) = state.pods.get(&key).filter(|pod| has_finalizer(pod)) else { return Ok(Next::Done) };
    if !is_orphan(&pod, &state.jobs) {
        return Ok(Next::Done);
    }
    // A job that the cache lacks may be one that it does not show yet.
    if let Some(owner) = owner_of(&pod) {
        let api = state.ctx.api::<Job>(key.namespace());
        let job = api.get_opt(&owner.name).await.attempt(|| format!("look at the job of pod {key}"))?;
        if job.is_some_and(|job| job.metadata.uid.as_ref() == Some(&owner.uid) && will_count(&job)) {
            return Ok(Next::Done);
        }
    }
    match pods::release(&state.ctx, &pod).await {
        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(Next::Done),
        outcome => outcome.map(|()| Next::Done).attempt(|| format!("let go of pod {key}")),
    }
}
