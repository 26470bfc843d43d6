//! The loop's requests, each a task of its own.

use std::collections::HashMap;
use std::sync::Arc;

use base::{Clock, Drain};
use client::{EventKind, Key, PodView};
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::extenders::Extenders;
use super::input::{Input, Sender};
use super::queue::Tries;
use super::{Recorders, about};
use crate::metrics::Stage;
use crate::pod::PodInfo;

/// So many explanations are written at a time: bindings come first.
const EXPLANATIONS: usize = 8;

/// How a binding went.
pub(super) struct Bound {
    pub(super) pod: Arc<PodInfo>,
    pub(super) node: Arc<str>,
    pub(super) outcome: Result<(), BindError>,
}

/// A binding that came to nothing.
#[derive(Debug)]
pub(super) enum BindError {
    Api(kube::Error),
    Extender(String),
}

impl BindError {
    /// The pod is gone.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if client::is_not_found(error))
    }

    /// The pod has a node already, or will not have one any more.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if client::is_conflict(error))
    }
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Api(error) => {
                write!(f, "running Bind plugin \"DefaultBinder\": {}", client::message(error))
            }
            Self::Extender(why) => f.write_str(why),
        }
    }
}

/// How a preemption went.
pub(super) struct Preempted {
    pub(super) pod: Arc<PodInfo>,
    /// Those that are on their way out.
    pub(super) leaving: Vec<Arc<PodInfo>>,
    /// Some are not.
    pub(super) failed: bool,
}

pub(super) struct Bindings {
    client: Client,
    clock: Arc<dyn Clock>,
    drain: Drain,
    done: Sender,
    recorders: Recorders,
    under_way: HashMap<Arc<str>, Tries>,
    explanations: Arc<Semaphore>,
    extenders: Extenders,
}

impl Bindings {
    pub(super) fn new(
        client: Client,
        clock: Arc<dyn Clock>,
        drain: Drain,
        done: Sender,
        recorders: Recorders,
        extenders: Extenders,
    ) -> Self {
        let explanations = Arc::new(Semaphore::new(EXPLANATIONS));
        Self { client, clock, drain, done, recorders, under_way: HashMap::new(), explanations, extenders }
    }

    pub(super) fn is_under_way(&self, uid: &str) -> bool {
        self.under_way.contains_key(uid)
    }

    /// What is known of the attempt that is over now.
    pub(super) fn finished(&mut self, uid: &str) -> Option<Tries> {
        self.under_way.remove(uid)
    }

    /// From now on nobody else looks for a node for the pod.
    pub(super) fn begin(&mut self, pod: &PodInfo, tries: Tries) {
        self.under_way.insert(pod.uid.clone(), tries);
    }

    /// How many pods are on their way to a node.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Does something whose outcome matters to nobody here.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.drain.spawn(work);
    }

    /// Does something whose outcome comes through the channel.
    pub(super) fn tell(&self, work: impl Future<Output = Input> + Send + 'static) {
        let done = self.done.clone();
        self.drain.spawn(async move {
            // Without a loop nobody waits for the outcome.
            let _ = done.send(work.await);
        });
    }

    /// Gives a pod, which has begun, to a node; the outcome comes through the channel.
    pub(super) fn bind(&self, pod: Arc<PodInfo>, node: Arc<str>) {
        let client = self.client();
        let extender = self.extenders.bind(&pod, &node);
        self.tell(async move {
            let begun = Instant::now();
            let outcome = match extender.await {
                Some(bound) => bound.map_err(BindError::Extender),
                None => post(&client, &pod, &node).await.map_err(BindError::Api),
            };
            pod.profile.numbers.stage(Stage::Bind, begun.elapsed());
            Input::Bound(Bound { pod, node, outcome })
        });
    }

    /// Writes into a pod's conditions why it has no node, and, if it is given, which one it is promised (or none). `again`
    /// says that it is not the first time: the condition has been so since then.
    pub(super) fn explain(
        &self,
        pod: Arc<PodInfo>,
        (reason, why, again): (&'static str, String, bool),
        promise: Option<Option<&str>>,
    ) {
        let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": why,
            "observedGeneration": pod.generation, "lastProbeTime": null});
        if !again {
            condition["lastTransitionTime"] = json!(Time(self.clock.now()));
        }
        let mut status = json!({"conditions": [condition]});
        if let Some(node) = promise {
            status["nominatedNodeName"] = json!(node);
        }
        self.write(pod, status);
    }

    /// Writes into a group's conditions whether it has been placed.
    pub(super) fn explain_group(&self, key: Key, status: &'static str, reason: &'static str, why: String) {
        let condition = json!({"type": "PodGroupScheduled", "status": status, "reason": reason, "message": why,
            "lastTransitionTime": Time(self.clock.now())});
        let (client, turn) = (self.client.clone(), self.explanations.clone());
        self.drain.spawn_until_started(async move {
            let Ok(_turn) = turn.acquire().await else { return };
            let api: Api<PodGroup> = Api::namespaced(client, key.namespace());
            let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
            match api.patch_status(key.name(), &PatchParams::default(), &patch).await {
                Err(error) if !client::is_not_found(&error) => {
                    tracing::warn!(group = %key, %error, "cannot say how it is with a pod group");
                }
                _ => {}
            }
        });
    }

    /// Takes back what a pod was promised.
    pub(super) fn forsake(&self, pod: Arc<PodInfo>) {
        self.write(pod, json!({"nominatedNodeName": null}));
    }

    fn write(&self, pod: Arc<PodInfo>, status: Value) {
        let (client, turn) = (self.client.clone(), self.explanations.clone());
        self.drain.spawn_until_started(async move {
            let Ok(_turn) = turn.acquire().await else { return };
            match patch(&client, &pod, status).await {
                Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                    tracing::warn!(pod = %pod.key, %error, "cannot say why a pod has no node");
                }
                _ => {}
            }
        });
    }

    /// Has pods leave a node so that another one finds room; the outcome comes through the channel.
    pub(super) fn preempt(&self, pod: Arc<PodInfo>, node: Arc<str>, victims: Vec<Arc<PodInfo>>) {
        let (client, done) = (self.client.clone(), self.done.clone());
        let recorder = self.recorders.of(&pod).clone();
        crate::metrics::preempted(victims.len());
        let now = self.clock.now();
        self.drain.spawn(async move {
            let mut evictions = JoinSet::new();
            for victim in victims.into_iter().filter(|victim| !victim.deleting) {
                let (client, recorder) = (client.clone(), recorder.clone());
                let name = pod.profile.name.clone();
                let said = format!("Preempted by pod {} on node {node}", pod.uid);
                evictions.spawn(async move {
                    match evict(&client, &victim, &name, Time(now)).await {
                        Ok(()) => recorder.say(about(&victim), EventKind::Normal, "Preempted", said),
                        // It is gone by itself, or there is another pod of this name now.
                        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
                        Err(error) => {
                            tracing::warn!(pod = %victim.key, %error, "cannot preempt");
                            return None;
                        }
                    }
                    Some(victim)
                });
            }
            let outcomes = evictions.join_all().await;
            let failed = outcomes.iter().any(Option::is_none);
            let leaving = outcomes.into_iter().flatten().collect();
            let _ = done.send(Input::Preempted(Preempted { pod, leaving, failed }));
        });
    }
}

/// Tells others where a pod is about to go, for what has to be done first may take a while. It goes there whether or not they
/// hear of it (`pkg/scheduler/schedule_one.go`, `bindingCycle`).
pub(super) async fn expect(client: &Client, pod: &PodInfo, node: &str) {
    if pod.nominated.as_deref() == Some(node) {
        return;
    }
    if let Err(error) = patch(client, pod, json!({"nominatedNodeName": node})).await {
        tracing::debug!(pod = %pod.key, node, %error, "cannot say where a pod is about to go");
    }
}

/// Kubernetes/kubernetes, `pkg/scheduler/framework/preemption/preemption.go`, `PreemptPod`.
async fn evict(client: &Client, victim: &PodInfo, by: &str, now: Time) -> Result<(), kube::Error> {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{by}: preempting to accommodate a higher priority pod"),
        "observedGeneration": victim.generation, "lastProbeTime": null, "lastTransitionTime": now});
    patch(client, victim, json!({"conditions": [condition]})).await?;
    let preconditions = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let api: Api<PodView> = Api::namespaced(client.clone(), victim.key.namespace());
    api.delete(victim.key.name(), &params).await.map(drop)
}

async fn patch(client: &Client, pod: &PodInfo, status: Value) -> Result<(), kube::Error> {
    let patch = Patch::Strategic(json!({"metadata": {"uid": &*pod.uid}, "status": status}));
    let api: Api<PodView> = Api::namespaced(client.clone(), pod.key.namespace());
    api.patch_status(pod.key.name(), &PatchParams::default(), &patch).await.map(drop)
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
