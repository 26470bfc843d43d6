//! Making, deleting and letting go of pods.

use std::sync::Arc;

use client::{Key, PodView};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::State;
use super::ask::*;
use super::tally::Pods;
use crate::common::pod_control::{is_gone, only};
use crate::common::pods::is_ready;
use crate::common::slow_start::slow_start;
use crate::context::Context;
use crate::error::Error;

/// What deleting pods came to.
#[derive(Default)]
pub(super) struct Deleted {
    pub(super) pods: i32,
    /// How many of them were ready.
    pub(super) ready: i32,
    pub(super) failure: Option<Error>,
}

/// Takes the finalizer off. The pod may be gone, or another one of its name be there.
pub(super) async fn release(ctx: &Context, pod: &PodView) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"uid": pod.metadata.uid,
        "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    let api = ctx.api::<PodView>(pod.metadata.namespace.as_deref().unwrap_or_default());
    api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

impl State {
    /// Makes these pods. Gives how many there are, and the first failure.
    pub(super) async fn create(&self, key: &Key, job: &Job, pods: Vec<Pod>) -> (i32, Option<Error>) {
        let api = self.ctx.api::<Pod>(key.namespace());
        self.expectations.expect(key, pods.len(), std::iter::empty());
        let mut left = pods.iter();
        let (done, untried, failure) = slow_start(pods.len(), || {
            let (api, pod) = (&api, left.next());
            async move {
                let Some(pod) = pod else { return Ok(()) };
                match api.create(&PostParams::default(), pod).await {
                    Ok(pod) => {
                        let said = format!("Created pod: {}", pod.name_any());
                        self.recorder.normal(job, "SuccessfulCreate", said);
                        Ok(())
                    }
                    Err(error) => {
                        self.expectations.created(key);
                        if !client::is_namespace_terminating(&error) {
                            let why = format!("Error creating: {}", client::message(&error));
                            self.recorder.warning(job, "FailedCreate", why);
                        }
                        Err(error)
                    }
                }
            }
        })
        .await;
        (0..untried).for_each(|_| self.expectations.created(key));
        let failure = failure.filter(|error| !client::is_namespace_terminating(error));
        let error =
            failure.map(|source| Error::Api { attempt: format!("create a pod of job {key}"), source });
        (done as i32, error)
    }

    /// Deletes pods that are too many: they are not to be counted.
    pub(super) async fn delete_uncounted(&self, key: &Key, job: &Job, pods: &Pods) -> Deleted {
        self.expectations.expect(key, 0, pods.iter().map(|pod| uid(pod).to_owned()));
        let deleted = self.each(pods, |pod| async move {
            let outcome = async {
                if has_finalizer(&pod) {
                    release(&self.ctx, &pod).await?;
                }
                self.delete_one(job, &pod).await
            };
            let outcome = outcome.await;
            if outcome.is_err() {
                self.expectations.deleted(key, uid(&pod));
            }
            outcome
        });
        deleted.await
    }

    /// Deletes the pods of a job that ends. They keep their finalizers until they are counted.
    pub(super) async fn delete_counted(&self, job: &Job, pods: &Pods) -> Deleted {
        self.each(pods, |pod| async move { self.delete_one(job, &pod).await }).await
    }

    async fn each<F>(&self, pods: &Pods, act: impl Fn(Arc<PodView>) -> F) -> Deleted
    where
        F: Future<Output = Result<(), kube::Error>>,
    {
        let outcomes = join_all(pods.iter().map(|pod| act(pod.clone()))).await;
        let mut deleted = Deleted::default();
        for (pod, outcome) in pods.iter().zip(outcomes) {
            match outcome {
                Err(source) if !is_gone(&source) => {
                    let attempt = format!("delete pod {}", pod.name_any());
                    deleted.failure = Some(Error::Api { attempt, source });
                }
                _ => {
                    deleted.pods += 1;
                    deleted.ready += i32::from(is_ready(pod));
                }
            }
        }
        deleted
    }

    async fn delete_one(&self, job: &Job, pod: &PodView) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let api = self.ctx.api::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        match api.delete(&name, &only(pod)).await {
            Ok(_) => {
                self.recorder.normal(job, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) => {
                if !is_gone(&error) {
                    let why = format!("Error deleting: {}", client::message(&error));
                    self.recorder.warning(job, "FailedDelete", why);
                }
                Err(error)
            }
        }
    }

    /// Takes finalizers off. Gives the UIDs of the pods that are without, and the first failure.
    pub(super) async fn release_all(&self, key: &Key, pods: &Pods) -> (Vec<String>, Option<Error>) {
        self.releases.expect(key, pods.iter().map(|pod| uid(pod).to_owned()));
        let outcomes = join_all(pods.iter().map(|pod| release(&self.ctx, pod))).await;
        let (mut done, mut failure) = (Vec::with_capacity(pods.len()), None);
        for (pod, outcome) in pods.iter().zip(outcomes) {
            if outcome.is_err() {
                // No change will tell of it.
                self.releases.seen(key, uid(pod));
            }
            match outcome {
                Err(source) if !is_gone(&source) => {
                    let attempt = format!("take the finalizer off pod {}", pod.name_any());
                    failure = Some(Error::Api { attempt, source });
                }
                _ => done.push(uid(pod).to_owned()),
            }
        }
        (done, failure)
    }
}
