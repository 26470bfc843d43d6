use std::sync::Arc;

use client::{ClaimName, Key, Next, PodClaimView, PodView, devices, is_deleting};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{State, make};
use crate::error::{Attempt, Error};

/// Who writes the names of claims into the status of pods.
const MANAGER: &str = "ResourceClaimController";

/// Makes what a pod lacks, and says so in its status (`syncPod`).
pub(super) async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(pod) = state.pods.get(&key).filter(|pod| !is_deleting(&pod.metadata)) else {
        return Ok(Next::Done);
    };
    let mut names = Vec::new();
    let mut news = false;
    for (claim, name) in pod.resource_claims() {
        if name == ClaimName::Needless || claim.resource_claim_template_name.is_none() {
            continue;
        }
        match state.provide(&pod, claim, name).await {
            Ok(found) => {
                news |= name != ClaimName::Made(&found);
                names.push(json!({"name": claim.name, "resourceClaimName": found}));
            }
            Err(error) => {
                let said = format!("PodResourceClaim {}: {error}", claim.name);
                state.recorder.warning(&*pod, "FailedResourceClaimCreation", said);
                return Err(error);
            }
        }
    }
    if news {
        let patch = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"uid": pod.metadata.uid},
            "status": {"resourceClaimStatuses": names}});
        let params = PatchParams::apply(MANAGER).force();
        let written = state.ctx.api::<PodView>(key.namespace());
        let written = written.patch_status(key.name(), &params, &Patch::Apply(patch)).await;
        match written {
            Err(error) if client::is_not_found(&error) => return Ok(Next::Done),
            other => drop(other.attempt(|| format!("update pod {key} ResourceClaimStatuses"))?),
        }
    }
    if pod.node_name.is_some() {
        state.reserve(&pod).await?;
    }
    Ok(Next::Done)
}

impl State {
    /// The name of a claim that was made, now or before (`handleClaim`).
    async fn provide(
        &self,
        pod: &PodView,
        claim: &PodClaimView,
        name: ClaimName<'_>,
    ) -> Result<String, Error> {
        let key = Key::of(pod);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let ClaimName::Made(name) = name
            && let Some(found) = self.claims.store().by_name(key.namespace(), name)
            && devices::disowned(&found, key.namespace(), key.name(), uid).is_none()
        {
            return Ok(name.to_owned());
        }
        // One that is there already: the pod's status could not be written.
        if let Some(found) = self.find_made(uid, &claim.name) {
            return Ok(found.name_any());
        }
        let template = claim.resource_claim_template_name.as_deref().unwrap_or_default();
        let Some(template) = self.templates.store().by_name(key.namespace(), template) else {
            return Err(Error::NoTemplate { name: template.to_owned() });
        };
        let api = self.ctx.api::<ResourceClaim>(key.namespace());
        let wanted = make::claim(pod, &claim.name, &template);
        let made = api.create(&PostParams::default(), &wanted).await;
        crate::metrics::device_claim(made.is_ok(), make::asks_as_admin(&wanted));
        let made = Arc::new(made.attempt(|| format!("create ResourceClaim for {}", claim.name))?);
        let found = made.name_any();
        self.made.lock().insert((uid.to_owned(), claim.name.clone()), made);
        Ok(found)
    }

    /// What was made for a pod's claim, as the cache has it or as we remember it (`findPodResourceClaim`).
    fn find_made(&self, uid: &str, name: &str) -> Option<Arc<ResourceClaim>> {
        let is = |claim: &Arc<ResourceClaim>| {
            claim.annotations().get(devices::POD_CLAIM).map(String::as_str) == Some(name)
        };
        let mut made = self.made.lock();
        let known = (uid.to_owned(), name.to_owned());
        if let Some(found) = self.owned.get(uid).into_iter().find(is) {
            made.remove(&known);
            return Some(found);
        }
        made.get(&known).cloned()
    }

    /// What pods have that got their node from somebody else than the scheduler.
    async fn reserve(&self, pod: &PodView) -> Result<(), Error> {
        let key = Key::of(pod);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        for (_, name) in pod.resource_claims() {
            let Some(object) = name.object() else { continue };
            let Some(claim) = self.claims.store().by_name(key.namespace(), object) else { return Ok(()) };
            if let ClaimName::Made(_) = name
                && let Some(why) = devices::disowned(&claim, key.namespace(), key.name(), uid)
            {
                return Err(Error::ForeignClaim { why });
            }
            if devices::allocation(&claim).is_none() || devices::is_reserved_for(&claim, uid) {
                continue;
            }
            let mut claim = ResourceClaim::clone(&claim);
            let status = claim.status.get_or_insert_default();
            status.reserved_for.get_or_insert_default().push(devices::consumer(key.name(), uid));
            let api = self.ctx.api::<ResourceClaim>(key.namespace());
            let written = api.replace_status(object, &PostParams::default(), &claim).await;
            written.attempt(|| format!("reserve claim {}/{object} for pod", key.namespace()))?;
        }
        Ok(())
    }
}
