use std::sync::Arc;

use client::{Key, Next, PodView, devices, is_deleting};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::{State, is_done, owning_pod};
use crate::error::{Attempt, Error};

/// Lets go of a claim whatever does not need it any more (`syncClaim`).
pub(super) async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(claim) = state.claims.get(&key) else { return Ok(Next::Done) };
    // The cache has it; nobody needs to remember it.
    state.made.lock().retain(|_, made| made.metadata.uid != claim.metadata.uid);
    let before = devices::consumers(&claim);
    let mut valid = Vec::with_capacity(before.len());
    for consumer in before {
        if state.is_valid(&key, consumer).await? {
            valid.push(consumer.clone());
        }
    }
    let unused = valid.is_empty();
    if valid.len() < before.len() {
        let mut new = ResourceClaim::clone(&claim);
        let status = new.status.get_or_insert_default();
        status.reserved_for = Some(valid);
        // The last one gives the devices back; whoever comes next may get others, elsewhere.
        if unused && devices::is_protected(&claim.metadata) {
            status.allocation = None;
        }
        state.free(&key, new).await?;
    } else if unused && is_deleting(&claim.metadata) && devices::is_protected(&claim.metadata) {
        let mut new = ResourceClaim::clone(&claim);
        if let Some(status) = &mut new.status {
            status.allocation = None;
        }
        state.free(&key, new).await?;
    }
    if unused {
        state.delete_if_over(&key, &claim).await?;
    }
    Ok(Next::Done)
}

impl State {
    /// Whether somebody still needs the claim. Only the server's word takes it from one that the cache has not.
    async fn is_valid(&self, key: &Key, consumer: &ResourceClaimConsumerReference) -> Result<bool, Error> {
        if consumer.resource != "pods" || consumer.api_group.as_deref().is_some_and(|g| !g.is_empty()) {
            return Err(Error::UnknownConsumer {
                claim: key.to_string(),
                consumer: consumer.resource.clone(),
            });
        }
        let uid = Some(consumer.uid.as_str());
        if let Some(pod) = self.pods.store().by_name(key.namespace(), &consumer.name) {
            return Ok(pod.metadata.uid.as_deref() == uid && !is_done(&pod));
        }
        let pod = self.ctx.api::<PodView>(key.namespace()).get_opt(&consumer.name).await;
        let pod = pod.attempt(|| format!("look for pod {}/{}", key.namespace(), consumer.name))?;
        Ok(pod.is_some_and(|pod| pod.metadata.uid.as_deref() == uid))
    }

    /// Writes the status, and takes the finalizer off what is not allocated.
    async fn free(&self, key: &Key, claim: ResourceClaim) -> Result<(), Error> {
        let api = self.ctx.api::<ResourceClaim>(key.namespace());
        let written = api.replace_status(key.name(), &PostParams::default(), &claim).await;
        let mut new = written.attempt(|| format!("update the status of ResourceClaim {key}"))?;
        if devices::allocation(&new).is_some() || !devices::is_protected(&new.metadata) {
            return Ok(());
        }
        new.finalizers_mut().retain(|f| f != devices::FINALIZER);
        match api.replace(key.name(), &PostParams::default(), &new).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("take the finalizer off ResourceClaim {key}")),
        }
    }

    /// What was made for a pod goes when the pod is over: nobody may delete the pod for a while. A pod that the cache
    /// has not may be a new one; the garbage collector knows.
    async fn delete_if_over(&self, key: &Key, claim: &ResourceClaim) -> Result<(), Error> {
        let Some((name, uid)) = owning_pod(claim) else { return Ok(()) };
        let Some(pod) = self.pods.store().by_name(key.namespace(), &name) else { return Ok(()) };
        let over = pod.metadata.uid.as_deref() != Some(&*uid) || is_done(&pod);
        if !over || is_deleting(&claim.metadata) {
            return Ok(());
        }
        let preconditions = Preconditions { uid: claim.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.ctx.api::<ResourceClaim>(key.namespace()).delete(key.name(), &params).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("delete claim {key}")),
        }
    }
}
