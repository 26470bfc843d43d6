//! What happens, and whom it may help.

use std::sync::Arc;

use client::{Change, EventKind, PodView, is_deleting};

use super::binding::{Bound, Preempted};
use super::groups::Turn;
use super::input::Input;
use super::{NAME, Scheduler, about};
use crate::hints::concerns;
use crate::metrics::{Outcome, bound as bound_after};
use crate::place::fits_plainly;
use crate::pod::PodInfo;
use crate::view::{NodeChange, PodChange};

/// What the condition of a pod that must not be scheduled yet says
/// (kubernetes/kubernetes, `pkg/registry/core/pod/strategy.go`, `applySchedulingGatedCondition`).
const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

impl Scheduler {
    pub(super) fn take(&mut self, input: Input) {
        self.queue.because(input.event());
        match input {
            Input::Node(Change::Deleted(node)) => {
                self.view.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                // The emptiest domain may be gone.
                self.queue.wake(|_, stuck| stuck.spread);
                self.look_at_all(None);
            }
            Input::Node(Change::Added(node) | Change::Updated { new: node, .. }) => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                match self.view.update_node(&node) {
                    NodeChange::None => {}
                    NodeChange::Some => self.wake_for_node(name, false),
                    NodeChange::Labels => self.wake_for_node(name, true),
                }
            }
            Input::Pod(Change::Deleted(pod)) => {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.forget(uid);
                self.groups.leave(uid);
                self.known.remove(uid);
                self.preempting.remove(uid);
                self.give_up(uid);
                if let Some(node) = self.view.promise_of(uid) {
                    self.view.withdraw(uid);
                    self.wake_for(&node);
                }
                self.leave(uid);
            }
            Input::Pod(Change::Added(pod) | Change::Updated { new: pod, .. }) => self.pod(&pod),
            Input::Namespace(key, object) => {
                let labels = object.map(|o| o.labels.clone().unwrap_or_default());
                self.view.set_namespace(key.as_str(), labels);
                self.queue.wake(|_, stuck| stuck.others);
            }
            Input::Service(key, object) => {
                let selector = object.and_then(|o| o.selector.as_ref()?.match_labels.clone());
                self.view.owners.set_service(key.namespace(), key.name(), selector);
            }
            Input::Controller(kind, key, selector) => {
                self.view.owners.set_controller(kind, key.namespace(), key.name(), selector);
            }
            Input::Group(key, group) => self.group(&key, group.as_deref()),
            Input::Consulted(consulted) => self.consulted(consulted),
            Input::Bargained(bargained) => self.bargained(bargained),
            Input::Budget(key, Some(budget)) => drop(self.budgets.insert(key, budget)),
            Input::Budget(key, None) => drop(self.budgets.remove(&key)),
            Input::Bound(bound) => {
                self.in_flight -= 1;
                self.bound(bound);
            }
            Input::Storage(storage) => self.storage(storage),
            Input::Prepared(prepared) => self.prepared(prepared),
            Input::Device(device) => self.device(device),
            Input::Granted(granted) => self.granted(granted),
            Input::Preempted(preempted) => self.preempted(preempted),
        }
    }

    /// A pod is there, or has changed.
    fn pod(&mut self, pod: &Arc<PodView>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let finished = matches!(phase, Some("Succeeded" | "Failed"));
        match pod.node_name.as_deref() {
            Some(_) if finished => {
                self.forget(uid);
                self.groups.leave(uid);
                self.give_up(uid);
                self.leave(uid);
            }
            Some(node) => {
                self.forget(uid);
                self.known.remove(uid);
                // Somebody else was faster.
                self.give_up(uid);
                let info = Arc::new(PodInfo::new(pod));
                self.join(&info);
                self.arrive(node, &info);
            }
            None => self.waiting(pod, uid, finished),
        }
    }

    /// A pod needs no node any more.
    fn forget(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.blame.lift(uid);
        self.gated.remove(uid);
        self.groups.release(uid);
    }

    /// A pod counts for its group, if it has one; others may have waited for that.
    fn join(&mut self, pod: &PodInfo) {
        if self.gangs
            && let Some(group) = pod.group()
        {
            let released = self.groups.join(&pod.uid, &group);
            released.into_iter().for_each(|pod| self.queue.offer(pod));
            // It may be the one that was missing.
            let others = self.groups.members_if_together(&group);
            self.queue.wake_these(&others);
        }
    }

    fn arrive(&mut self, node: &str, pod: &Arc<PodInfo>) {
        match self.view.add_pod(node, pod) {
            PodChange::None => {}
            PodChange::New => self.wake_those_concerned(pod),
            PodChange::Changed(before) => {
                self.wake_those_concerned(&before);
                self.wake_those_concerned(pod);
                self.wake_for(node);
            }
        }
    }

    fn waiting(&mut self, pod: &Arc<PodView>, uid: &str, finished: bool) {
        let profile = self.settings.profile(pod.spec.scheduler_name.as_deref().unwrap_or(NAME)).cloned();
        let ours = profile.filter(|_| !finished && !is_deleting(&pod.metadata));
        let Some(profile) = ours else {
            self.forget(uid);
            self.groups.leave(uid);
            if self.give_up(uid) {
                self.leave(uid);
            }
            return;
        };
        let info = PodInfo::new(pod).placed_by(&profile);
        let gates = pod.spec.scheduling_gates.as_ref().filter(|_| profile.heeds_gates());
        if gates.is_some_and(|gates| !gates.is_empty()) {
            self.forget(uid);
            self.gated.insert(info.uid.clone());
            let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
            let said =
                conditions.is_some_and(|all| all.iter().any(|c| c.type_.as_deref() == Some("PodScheduled")));
            if !said && self.known.insert(info.uid.clone(), GATED.into()).is_none() {
                self.bindings.explain(Arc::new(info), ("SchedulingGated", GATED.into(), false), None);
            }
            return;
        }
        self.gated.remove(uid);
        self.join(&info);
        let group = info.group().filter(|_| self.gangs && profile.heeds_gangs());
        if group.is_some_and(|group| self.groups.turn(&group) == Turn::NotYet) {
            // Who waits already, waits on, and is found out when its turn comes.
            if self.queue.get(uid).is_none() && !self.bindings.is_under_way(uid) {
                self.groups.hold(info);
            }
        } else if !self.bindings.is_under_way(uid) {
            self.queue.offer(info);
            self.heed_promise(uid);
        } else {
            self.queue.refresh(info);
        }
    }

    /// A promise outlives the scheduler that made it, and others may make or take back one.
    fn heed_promise(&mut self, uid: &str) {
        let Some(pod) = self.queue.get(uid) else { return };
        let before = self.view.promise_of(uid);
        if before == pod.nominated {
            return;
        }
        match &pod.nominated {
            Some(node) => self.view.promise(node, pod),
            None => self.view.withdraw(uid),
        }
        if let Some(before) = before {
            self.wake_for(&before);
        }
    }

    /// A pod no longer takes room.
    pub(super) fn leave(&mut self, uid: &str) {
        if let Some((node, pod)) = self.view.remove_pod(uid) {
            self.wake_for(&node);
            self.wake_those_concerned(&pod);
        }
    }

    /// A node may have room: the parked pods that it could take now are tried again.
    pub(super) fn wake_for(&mut self, node: &str) {
        if let Some(row) = self.view.row(node) {
            let view = &self.view;
            self.queue.wake(|pod, stuck| stuck.room && fits_plainly(pod, view, row));
        }
    }

    /// A node is new or has changed.
    fn wake_for_node(&mut self, node: &str, relabelled: bool) {
        let Some(row) = self.view.row(node) else { return };
        let view = &self.view;
        self.queue
            .wake(|pod, stuck| stuck.spread || (relabelled && stuck.others) || fits_plainly(pod, view, row));
    }

    /// A pod has come, gone or changed: those that look at other pods look again.
    pub(super) fn wake_those_concerned(&mut self, other: &PodInfo) {
        let view = &self.view;
        self.queue.wake(|pod, stuck| concerns(pod, stuck, other, view));
    }

    fn bound(&mut self, bound: Bound) {
        let tries = self.bindings.finished(&bound.pod.uid);
        let numbers = &bound.pod.profile.numbers;
        match bound.outcome {
            Ok(()) => {
                if let Some(tries) = tries {
                    numbers.attempt(Outcome::Scheduled, tries.begun.elapsed());
                    bound_after(tries.count, tries.since.elapsed());
                }
                self.known.remove(&bound.pod.uid);
                let key = &bound.pod.key;
                let message = format!("Successfully assigned {key} to {}", bound.node);
                self.recorders.of(&bound.pod).say(about(&bound.pod), EventKind::Normal, "Scheduled", message);
            }
            Err(error) => {
                tracing::debug!(pod = %bound.pod.key, node = %bound.node, %error, "cannot bind");
                if let Some(tries) = tries {
                    numbers.attempt(Outcome::Error, tries.begun.elapsed());
                }
                self.leave(&bound.pod.uid);
                // A pod that is gone by now was deleted; the informer says so, and it leaves the queue.
                if !error.is_not_found() {
                    // One that has a node by now has nothing to be told.
                    if !error.is_conflict() {
                        self.say_failed(&bound.pod, &error.to_string());
                    }
                    self.queue.retry(&bound.pod.uid);
                }
            }
        }
    }

    /// The informer will say so too, but not before the pod might look for more victims.
    fn preempted(&mut self, preempted: Preempted) {
        self.preempting.remove(&preempted.pod.uid);
        for victim in preempted.leaving {
            let Some((node, known)) = self.view.placed(&victim.uid) else { continue };
            let (node, mut known) = (node.clone(), PodInfo::clone(known));
            (known.deleting, known.preempted) = (true, true);
            self.arrive(&node, &Arc::new(known));
        }
        if preempted.failed && !self.bindings.is_under_way(&preempted.pod.uid) {
            self.queue.activate(&preempted.pod.uid);
        }
    }
}
