//! Pods that nobody will ever end: on nodes that are gone, or deleted before they had one (kubernetes/kubernetes,
//! `pkg/controller/podgc/gc_controller.go`).

use std::sync::Arc;
use std::time::Duration;

use client::{Change, Controller, Index, Informer, Key, Next, PodView, is_deleting};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::common::pods::is_finished;
use crate::context::Context;
use crate::error::{Attempt, Error};

/// A node that is gone may be back soon (upstream: `quarantineTime`).
const QUARANTINE: Duration = Duration::from_secs(40);

struct State {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Informer<PodView>,
    pods_on: Index<PodView>,
}

fn node_of(pod: &PodView) -> Option<&str> {
    pod.node_name.as_deref()
}

pub(crate) fn start(ctx: &Context) {
    let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<PodView>());
    let pods_on = pods.index("node", |pod: &PodView| node_of(pod).map(str::to_owned));
    let known = nodes.clone();
    // Nodes and pods share the queue: a pod's key has a namespace.
    let controller = Controller::new("pod-garbage-collector")
        .watches_changes(&nodes, |change, queue| {
            if matches!(change, Change::Deleted(_)) {
                queue.add_after(Key::of(&**change.object()), QUARANTINE);
            }
        })
        .watches_changes(&pods, move |change, queue| {
            let pod = change.object();
            match node_of(pod) {
                _ if matches!(change, Change::Deleted(_)) => {}
                Some(node) if known.store().by_name("", node).is_none() => {
                    queue.add_after(Key::new("", node), QUARANTINE);
                }
                None if is_deleting(&pod.metadata) => queue.add(Key::of(&**pod)),
                _ => {}
            }
        });
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), nodes, pods, pods_on }), look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    if !key.namespace().is_empty() {
        let pod = state.pods.get(&key).filter(|pod| node_of(pod).is_none() && is_deleting(&pod.metadata));
        if let Some(pod) = pod {
            // Somebody may wait for it to end, and hold it until it has.
            state.fail(&pod, &[]).await?;
            state.end(&pod).await?;
        }
        return Ok(Next::Done);
    }
    if state.nodes.get(&key).is_some() {
        return Ok(Next::Done);
    }
    let api: Api<Node> = Api::all(state.ctx.client());
    let there = api.get_metadata_opt(key.name()).await.attempt(|| format!("look at node {key}"))?;
    if there.is_some() {
        return Ok(Next::Done);
    }
    for pod in state.pods_on.get(key.name()) {
        state.orphaned(&pod).await?;
        state.end(&pod).await?;
    }
    Ok(Next::Done)
}

impl State {
    /// The pod's node is gone, and with it whatever the pod was doing.
    async fn orphaned(&self, pod: &PodView) -> Result<(), Error> {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime":
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.ctx.now())});
        self.fail(pod, &[condition]).await
    }

    async fn fail(&self, pod: &PodView, conditions: &[serde_json::Value]) -> Result<(), Error> {
        if is_finished(pod) {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": pod.metadata.uid},
            "status": {"phase": "Failed", "conditions": conditions}});
        let api = self.ctx.api::<PodView>(&pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("mark pod {} as failed", pod.name_any())),
        }
    }

    async fn end(&self, pod: &PodView) -> Result<(), Error> {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let only = Preconditions { uid: pod.metadata.uid.clone(), ..Default::default() };
        let params =
            DeleteParams { preconditions: Some(only), grace_period_seconds: Some(0), ..Default::default() };
        match self.ctx.api::<PodView>(&namespace).delete(&name, &params).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("delete pod {namespace}/{name}")),
        }
    }
}
