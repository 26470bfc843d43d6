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
mod blame;
mod claims;
mod devices;
mod events;
mod extenders;
mod groups;
mod input;
mod queue;
mod watched;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use base::{Clock, Drain};
use client::{EventKind, Informers, Key, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::{Plugin, Settings};
use crate::dra::Grant;
use crate::hints::Stuck;
use crate::metrics::{Outcome, cache, decided, pending};
use crate::pod::PodInfo;
use crate::preempt::{Budget, Decision, Terms, decide};
use crate::reason::Unschedulable;
use crate::view::ClusterView;
use crate::volumes::Plan;

use binding::Bindings;
use blame::Blame;
use claims::Preparing;
use devices::Granting;
use extenders::Extenders;
use groups::{Groups, Turn};
use input::{Input, follow};
use queue::Queue;

pub use extenders::{ExtenderAnswer, ExtenderCall};

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
    /// How it places pods, and whose.
    pub settings: Settings,
    /// How the extenders of the settings are called, in their order.
    pub extenders: Vec<ExtenderCall>,
    /// PodGroups are served, and pods of a gang are placed together (upstream's gate `GangScheduling`).
    pub gangs: bool,
}

impl Config {
    /// With upstream's default settings.
    pub fn new(informers: Informers, clock: Arc<dyn Clock>, drain: Drain) -> Self {
        let (settings, extenders) = (Settings::default(), Vec::new());
        Self { informers, clock, drain, settings, extenders, gangs: false }
    }
}

/// Who speaks about the pods of each profile.
#[derive(Clone)]
struct Recorders(Arc<[(Arc<str>, Recorder)]>);

impl Recorders {
    fn of(&self, pod: &PodInfo) -> &Recorder {
        let own = self.0.iter().find(|(name, _)| *name == pod.profile.name);
        // There is one profile at least.
        &own.unwrap_or(&self.0[0]).1
    }
}

/// Starts the scheduler. It runs until the configuration's drain starts, which also waits for it.
pub fn run(config: &Config) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (ready, devices) =
        (follow(&config.informers, config.gangs, &sender), devices::follow(&config.informers, &sender));
    devices::follow_rules(config, &sender);
    let ready = async move {
        devices.await;
        ready.await;
    };
    let client = config.informers.client().clone();
    let settings = config.settings.clone();
    let speakers = settings.profiles.iter().map(|profile| {
        let (client, clock) = (client.clone(), config.clock.clone());
        (profile.name.clone(), Recorder::start(client, &profile.name, "", clock, &config.drain))
    });
    let recorders = Recorders(speakers.collect());
    let extenders = Extenders::new(&settings.extenders, &config.extenders, config.informers.of());
    let (clock, until) = (config.clock.clone(), config.drain.clone());
    let bindings = Bindings::new(client, clock, until, sender, recorders.clone(), extenders.clone());
    let scheduler = Scheduler {
        view: ClusterView::new(),
        queue: Queue::new(settings.first_backoff, settings.most_backoff),
        settings,
        extenders,
        gangs: config.gangs,
        groups: Groups::default(),
        groups_scheduled: HashSet::new(),
        known_groups: HashMap::new(),
        gated: HashSet::new(),
        known: HashMap::new(),
        budgets: BTreeMap::new(),
        preparing: HashMap::new(),
        granting: HashMap::new(),
        preempting: HashSet::new(),
        blame: Blame::default(),
        bindings,
        recorders,
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
    settings: Settings,
    extenders: Extenders,
    gangs: bool,
    groups: Groups,
    /// Groups whose conditions say that they have been placed.
    groups_scheduled: HashSet<Key>,
    /// What the conditions of other groups say.
    known_groups: HashMap<Key, String>,
    /// Pods that must not be placed yet.
    gated: HashSet<Arc<str>>,
    /// What the conditions of parked pods say, so that nothing is written twice.
    known: HashMap<Arc<str>, String>,
    budgets: BTreeMap<Key, Budget>,
    /// Pods that have a node, and whose claims are not bound yet.
    preparing: HashMap<Arc<str>, Preparing>,
    /// Pods that have a node, and whose devices are not ready yet.
    granting: HashMap<Arc<str>, Granting>,
    /// Pods whose victims are being asked to leave.
    preempting: HashSet<Arc<str>>,
    /// Which plugins stand against those that are parked.
    blame: Blame,
    bindings: Bindings,
    recorders: Recorders,
    in_flight: usize,
}

impl Scheduler {
    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>, drain: Drain) {
        loop {
            // What has happened first: a decision should know the latest.
            while let Ok(input) = inputs.try_recv() {
                self.take(input);
            }
            self.tell_numbers();
            if self.in_flight < IN_FLIGHT
                && let Some(pod) = self.queue.pop()
            {
                self.turn_of(pod);
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

    /// A pod's turn has come: it is placed, by itself or with others, or others are asked first.
    fn turn_of(&mut self, pod: Arc<PodInfo>) {
        self.blame.lift(&pod.uid);
        let group = pod.group().filter(|_| self.gangs && pod.profile.heeds_gangs());
        match group.map_or(Turn::Alone, |group| self.groups.turn(&group)) {
            Turn::Alone if self.extenders.choose(&pod) && self.consult(&pod) => {}
            Turn::Alone => self.decide(pod),
            Turn::Together { group, least } => self.decide_together(pod, &group, least),
            Turn::NotYet => {
                // There were enough of them when it was put into the queue.
                self.queue.remove(&pod.uid);
                self.groups.hold(PodInfo::clone(&pod));
            }
        }
    }

    fn decide(&mut self, pod: Arc<PodInfo>) {
        let budgets: Vec<&Budget> = self.budgets.values().collect();
        let may_preempt = !self.preempting.contains(&pod.uid);
        let terms = Terms { budgets: &budgets, may_preempt, bargains: self.extenders.bargain(&pod) };
        let begun = Instant::now();
        let mut before = begun;
        let numbers = &pod.profile.numbers;
        let decision = decide(&pod, &mut self.view, &terms, &mut |stage| {
            let now = Instant::now();
            numbers.stage(stage, now - before);
            before = now;
        });
        decided(before - begun);
        self.carry_on(pod, decision);
    }

    /// Does what was decided.
    fn carry_on(&mut self, pod: Arc<PodInfo>, decision: Decision) {
        match decision {
            Decision::Node(node) => self.assume(pod, node),
            Decision::Preempt { node, victims, why } => self.preempt(&pod, &node, victims, &why),
            Decision::Bargain { candidates, why } => self.bargain(pod, candidates, why),
            Decision::Nowhere { why, forsaken } => self.nowhere(&pod, &why, forsaken),
        }
    }

    /// Takes a node's room for a pod, and begins to give it to the node.
    fn assume(&mut self, pod: Arc<PodInfo>, node: Arc<str>) {
        let promised = self.view.promise_of(&pod.uid).filter(|promised| *promised != node);
        let (plan, grant) = (self.plan(&pod, &node), self.view.grant(&pod, &node));
        self.view.add_pod(&node, &pod);
        if let Some(promised) = promised {
            self.wake_for(&promised);
        }
        self.begin(pod, node, plan, grant);
    }

    /// What is to be done about a pod's claims before it is bound to a node.
    fn plan(&self, pod: &PodInfo, node: &str) -> Plan {
        match pod.profile.filters(Plugin::VolumeBinding) {
            true => self.view.plan(pod, node),
            false => Plan::default(),
        }
    }

    /// Begins to give a pod, which is in the view there, to a node.
    fn begin(&mut self, pod: Arc<PodInfo>, node: Arc<str>, plan: Plan, grant: Option<Grant>) {
        self.wake_those_concerned(&pod);
        self.in_flight += 1;
        self.bindings.begin(&pod, self.queue.tries(&pod.uid));
        if let Some(grant) = grant {
            self.reserve(&pod, &node, grant);
        }
        match plan.is_empty() {
            true => self.go(pod, node, false),
            false => self.prepare(pod, node, plan),
        }
    }

    /// There is no node for a pod.
    fn nowhere(&mut self, pod: &Arc<PodInfo>, why: &Unschedulable, forsaken: bool) {
        if forsaken {
            self.break_promise(&pod.uid);
        }
        self.free_idle(pod, why);
        let took = self.queue.tries(&pod.uid).begun.elapsed();
        pod.profile.numbers.attempt(Outcome::Unschedulable, took);
        self.say(pod, &why.to_string(), forsaken.then_some(None));
        self.blame.put(pod, why);
        self.queue.park(&pod.uid, Stuck::of(why));
    }

    /// What a pod was promised is anybody's again.
    fn break_promise(&mut self, uid: &str) {
        self.queue.nominate(uid, None);
        if let Some(node) = self.view.promise_of(uid) {
            self.view.withdraw(uid);
            self.wake_for(&node);
        }
    }

    fn tell_numbers(&self) {
        let gated = self.gated.len() + self.groups.held();
        pending(crate::metrics::Pending { gated, ..self.queue.pending() });
        cache(self.view.len(), self.view.pods_placed(), self.bindings.len());
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
        let took = self.queue.tries(&pod.uid).begun.elapsed();
        pod.profile.numbers.attempt(Outcome::Unschedulable, took);
        self.say(pod, &why.to_string(), Some(Some(node)));
        self.blame.put(pod, why);
        self.queue.park(&pod.uid, Stuck::of(why));
    }

    /// Says why a pod has no node, and which one it is promised.
    fn say(&mut self, pod: &Arc<PodInfo>, why: &str, promise: Option<Option<&str>>) {
        self.recorders.of(pod).say(about(pod), EventKind::Warning, "FailedScheduling", cut(why));
        let before = self.known.insert(pod.uid.clone(), why.to_owned());
        if before.as_deref() != Some(why) || promise.is_some() {
            let again = pod.told || before.is_some();
            self.bindings.explain(pod.clone(), ("Unschedulable", why.to_owned(), again), promise);
        }
    }

    /// Says that something did not work. Wherever the pod was expected, it is not any more.
    fn say_failed(&mut self, pod: &Arc<PodInfo>, why: &str) {
        self.recorders.of(pod).say(about(pod), EventKind::Warning, "FailedScheduling", cut(why));
        self.break_promise(&pod.uid);
        let again = self.known.insert(pod.uid.clone(), why.to_owned()).is_some() || pod.told;
        self.bindings.explain(pod.clone(), ("SchedulerError", why.to_owned(), again), Some(None));
    }
}

/// As much of a message as an event has room for (`pkg/scheduler/schedule_one.go`, `truncateMessage`).
fn cut(message: &str) -> Cow<'_, str> {
    const MOST: usize = 1024;
    const REST: &str = " ...";
    match message.len() {
        0..=MOST => Cow::Borrowed(message),
        _ => Cow::Owned(format!("{}{REST}", &message[..message.floor_char_boundary(MOST - REST.len())])),
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
