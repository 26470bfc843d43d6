use std::sync::Arc;

use client::{Key, PodView, Recorder};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};

use super::expectations::Expectations;
use super::slow_start::slow_start;
use crate::context::Context;
use crate::error::Error;

/// Makes and deletes pods for their owners, notes what the cache is to show, and says what was done
/// (kubernetes/kubernetes, `pkg/controller/controller_utils.go`, `RealPodControl`).
pub(crate) struct PodControl {
    ctx: Context,
    pub(crate) recorder: Recorder,
    pub(crate) expectations: Arc<Expectations>,
}

/// Why not all was done.
#[derive(Debug)]
pub(crate) enum Failure {
    Create(Error),
    Delete(Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Create(error) | Self::Delete(error) => error,
        }
    }
}

impl PodControl {
    pub(crate) fn new(ctx: &Context, component: &str) -> Self {
        Self { ctx: ctx.clone(), recorder: ctx.recorder(component), expectations: Arc::default() }
    }

    /// Makes some pods and deletes others; gives the first failure.
    pub(crate) async fn apply<'a, O: Resource<DynamicType = ()>>(
        &self,
        key: &Key,
        owner: &O,
        create: impl ExactSizeIterator<Item = &'a Pod>,
        delete: &[Arc<PodView>],
    ) -> Option<Failure> {
        if create.len() == 0 && delete.is_empty() {
            return None;
        }
        let uids = delete.iter().map(|pod| pod.metadata.uid.clone().unwrap_or_default());
        self.expectations.expect(key, create.len(), uids);
        let uncreated = self.create(key, owner, create).await;
        let undeleted = self.delete(key, owner, delete).await;
        uncreated.map(Failure::Create).or(undeleted.map(Failure::Delete))
    }

    async fn create<'a, O: Resource<DynamicType = ()>>(
        &self,
        key: &Key,
        owner: &O,
        mut pods: impl ExactSizeIterator<Item = &'a Pod>,
    ) -> Option<Error> {
        let api = self.ctx.api::<Pod>(key.namespace());
        let (_, untried, failure) = slow_start(pods.len(), || {
            let (api, pod) = (&api, pods.next());
            async move {
                let Some(pod) = pod else { return Ok(()) };
                match api.create(&PostParams::default(), pod).await {
                    Ok(pod) => {
                        let said = format!("Created pod: {}", pod.name_any());
                        self.recorder.normal(owner, "SuccessfulCreate", said);
                        Ok(())
                    }
                    Err(error) => {
                        self.expectations.created(key);
                        if !client::is_namespace_terminating(&error) {
                            let why = format!("Error creating: {}", client::message(&error));
                            self.recorder.warning(owner, "FailedCreate", why);
                        }
                        Err(error)
                    }
                }
            }
        })
        .await;
        (0..untried).for_each(|_| self.expectations.created(key));
        // Once its namespace is going there is no use in trying again.
        let failure = failure.filter(|error| !client::is_namespace_terminating(error));
        failure.map(|source| Error::Api { attempt: format!("create a pod of {key}"), source })
    }

    async fn delete<O: Resource<DynamicType = ()>>(
        &self,
        key: &Key,
        owner: &O,
        victims: &[Arc<PodView>],
    ) -> Option<Error> {
        let api = self.ctx.api::<Pod>(key.namespace());
        let deletions = victims.iter().map(|pod| {
            let api = &api;
            async move {
                let name = pod.name_any();
                match api.delete(&name, &only(pod)).await {
                    Ok(_) => {
                        self.recorder.normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
                        None
                    }
                    Err(error) => {
                        self.expectations.deleted(key, pod.metadata.uid.as_deref().unwrap_or_default());
                        if is_gone(&error) {
                            return None;
                        }
                        let why = format!("Error deleting: {}", client::message(&error));
                        self.recorder.warning(owner, "FailedDelete", why);
                        Some(Error::Api { attempt: format!("delete pod {name}"), source: error })
                    }
                }
            }
        });
        join_all(deletions).await.into_iter().flatten().next()
    }
}

/// Deletes this very pod, not another one that has its name by now.
pub(crate) fn only(pod: &PodView) -> DeleteParams {
    let only = Preconditions { uid: pod.metadata.uid.clone(), ..Default::default() };
    DeleteParams { preconditions: Some(only), ..Default::default() }
}

/// Gone already, or another one of the same name by now.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    client::is_not_found(error) || client::is_conflict(error)
}
