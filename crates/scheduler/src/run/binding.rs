//! The loop's requests, each a task of its own.

use client::PodView;
use std::collections::HashSet;
use std::sync::Arc;

use base::{Clock, Drain};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use super::Input;
use crate::pod::PodInfo;

/// So many explanations are written at a time: bindings come first.
const EXPLANATIONS: usize = 8;

/// How a binding went.
pub(super) struct Bound {
    pub(super) pod: Arc<PodInfo>,
    pub(super) node: Arc<str>,
    pub(super) outcome: Result<(), kube::Error>,
}

pub(super) struct Bindings {
    client: Client,
    clock: Arc<dyn Clock>,
    drain: Drain,
    done: mpsc::UnboundedSender<Input>,
    under_way: HashSet<Arc<str>>,
    explanations: Arc<Semaphore>,
}

impl Bindings {
    pub(super) fn new(
        client: Client,
        clock: Arc<dyn Clock>,
        drain: Drain,
        done: mpsc::UnboundedSender<Input>,
    ) -> Self {
        let explanations = Arc::new(Semaphore::new(EXPLANATIONS));
        Self { client, clock, drain, done, under_way: HashSet::new(), explanations }
    }

    pub(super) fn is_under_way(&self, uid: &str) -> bool {
        self.under_way.contains(uid)
    }

    pub(super) fn finished(&mut self, uid: &str) {
        self.under_way.remove(uid);
    }

    /// Gives a pod to a node; the outcome comes through the channel.
    pub(super) fn bind(&mut self, pod: Arc<PodInfo>, node: Arc<str>) {
        self.under_way.insert(pod.uid.clone());
        let (client, done) = (self.client.clone(), self.done.clone());
        self.drain.spawn(async move {
            let outcome = post(&client, &pod, &node).await;
            // Without a loop nobody waits for the outcome.
            let _ = done.send(Input::Bound(Bound { pod, node, outcome }));
        });
    }

    /// Writes into a pod's conditions why it has no node.
    pub(super) fn explain(&self, pod: Arc<PodInfo>, why: String) {
        let (client, clock, turn) = (self.client.clone(), self.clock.clone(), self.explanations.clone());
        self.drain.spawn_until_started(async move {
            let Ok(_turn) = turn.acquire().await else { return };
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": why, "lastProbeTime": null, "lastTransitionTime": Time(clock.now())});
            let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
            let api: Api<PodView> = Api::namespaced(client, pod.key.namespace());
            let patch = Patch::Strategic(patch);
            match api.patch_status(pod.key.name(), &PatchParams::default(), &patch).await {
                Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                    tracing::warn!(pod = %pod.key, %error, "cannot say why a pod has no node");
                }
                _ => {}
            }
        });
    }
}

/// By hand, because the answer is a `Status` and nobody reads it.
async fn post(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.key.name(), "namespace": pod.key.namespace(), "uid": &*pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let (namespace, name) = (pod.key.namespace(), pod.key.name());
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
        .header("content-type", "application/json")
        .body(binding.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request_text(request).await.map(drop)
}
