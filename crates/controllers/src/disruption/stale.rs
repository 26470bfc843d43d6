use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Controller, Informer, Key, Next, PodView, is_deleting};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::count::PATIENCE;
use crate::common::pods::{condition, is_finished};
use crate::context::Context;
use crate::error::{Attempt, Error};

struct State {
    ctx: Context,
    pods: Informer<PodView>,
}

/// Takes back what pods say of being disrupted if they are still there a while later (upstream:
/// `syncStalePodDisruption`).
pub(super) fn start(ctx: &Context, pods: Informer<PodView>) {
    let controller = Controller::new("stale-disruption")
        .watches(&pods, |pod: &PodView| condition(pod, "DisruptionTarget").map(|_| Key::of(pod)));
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), pods }), look);
}

/// How long until a pod's condition is stale, if it can become so.
fn stale_in(pod: &PodView, now: Timestamp) -> Option<Duration> {
    if is_deleting(&pod.metadata) || is_finished(pod) {
        return None;
    }
    // A node agent may take long to end what it has decided to end.
    let target = condition(pod, "DisruptionTarget").filter(|c| {
        c.status.as_deref() == Some("True") && c.reason.as_deref() != Some("TerminationByKubelet")
    })?;
    let since = target.last_transition_time.as_ref()?.0;
    Some(PATIENCE.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default()))
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let now = state.ctx.now();
    let Some(pod) = state.pods.get(&key) else { return Ok(Next::Done) };
    match stale_in(&pod, now) {
        None => return Ok(Next::Done),
        Some(left) if !left.is_zero() => return Ok(Next::After(left)),
        Some(_) => {}
    }
    let api = state.ctx.api::<Pod>(key.namespace());
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "False", "lastTransitionTime": now.to_string(),
            "reason": null, "message": null}]}});
    match api.patch_status(key.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(Next::Done),
        outcome => outcome.map(|_| Next::Done).attempt(|| format!("write the status of pod {key}")),
    }
}
