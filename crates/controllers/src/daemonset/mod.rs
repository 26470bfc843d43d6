//! Daemon sets: a pod on each node that fits (kubernetes/kubernetes, `pkg/controller/daemon`).

mod failures;
mod fit;
mod plan;
mod pods;
mod roll;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Controller, Informer, Key, Next, PodView, WorkQueue, is_deleting};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use crate::common::claim::claim_all;
use crate::common::history::{History, REVISION, revision_of};
use crate::common::owned::{Owned, manager, on_pods};
use crate::common::pod_control::{Failure, PodControl};
use crate::common::pods::phase;
use crate::common::status::put_status;
use crate::context::Context;
use crate::error::Error;

use failures::Failures;
use fit::{Fit, Verdict};
use plan::{Plan, Scene};

/// At most so many pods are created, and so many deleted, in one step (upstream: `BurstReplicas`).
const BURST: usize = 250;

struct State {
    ctx: Context,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    owned: Owned<PodView>,
    history: History,
    control: PodControl,
    failures: Failures,
}

pub(crate) fn start(ctx: &Context) {
    let (sets, pods) = (ctx.informers.of::<DaemonSet>(), ctx.informers.of::<PodView>());
    let (nodes, revisions) = (ctx.informers.of::<Node>(), ctx.informers.of::<ControllerRevision>());
    let owned = Owned::new(&pods);
    let control = PodControl::new(ctx, "daemonset-controller");
    let on_pods = on_pods(&sets, control.expectations.clone(), |set: &DaemonSet| {
        client::selector(&set.spec.as_ref()?.selector).ok()
    });
    let known = sets.clone();
    let controller = Controller::new("daemonset")
        .workers(2)
        .watches(&sets, |set: &DaemonSet| [Key::of(set)])
        .watches(&revisions, |revision: &ControllerRevision| manager(&revision.metadata, "DaemonSet"))
        .watches_changes(&nodes, move |change, queue| on_nodes(change, queue, &known))
        .watches_changes(&pods, on_pods);
    let history = History::new(ctx, &revisions, REVISION);
    let failures = Failures::default();
    let state = State { ctx: ctx.clone(), sets, nodes, owned, history, control, failures };
    ctx.spawn(controller, Arc::new(state), look);
}

/// Wakes the sets to which a change of a node matters.
fn on_nodes(change: &Change<Node>, queue: &WorkQueue<Key>, sets: &Informer<DaemonSet>) {
    if let Change::Updated { old, new } = change
        && !fit::differs(old, new)
    {
        return;
    }
    for set in sets.store().list() {
        let fit = Fit::of(&set);
        let concerned = match change {
            Change::Added(node) => fit.judge(node) == Verdict::Run,
            Change::Updated { old, new } => fit.judge(old) != fit.judge(new),
            Change::Deleted(node) => fit.judge(node) != Verdict::Avoid,
        };
        if concerned {
            queue.add(Key::of(&*set));
        }
    }
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(set) = state.sets.get(&key) else {
        state.control.expectations.forget(&key);
        return Ok(Next::Done);
    };
    // What becomes of a set's revisions and pods while it goes is for the garbage collector.
    let Some(spec) = set.spec.as_ref().filter(|_| !is_deleting(&set.metadata)) else { return Ok(Next::Done) };
    // Asked before the pods are looked at, so that what comes in between is counted.
    let may_manage = state.control.expectations.are_met(&key);
    let selector = client::selector(&spec.selector)
        .map_err(|source| Error::Selector { object: format!("daemon set {key}"), source })?;
    let revisions = state.history.of(&*set, &selector).await?;
    let mut collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let present = match state.history.present(&*set, &spec.template, &revisions, &mut collisions).await {
        // Nothing new is made in a namespace that goes.
        Err(Error::Api { source, .. }) if client::is_namespace_terminating(&source) => return Ok(Next::Done),
        present => present?,
    };
    let candidates = state.owned.candidates(&set.metadata);
    let pods = claim_all(&state.ctx.client(), &*set, &selector, candidates).await?;
    let nodes = state.nodes.store().list();
    let fit = Fit::of(&set);
    let verdicts: BTreeMap<&str, Verdict> = nodes
        .iter()
        .map(|node| (node.metadata.name.as_deref().unwrap_or_default(), fit.judge(node)))
        .collect();
    let hash = state.history.hash(&present);
    let scene = Scene::new(&set, &hash, verdicts, &pods, state.ctx.now());

    let (mut failure, mut wait) = (None, None);
    if may_manage {
        (failure, wait) = state.manage(&key, &scene).await;
        let is_used = |revision: &ControllerRevision| {
            let hash = state.history.hash(revision);
            revision.metadata.name == present.metadata.name
                || pods.iter().any(|pod| revision_of(pod) == Some(&hash))
        };
        state.history.truncate(&revisions, is_used, spec.revision_history_limit).await?;
    }
    state.write_status(&set, status::status(&scene, collisions, may_manage)).await?;
    match failure {
        Some(failure) => Err(failure.into_error()),
        None => Ok(status::sooner(status::next(&scene), wait)),
    }
}

impl State {
    /// Creates and deletes pods; gives the first failure, and how long some must wait.
    async fn manage(&self, key: &Key, scene: &Scene<'_>) -> (Option<Failure>, Option<Duration>) {
        let mut plan = scene.manage(roll::surges(scene.set));
        let wait = self.end(scene.set, &mut plan);
        // Updates wait until each node has what it shall have.
        if plan.create.is_empty() && plan.delete.is_empty() && roll::is_rolling(scene.set) {
            plan = scene.roll();
        }
        plan.create.truncate(BURST);
        plan.delete.truncate(BURST);
        let create: Vec<Pod> =
            plan.create.iter().map(|node| pods::pod_for(scene.set, node, scene.hash)).collect();
        (self.control.apply(key, scene.set, create.iter(), &plan.delete).await, wait)
    }

    /// Says which pods have ended, and has them deleted.
    fn end(&self, set: &DaemonSet, plan: &mut Plan) -> Option<Duration> {
        let mut wait: Option<Duration> = None;
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for (node, pod) in std::mem::take(&mut plan.ended) {
            let name = pod.name_any();
            if phase(&pod) == "Failed" {
                let observed = set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
                let uid = set.metadata.uid.clone().unwrap_or_default();
                if let Err(left) = self.failures.admit((uid, observed, node.clone())) {
                    wait = Some(wait.map_or(left, |wait| wait.min(left)));
                    continue;
                }
                let said =
                    format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
                self.control.recorder.warning(set, "FailedDaemonPod", said);
            } else {
                let said = format!(
                    "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
                );
                self.control.recorder.normal(set, "SucceededDaemonPod", said);
            }
            plan.delete.push(pod);
        }
        wait
    }

    async fn write_status(&self, set: &DaemonSet, wanted: DaemonSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&wanted) {
            return Ok(());
        }
        put_status(&self.ctx, &DaemonSet { status: Some(wanted), ..set.clone() }).await
    }
}

#[cfg(test)]
mod tests;
