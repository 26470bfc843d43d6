//! Nodes: those that fall silent are marked, tainted, and lose the pods that do not put up with it
//! (kubernetes/kubernetes, `pkg/controller/nodelifecycle`, `pkg/controller/tainteviction`).
//!
//! ```text
//! heartbeats (Lease, conditions) ─► health ─► conditions ─► taints ─► evictions
//!                                                  └─► zones ──┘ (how many at a time)
//! ```

mod evict;
mod health;
pub(crate) mod ipam;
mod labels;
mod settings;
mod taints;
mod zones;

pub use settings::NodeSettings;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{
    Change, Controller, EventKind, Index, Informer, Key, Next, PodView, Recorder, Selection, WorkQueue,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Api;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::moments::Moments;
use crate::context::{Config, Context};
use crate::error::{Attempt, Error};
use crate::names;

use evict::Eviction;
use health::Heartbeats;
use zones::{Admission, Zones};

const LEASES: &str = "kube-node-lease";

struct State {
    ctx: Context,
    nodes: Informer<Node>,
    pods_on: Index<PodView>,
    heartbeats: Arc<Heartbeats>,
    zones: Arc<Mutex<Zones>>,
    /// Nodes that may be tainted so that pods leave, until the taint is seen.
    admitted: Mutex<HashSet<String>>,
    /// By node, the UIDs of pods that leave it when their time is over, and since when that is known.
    leaving: Mutex<HashMap<String, HashMap<String, Timestamp>>>,
    /// The nodes that people have been told of, with their UIDs.
    told: Mutex<HashMap<String, Option<String>>>,
    /// How long ago taints came.
    moments: Moments,
    recorder: Recorder,
    /// Whether nodes are watched over. Without, only pods are driven away.
    watches: bool,
    /// Whether pods are driven away. Without, nodes are tainted all the same.
    evicts: bool,
}

/// Watches over nodes, or drives pods away from those that others have tainted, or both: what is selected.
pub(crate) fn start(ctx: &Context, config: &Config) {
    let settings = &config.nodes;
    let (watches, evicts) = (config.selected.has(names::NODES), config.selected.has(names::EVICTION));
    let informers = &ctx.informers;
    let (nodes, pods) = (informers.of::<Node>(), informers.of::<PodView>());
    let leases = informers.select::<Lease>(Selection::fields(format!("metadata.namespace={LEASES}")));
    let pods_on = pods.index("node", |pod: &PodView| node_of(pod).map(str::to_owned));
    let heartbeats = Arc::new(Heartbeats::new(settings));
    let zones = Arc::new(Mutex::new(Zones::new(settings.clone())));
    let (by_lease, by_node, by_zone) = (heartbeats.clone(), heartbeats.clone(), zones.clone());
    let (all, known) = (nodes.clone(), nodes.clone());
    let controller = Controller::new("node-lifecycle")
        .watches_changes(&nodes, move |change, queue| node_changed(change, queue, &by_node, &by_zone, &all))
        // A renewal needs no look: the look that is due anyway finds it.
        .watches_changes(&leases, move |change, _| {
            if !matches!(change, Change::Deleted(_)) {
                by_lease.beat(&change.object().name_any());
            }
        })
        .watches_changes(&pods, move |change, queue| pod_changed(change, queue, &known));
    let recorder = ctx.recorder("node-controller");
    let state = State {
        ctx: ctx.clone(),
        nodes,
        pods_on,
        heartbeats,
        zones,
        admitted: Mutex::default(),
        leaving: Mutex::default(),
        told: Mutex::default(),
        moments: Moments::default(),
        recorder,
        watches,
        evicts,
    };
    ctx.spawn(controller, Arc::new(state), look);
}

fn node_of(pod: &PodView) -> Option<&str> {
    pod.node_name.as_deref()
}

fn node_changed(
    change: &Change<Node>,
    queue: &WorkQueue<Key>,
    heartbeats: &Heartbeats,
    zones: &Mutex<Zones>,
    all: &Informer<Node>,
) {
    let node = change.object();
    let (name, now) = (node.name_any(), Instant::now());
    let elsewhere = match change {
        Change::Deleted(_) => {
            heartbeats.forget(&name);
            zones.lock().forget(&name, now)
        }
        Change::Added(_) => {
            heartbeats.beat(&name);
            zones.lock().set(&name, zones::of(node), health::ready(node) == "True", now)
        }
        Change::Updated { old, new } => {
            if health::heartbeat(old) != health::heartbeat(new) {
                heartbeats.beat(&name);
            }
            zones.lock().set(&name, zones::of(new), health::ready(new) == "True", now)
        }
    };
    if elsewhere {
        // How a zone is doing, and whether any node at all is well, matters to others.
        all.store().keys().into_iter().for_each(|key| queue.add(key));
    }
    queue.add(Key::of(&**node));
}

/// A pod that comes to a node it may not stay on.
fn pod_changed(change: &Change<PodView>, queue: &WorkQueue<Key>, nodes: &Informer<Node>) {
    let came = match change {
        Change::Deleted(_) => false,
        Change::Added(_) => true,
        Change::Updated { old, new } => {
            node_of(old) != node_of(new) || old.spec.tolerations != new.spec.tolerations
        }
    };
    let Some(node) = node_of(change.object()).filter(|_| came) else { return };
    let key = Key::new("", node);
    if nodes.get(&key).is_some_and(|node| taints::of(&node).iter().any(|t| t.effect == "NoExecute")) {
        queue.add(key);
    }
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(node) = state.nodes.get(&key) else {
        state.admitted.lock().remove(key.name());
        state.leaving.lock().remove(key.name());
        if let Some(uid) = state.told.lock().remove(key.name()) {
            state.say_of(key.name(), uid, "RemovingNode", "Removing", "from");
        }
        return Ok(Next::Done);
    };
    if !state.watches {
        let next = state.evict(key.name(), &taints::of(&node), &state.pods_on.get(key.name())).await?;
        return Ok(next.map_or(Next::Done, Next::After));
    }
    let uid = node.metadata.uid.clone();
    if state.told.lock().insert(key.name().to_owned(), uid.clone()).is_none_or(|before| before != uid) {
        state.say_of(key.name(), uid, "RegisteredNode", "Registered", "in");
    }
    let left = state.heartbeats.left(&node);
    if left.is_zero()
        && let Some(conditions) = health::silent(&node, state.ctx.now())
    {
        // What follows from the conditions follows when they are seen.
        state.write_conditions(&node, conditions).await?;
        return Ok(Next::Done);
    }
    let well = health::ready(&node) == "True";
    // When no node is well it is not the nodes that are ill, but us or the network: nobody is evicted.
    let any_well = well || state.zones.lock().any_well();
    if !any_well {
        state.heartbeats.note_blackout();
    } else if state.heartbeats.end_blackout() {
        // Everybody gets the time to be heard again.
        state.nodes.store().keys().iter().for_each(|key| state.heartbeats.beat(key.name()));
        state.zones.lock().restart(Instant::now());
    }
    let admission = if any_well { state.admit(&node, well) } else { Admission::Never };
    let wanted = taints::wanted(&node, admission == Admission::Now, state.ctx.now());
    if wanted != taints::of(&node) {
        state.write_taints(&node, &wanted).await?;
        return Ok(Next::Done);
    }
    state.label(&node).await?;
    let pods = state.pods_on.get(key.name());
    if !well {
        state.mark_pods(&node, &pods).await?;
    }
    let evict_in = if state.evicts { state.evict(key.name(), &wanted, &pods).await? } else { None };
    let admit_in = if let Admission::After(delay) = admission { Some(delay) } else { None };
    // A node that is silent is looked at again when it is heard.
    let delays = [Some(left).filter(|left| !left.is_zero()), evict_in, admit_in];
    Ok(delays.into_iter().flatten().min().map_or(Next::Done, Next::After))
}

/// A node, as events name it. An agent's own events have the name where these have the UID.
fn about(name: &str, uid: Option<String>) -> ObjectReference {
    let version = Some("v1".to_owned());
    ObjectReference {
        kind: Some("Node".into()),
        api_version: version,
        name: Some(name.into()),
        uid,
        ..Default::default()
    }
}

impl State {
    /// Tells that a node comes or goes (upstream: `RecordNodeEvent`).
    fn say_of(&self, name: &str, uid: Option<String>, reason: &str, what: &str, where_to: &str) {
        let message = format!("Node {name} event: {what} Node {name} {where_to} Controller");
        self.recorder.say(about(name, uid), EventKind::Normal, reason, message);
    }

    /// Whether pods may be driven away from a node just now. One from which they are driven already stays so.
    fn admit(&self, node: &Node, well: bool) -> Admission {
        let name = node.name_any();
        let mut admitted = self.admitted.lock();
        if well || taints::drives_away(node) {
            admitted.remove(&name);
            return Admission::Now;
        }
        if health::condition(node, "Ready").is_none() {
            // It is new: that there is nobody yet is no reason to drive anybody away.
            return Admission::Never;
        }
        if admitted.contains(&name) {
            return Admission::Now;
        }
        let admission = self.zones.lock().admit(zones::of(node).as_deref(), Instant::now());
        if admission == Admission::Now && admitted.insert(name) {
            crate::metrics::node_evicted(zones::of(node).as_deref().unwrap_or_default());
        }
        admission
    }

    async fn label(&self, node: &Node) -> Result<(), Error> {
        let missing = labels::missing(node);
        if missing.is_empty() {
            return Ok(());
        }
        let (name, api): (_, Api<Node>) = (node.name_any(), Api::all(self.ctx.client()));
        let patch = json!({"metadata": {"labels": missing}});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("write the labels of node {name}")),
        }
    }

    async fn write_conditions(
        &self,
        node: &Node,
        conditions: Vec<k8s_openapi::api::core::v1::NodeCondition>,
    ) -> Result<(), Error> {
        let name = node.name_any();
        let mut new = node.clone();
        new.status.get_or_insert_default().conditions = Some(conditions);
        let api: Api<Node> = Api::all(self.ctx.client());
        match api.replace_status(&name, &PostParams::default(), &new).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => {
                outcome.attempt(|| format!("write the status of node {name}"))?;
                let message = format!("Node {name} status is now: NodeNotReady");
                let about = about(&name, node.metadata.uid.clone());
                self.recorder.say(about, EventKind::Normal, "NodeNotReady", message);
                Ok(())
            }
        }
    }

    async fn write_taints(
        &self,
        node: &Node,
        wanted: &[k8s_openapi::api::core::v1::Taint],
    ) -> Result<(), Error> {
        let name = node.name_any();
        let taints = if wanted.is_empty() { Value::Null } else { json!(wanted) };
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        let api: Api<Node> = Api::all(self.ctx.client());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("write the taints of node {name}")),
        }
    }

    /// Nobody else can say that the pods of a silent node are not ready.
    async fn mark_pods(&self, node: &Node, pods: &[Arc<PodView>]) -> Result<(), Error> {
        if health::ready(node) != "Unknown" {
            return Ok(());
        }
        for pod in pods.iter().filter(|pod| crate::common::pods::is_ready(pod)) {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime":
                k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.ctx.now())});
            self.patch_pod(pod, condition).await?;
            self.recorder.warning(&**pod, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    async fn patch_pod(&self, pod: &PodView, condition: Value) -> Result<(), Error> {
        let name = pod.name_any();
        let api = self.ctx.api::<PodView>(pod.metadata.namespace.as_deref().unwrap_or_default());
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        match api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("write the conditions of pod {name}")),
        }
    }

    /// Deletes the pods whose time on the node is over; tells when the next one's will be.
    async fn evict(
        &self,
        node: &str,
        taints: &[k8s_openapi::api::core::v1::Taint],
        pods: &[Arc<PodView>],
    ) -> Result<Option<Duration>, Error> {
        let now = self.ctx.now();
        let passed = |since| self.moments.passed(since, now);
        let before = self.leaving.lock().remove(node).unwrap_or_default();
        let mut leaving = HashMap::new();
        let (mut next, mut due) = (None::<Duration>, Vec::new());
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let since = before.get(uid).copied();
            match evict::decide(pod, taints, since.unwrap_or(now), passed) {
                Eviction::Never if since.is_some() => {
                    let message = format!("Cancelling deletion of Pod {}", Key::of(&**pod));
                    self.recorder.normal(&**pod, "TaintManagerEviction", message);
                }
                Eviction::Never => {}
                Eviction::After(delay) => {
                    leaving.insert(uid.to_owned(), since.unwrap_or(now));
                    next = Some(next.map_or(delay, |next| next.min(delay)));
                }
                Eviction::Now => due.push(pod),
            }
        }
        if !leaving.is_empty() {
            self.leaving.lock().insert(node.to_owned(), leaving);
        }
        for pod in due {
            let begun = Instant::now();
            self.delete(pod).await?;
            crate::metrics::taint_deletion_took(begun.elapsed());
        }
        Ok(next)
    }

    async fn delete(&self, pod: &PodView) -> Result<(), Error> {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.recorder.normal(pod, "TaintManagerEviction", message);
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "observedGeneration": pod.metadata.generation,
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime":
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.ctx.now())});
        self.patch_pod(pod, condition).await?;
        let only = Preconditions { uid: pod.metadata.uid.clone(), ..Default::default() };
        let params = DeleteParams { preconditions: Some(only), ..Default::default() };
        match self.ctx.api::<PodView>(&namespace).delete(&name, &params).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => {
                outcome.attempt(|| format!("evict pod {namespace}/{name}"))?;
                crate::metrics::pod_deleted_for_taint();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod duties_tests;
#[cfg(test)]
mod tests;
