//! The loop around the decision.
//!
//! ```text
//! informers ─► view, waiting pods ─► decide ─┬► assume, bind (many at a time) ─► gone, or tried again
//!                       ▲                    ├► promise a node, evict the less important pods there ─┐
//!                       │                    └► parked, with the reason in its conditions ◄──────────┘
//!                       └── what may have helped: a node, a pod that leaves or comes ──┘
//! ```
//!
//! One task owns the view and the queue; it never waits for a request.

mod binding;
mod claims;
mod devices;
mod events;
mod input;
mod queue;
mod watched;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use base::{Clock, Drain};
use client::{EventKind, Informers, Key, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

use crate::hints::Stuck;
use crate::pod::PodInfo;
use crate::preempt::{Budget, Decision, decide};
use crate::reason::Unschedulable;
use crate::view::ClusterView;

use binding::Bindings;
use claims::Preparing;
use devices::Granting;
use input::{Input, follow};
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
    let (ready, devices) = (follow(&config.informers, &sender), devices::follow(&config.informers, &sender));
    devices::follow_rules(config, &sender);
    let ready = async move {
        devices.await;
        ready.await;
    };
    let client = config.informers.client().clone();
    let recorder = Recorder::start(client.clone(), NAME, "", config.clock.clone(), &config.drain);
    let bindings =
        Bindings::new(client, config.clock.clone(), config.drain.clone(), sender, recorder.clone());
    let scheduler = Scheduler {
        view: ClusterView::new(),
        queue: Queue::default(),
        known: HashMap::new(),
        budgets: BTreeMap::new(),
        preparing: HashMap::new(),
        granting: HashMap::new(),
        preempting: HashSet::new(),
        bindings,
        recorder,
        in_flight: 0,
    };
    let drain = config.drain.clone();
    config.drain.spawn(async move {
        tokio::select! {
            () = ready => {}
            () = drain.started() => return,
        }
        scheduler.run(receiver, drain).await;
    });
}

struct Scheduler {
    view: ClusterView,
    queue: Queue,
    /// What the conditions of parked pods say, so that nothing is written twice.
    known: HashMap<Arc<str>, String>,
    budgets: BTreeMap<Key, Budget>,
    /// Pods that have a node, and whose claims are not bound yet.
    preparing: HashMap<Arc<str>, Preparing>,
    /// Pods that have a node, and whose devices are not ready yet.
    granting: HashMap<Arc<str>, Granting>,
    /// Pods whose victims are being asked to leave.
    preempting: HashSet<Arc<str>>,
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
            let patience = self.patience().into_iter().chain(self.device_patience()).min();
            let room = self.in_flight < IN_FLIGHT;
            tokio::select! {
                biased;
                () = drain.started() => return,
                Some(input) = inputs.recv() => self.take(input),
                () = sleep_until(due), if room && due.is_some() => {}
                () = sleep_until(patience), if patience.is_some() => {
                    self.lose_patience();
                    self.lose_device_patience();
                }
            }
        }
    }

    fn decide(&mut self, pod: Arc<PodInfo>) {
        let budgets: Vec<&Budget> = self.budgets.values().collect();
        let may_preempt = !self.preempting.contains(&pod.uid);
        match decide(&pod, &mut self.view, &budgets, may_preempt) {
            Decision::Node(node) => {
                let promised = self.view.promise_of(&pod.uid).filter(|promised| *promised != node);
                let (plan, grant) = (self.view.plan(&pod, &node), self.view.grant(&pod, &node));
                self.view.add_pod(&node, &pod);
                self.wake_those_concerned(&pod);
                if let Some(promised) = promised {
                    self.wake_for(&promised);
                }
                self.in_flight += 1;
                if let Some(grant) = grant {
                    self.reserve(&pod, &node, grant);
                }
                match plan.is_empty() {
                    true => self.go(pod, node),
                    false => self.prepare(pod, node, plan),
                }
            }
            Decision::Preempt { node, victims, why } => self.preempt(&pod, &node, victims, &why),
            Decision::Nowhere { why, forsaken } => {
                if forsaken {
                    self.view.withdraw(&pod.uid);
                    self.queue.nominate(&pod.uid, None);
                }
                self.free_idle(&pod, &why);
                self.say_why(&pod, &why, forsaken.then_some(None));
                self.queue.park(&pod.uid, Stuck::of(&why));
            }
        }
    }

    fn preempt(
        &mut self,
        pod: &Arc<PodInfo>,
        node: &Arc<str>,
        victims: Vec<Arc<PodInfo>>,
        why: &Unschedulable,
    ) {
        // Less important pods that wait for the node had better look elsewhere.
        let lesser: Vec<Arc<PodInfo>> =
            self.view.promised(node).filter(|other| other.priority < pod.priority).cloned().collect();
        for other in lesser {
            self.view.withdraw(&other.uid);
            self.queue.nominate(&other.uid, None);
            self.queue.activate(&other.uid);
            self.bindings.forsake(other);
        }
        self.queue.nominate(&pod.uid, Some(node.clone()));
        self.view.promise(node, pod);
        self.preempting.insert(pod.uid.clone());
        self.bindings.preempt(pod.clone(), node.clone(), victims);
        self.say_why(pod, why, Some(Some(node)));
        self.queue.park(&pod.uid, Stuck::of(why));
    }

    fn say_why(&mut self, pod: &Arc<PodInfo>, why: &Unschedulable, promise: Option<Option<&str>>) {
        let why = why.to_string();
        self.recorder.say(about(pod), EventKind::Warning, "FailedScheduling", why.as_str());
        let news = self.known.insert(pod.uid.clone(), why.clone()).as_deref() != Some(&why);
        if news || promise.is_some() {
            self.bindings.explain(pod.clone(), "Unschedulable", why, promise);
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
