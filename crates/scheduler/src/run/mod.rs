//! The loop around the decision.
//!
//! ```text
//! informers ─► view, waiting pods ─► place ─┬► assume, bind (many at a time) ─► gone, or tried again
//!                       ▲                   └► parked, with the reason in its conditions
//!                       └── a node or a leaving pod that makes room ──┘
//! ```
//!
//! One task owns the view and the queue; it never waits for a request.

mod binding;
mod queue;

use std::collections::HashMap;
use std::sync::Arc;

use base::{Clock, Drain};
use client::{Change, EventKind, Informers, PodView, Recorder, is_deleting};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use tokio::sync::mpsc;

use crate::place::{fits, place};
use crate::pod::PodInfo;
use crate::view::{ClusterView, NodeChange};

use binding::{Bindings, Bound};
use queue::Queue;

/// The scheduler's name, as pods ask for it.
pub const NAME: &str = "default-scheduler";

/// So many bindings may be under way.
const IN_FLIGHT: usize = 256;

/// What the scheduler needs.
#[derive(Clone)]
pub struct Config {
    /// How it sees the cluster, and as whom it acts.
    pub informers: Informers,
    /// Wall-clock time, for conditions and events.
    pub clock: Arc<dyn Clock>,
    /// Ends it.
    pub drain: Drain,
}

/// Starts the scheduler. It runs until the configuration's drain starts, which also waits for it.
pub fn run(config: &Config) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (nodes, pods) = (config.informers.of::<Node>(), config.informers.of::<PodView>());
    let (to_nodes, to_pods) = (sender.clone(), sender.clone());
    // Should the loop be gone, nobody needs to know.
    nodes.on_change(move |change| drop(to_nodes.send(Input::Node(change.clone()))));
    pods.on_change(move |change| drop(to_pods.send(Input::Pod(change.clone()))));
    let recorder =
        Recorder::start(config.informers.client().clone(), NAME, "", config.clock.clone(), &config.drain);
    let client = config.informers.client().clone();
    let bindings = Bindings::new(client, config.clock.clone(), config.drain.clone(), sender);
    let scheduler = Scheduler {
        view: ClusterView::new(),
        queue: Queue::default(),
        known: HashMap::new(),
        bindings,
        recorder,
        in_flight: 0,
    };
    let drain = config.drain.clone();
    config.drain.spawn(async move {
        tokio::select! {
            () = async { nodes.ready().await; pods.ready().await } => {}
            () = drain.started() => return,
        }
        scheduler.run(receiver, drain).await;
    });
}

enum Input {
    Node(Change<Node>),
    Pod(Change<PodView>),
    Bound(Bound),
}

struct Scheduler {
    view: ClusterView,
    queue: Queue,
    /// What the conditions of parked pods say, so that nothing is written twice.
    known: HashMap<Arc<str>, String>,
    bindings: Bindings,
    recorder: Recorder,
    in_flight: usize,
}

impl Scheduler {
    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>, drain: Drain) {
        loop {
            // What has happened first: a decision should know the latest.
            while let Ok(input) = inputs.try_recv() {
                self.take(input);
            }
            if self.in_flight < IN_FLIGHT
                && let Some(pod) = self.queue.pop()
            {
                self.decide(pod);
                // Bindings, and everybody else on this thread, get their turn.
                tokio::task::consume_budget().await;
                continue;
            }
            let due = self.queue.next_due();
            let room = self.in_flight < IN_FLIGHT;
            tokio::select! {
                biased;
                () = drain.started() => return,
                Some(input) = inputs.recv() => self.take(input),
                () = sleep_until(due), if room && due.is_some() => self.queue.release_due(),
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Node(Change::Deleted(node)) => {
                self.view.remove_node(node.metadata.name.as_deref().unwrap_or_default());
            }
            Input::Node(Change::Added(node) | Change::Updated { new: node, .. }) => {
                if self.view.update_node(&node) == NodeChange::Some {
                    self.wake_for(node.metadata.name.as_deref().unwrap_or_default());
                }
            }
            Input::Pod(Change::Deleted(pod)) => {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.queue.remove(uid);
                self.known.remove(uid);
                self.leave(uid);
            }
            Input::Pod(Change::Added(pod) | Change::Updated { new: pod, .. }) => self.pod(&pod),
            Input::Bound(bound) => {
                self.in_flight -= 1;
                self.bound(bound);
            }
        }
    }

    /// A pod is there, or has changed.
    fn pod(&mut self, pod: &Arc<PodView>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let finished = matches!(phase, Some("Succeeded" | "Failed"));
        match pod.node_name.as_deref() {
            Some(_) if finished => {
                self.queue.remove(uid);
                self.leave(uid);
            }
            Some(node) => {
                self.queue.remove(uid);
                self.known.remove(uid);
                self.view.add_pod(node, &Arc::new(PodInfo::new(pod)));
            }
            None => {
                let ours = pod.spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME;
                let gated = pod.spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
                if !ours || gated || finished || is_deleting(&pod.metadata) {
                    self.queue.remove(uid);
                } else if !self.bindings.is_under_way(uid) {
                    self.queue.offer(PodInfo::new(pod));
                }
            }
        }
    }

    /// A pod no longer takes room.
    fn leave(&mut self, uid: &str) {
        if let Some(node) = self.view.remove_pod(uid) {
            self.wake_for(&node);
        }
    }

    /// A node has changed: the parked pods that it could take now are tried again.
    fn wake_for(&mut self, node: &str) {
        if let Some(row) = self.view.row(node) {
            let view = &self.view;
            self.queue.wake(|pod| fits(pod, view, row));
        }
    }

    fn decide(&mut self, pod: Arc<PodInfo>) {
        match place(&pod, &self.view) {
            Ok(node) => {
                self.view.add_pod(&node, &pod);
                self.in_flight += 1;
                self.bindings.bind(pod, node);
            }
            Err(why) => {
                let why = why.to_string();
                self.recorder.say(about(&pod), EventKind::Warning, "FailedScheduling", why.as_str());
                if self.known.insert(pod.uid.clone(), why.clone()).as_deref() != Some(&why) {
                    self.bindings.explain(pod.clone(), why);
                }
                self.queue.park(pod);
            }
        }
    }

    fn bound(&mut self, bound: Bound) {
        self.bindings.finished(&bound.pod.uid);
        match bound.outcome {
            Ok(()) => {
                self.known.remove(&bound.pod.uid);
                let key = &bound.pod.key;
                let message = format!("Successfully assigned {key} to {}", bound.node);
                self.recorder.say(about(&bound.pod), EventKind::Normal, "Scheduled", message);
            }
            Err(error) => {
                tracing::debug!(pod = %bound.pod.key, node = %bound.node, %error, "cannot bind");
                self.leave(&bound.pod.uid);
                // A pod that is gone by now was deleted; the informer says so, and it leaves the queue.
                if !client::is_not_found(&error) {
                    self.queue.retry(bound.pod);
                }
            }
        }
    }
}

fn about(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace().into()),
        name: Some(pod.key.name().into()),
        uid: Some(pod.uid.to_string()),
        ..Default::default()
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
