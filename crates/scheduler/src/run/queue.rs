//! The pods without a node.
//!
//! ```text
//! offer ─► active ─► out ─► gone (bound)
//!            ▲        ├───► parked ──something helped──► backing off ─┐
//!            │        └───► erring (a request failed) ─┐              │ due, or nothing is active
//!            └───────────────────due───────────────────┴──────────────┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::metrics::Counter;
use base::{Backoff, Timestamp};
use tokio::time::Instant;

use crate::hints::Stuck;
use crate::metrics::{Pending, incoming};
use crate::pod::PodInfo;

/// How long a pod that found no node is left alone at least, while others wait
/// (kubernetes/kubernetes, `pkg/scheduler/backend/queue/scheduling_queue.go`).
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(10);

/// Priority, then age; the number tells apart what is equal in both.
type Rank = (Reverse<i32>, Timestamp, u64);
type Due = (Instant, u64);
/// Pods of one kind that are stuck in one way.
type Group = (usize, Stuck);

pub(super) struct Queue {
    first: Duration,
    most: Duration,
    /// What has just happened, as it is called where pods are counted that it moves.
    event: &'static str,
    incoming: HashMap<(&'static str, &'static str), Arc<Counter>>,
    pods: HashMap<Arc<str>, Entry>,
    active: BTreeMap<Rank, Arc<str>>,
    /// Tried again before it is due, when there is nothing else to do (`SchedulerPopFromBackoffQ`).
    backing_off: BTreeMap<Due, Arc<str>>,
    erring: BTreeMap<Due, Arc<str>>,
    parked: HashMap<Group, HashSet<Arc<str>>>,
    /// How many are parked.
    idle: usize,
    sequence: u64,
}

/// What is known of a pod's attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    /// How many there have been, the present one included.
    pub(super) count: usize,
    /// When the pod first came.
    pub(super) since: Instant,
    /// When the present attempt began.
    pub(super) begun: Instant,
}

struct Entry {
    pod: Arc<PodInfo>,
    /// The node that is promised to it, as its object had it last.
    said: Option<Arc<str>>,
    place: Place,
    backoff: Backoff,
    tries: Tries,
    /// When its backoff is over.
    rested: Option<Instant>,
}

impl Entry {
    /// Takes in what the pod is now. Others may promise it a node, too (`NominatedNodeNameForExpectation`), but the object
    /// need not say yet what was promised a moment ago: what it says counts when that is new.
    fn take(&mut self, mut pod: PodInfo) {
        if self.said == pod.nominated {
            pod.nominated = self.pod.nominated.clone();
        } else {
            self.said = pod.nominated.clone();
        }
        self.pod = Arc::new(pod);
    }
}

#[derive(Clone, Copy)]
enum Place {
    /// On its way from one place to another.
    Nowhere,
    Active(Rank),
    /// No node fits; a change that helps will wake it.
    Parked(Group),
    BackingOff(Due),
    Erring(Due),
    /// Handed out.
    Out,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(FIRST, MOST)
    }
}

impl Queue {
    /// An empty queue; pods that found no node are left alone for `first` to `most`.
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            event: "",
            incoming: HashMap::new(),
            pods: HashMap::new(),
            active: BTreeMap::new(),
            backing_off: BTreeMap::new(),
            erring: BTreeMap::new(),
            parked: HashMap::new(),
            idle: 0,
            sequence: 0,
        }
    }

    /// What happens now, for the books.
    pub(super) fn because(&mut self, event: &'static str) {
        self.event = event;
    }

    fn count(&mut self, queue: &'static str, event: &'static str) {
        if event.is_empty() {
            return;
        }
        self.incoming.entry((queue, event)).or_insert_with(|| incoming(queue, event)).inc();
    }

    /// How many pods wait where.
    pub(super) fn pending(&self) -> Pending {
        Pending {
            active: self.active.len(),
            backoff: self.backing_off.len() + self.erring.len(),
            unschedulable: self.idle,
            gated: 0,
        }
    }

    /// A pod that is on its way has changed: should it come back, it is as it is now.
    pub(super) fn refresh(&mut self, pod: PodInfo) {
        if let Some(entry) = self.pods.get_mut(&pod.uid)
            && matches!(entry.place, Place::Out)
        {
            entry.take(pod);
        }
    }

    /// A pod's attempts; of one that is not known there was one, just now.
    pub(super) fn tries(&self, uid: &str) -> Tries {
        let now = Instant::now();
        self.pods.get(uid).map_or(Tries { count: 1, since: now, begun: now }, |entry| entry.tries)
    }

    /// A pod to be placed, new or changed. A change may make it fit, so it is tried at once.
    pub(super) fn offer(&mut self, pod: PodInfo) {
        let uid = pod.uid.clone();
        if let Some(entry) = self.pods.get_mut(&uid) {
            let changed = !Arc::ptr_eq(&entry.pod.kind, &pod.kind);
            entry.take(pod);
            if changed {
                self.activate(&uid);
            }
            return;
        }
        let entry = Entry {
            said: pod.nominated.clone(),
            pod: Arc::new(pod),
            place: Place::Nowhere,
            backoff: Backoff::new(self.first, self.most),
            rested: None,
            tries: Tries { count: 0, since: Instant::now(), begun: Instant::now() },
        };
        self.pods.insert(uid.clone(), entry);
        self.activate(&uid);
    }

    /// The next pod; it stays known until [`Queue::remove`].
    pub(super) fn pop(&mut self) -> Option<Arc<PodInfo>> {
        self.release_due();
        let next = self.active.pop_first().map(|(_, uid)| uid);
        let uid = next.or_else(|| self.backing_off.pop_first().map(|(_, uid)| uid))?;
        self.hand_out(&uid)
    }

    fn hand_out(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let entry = self.pods.get_mut(uid)?;
        entry.place = Place::Out;
        entry.tries.count += 1;
        entry.tries.begun = Instant::now();
        Some(entry.pod.clone())
    }

    /// A pod that waits anywhere here, out of its turn.
    pub(super) fn pop_this(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        if matches!(self.pods.get(uid)?.place, Place::Out) {
            return None;
        }
        self.withdraw(uid);
        self.hand_out(uid)
    }

    /// Tries these again, as far as they are parked.
    pub(super) fn wake_these(&mut self, uids: &[Arc<str>]) {
        let now = Instant::now();
        for uid in uids {
            let Some(entry) = self.pods.get(uid) else { continue };
            match (entry.place, entry.rested) {
                (Place::Parked(_), Some(rested)) if rested > now => self.back_off(uid, rested),
                (Place::Parked(_), _) => self.activate(uid),
                _ => {}
            }
        }
    }

    /// A pod that waits.
    pub(super) fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|entry| &entry.pod)
    }

    /// What a pod is promised, from now on.
    pub(super) fn nominate(&mut self, uid: &str, node: Option<Arc<str>>) {
        if let Some(entry) = self.pods.get_mut(uid) {
            Arc::make_mut(&mut entry.pod).nominated = node;
        }
    }

    /// No node fits.
    pub(super) fn park(&mut self, uid: &Arc<str>, stuck: Stuck) {
        self.withdraw(uid);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let group = (Arc::as_ptr(&entry.pod.kind) as usize, stuck);
        entry.place = Place::Parked(group);
        entry.rested = Some(Instant::now() + entry.backoff.fail());
        self.parked.entry(group).or_default().insert(uid.clone());
        self.idle += 1;
        self.count("unschedulable", "ScheduleAttemptFailure");
    }

    /// Something went wrong on the way: once more, later.
    pub(super) fn retry(&mut self, uid: &Arc<str>) {
        self.withdraw(uid);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        self.sequence += 1;
        let due = (Instant::now() + entry.backoff.fail(), self.sequence);
        entry.place = Place::Erring(due);
        self.erring.insert(due, uid.clone());
        self.count("backoff", "ScheduleAttemptFailure");
    }

    /// Tries the parked pods again that `helped` picks. Alike pods that are stuck alike are asked about once.
    pub(super) fn wake(&mut self, helped: impl Fn(&PodInfo, Stuck) -> bool) {
        let mut woken = Vec::new();
        for ((_, stuck), uids) in &self.parked {
            let any = uids.iter().next().and_then(|uid| self.pods.get(uid));
            if any.is_some_and(|entry| helped(&entry.pod, *stuck)) {
                woken.extend(uids.iter().cloned());
            }
        }
        // The order of the map is none.
        woken.sort();
        let now = Instant::now();
        for uid in woken {
            match self.pods.get(&uid).and_then(|entry| entry.rested) {
                Some(rested) if rested > now => self.back_off(&uid, rested),
                _ => self.activate(&uid),
            }
        }
    }

    fn back_off(&mut self, uid: &Arc<str>, until: Instant) {
        self.withdraw(uid);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        self.sequence += 1;
        let due = (until, self.sequence);
        entry.place = Place::BackingOff(due);
        self.backing_off.insert(due, uid.clone());
        self.count("backoff", self.event);
    }

    /// When [`Queue::pop`] has something again that it has not now.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.erring.first_key_value().map(|((at, _), _)| *at)
    }

    fn release_due(&mut self) {
        if self.backing_off.is_empty() && self.erring.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = |map: &BTreeMap<Due, Arc<str>>| -> Vec<Arc<str>> {
            map.iter().take_while(|((at, _), _)| *at <= now).map(|(_, uid)| uid.clone()).collect()
        };
        let over: Vec<Arc<str>> = due(&self.backing_off).into_iter().chain(due(&self.erring)).collect();
        if !over.is_empty() {
            self.because("BackoffComplete");
        }
        over.iter().for_each(|uid| self.activate(uid));
    }

    /// The pod has a node, or is gone.
    pub(super) fn remove(&mut self, uid: &str) {
        self.withdraw(uid);
        self.pods.remove(uid);
    }

    fn withdraw(&mut self, uid: &str) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        match std::mem::replace(&mut entry.place, Place::Nowhere) {
            Place::Active(rank) => drop(self.active.remove(&rank)),
            Place::BackingOff(due) => drop(self.backing_off.remove(&due)),
            Place::Erring(due) => drop(self.erring.remove(&due)),
            Place::Parked(group) => {
                let uids = self.parked.entry(group).or_default();
                self.idle -= usize::from(uids.remove(uid));
                if uids.is_empty() {
                    self.parked.remove(&group);
                }
            }
            Place::Nowhere | Place::Out => {}
        }
    }

    /// Tries a pod as soon as its turn comes.
    pub(super) fn activate(&mut self, uid: &Arc<str>) {
        self.withdraw(uid);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        self.sequence += 1;
        let rank = (Reverse(entry.pod.priority), entry.pod.created, self.sequence);
        entry.place = Place::Active(rank);
        self.active.insert(rank, uid.clone());
        self.count("active", self.event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, age: u32) -> PodInfo {
        PodInfo::new(&testkit::object(json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", 59 - age)},
            "spec": {"containers": [], "priority": priority},
        })))
    }

    fn pop(queue: &mut Queue) -> Option<Arc<PodInfo>> {
        queue.pop()
    }

    #[tokio::test(start_paused = true)]
    async fn by_priority_then_age_and_parked_until_helped() {
        let mut queue = Queue::default();
        for (name, priority, age) in [("young", 0, 1), ("old", 0, 9), ("high", 5, 0)] {
            queue.offer(pod(name, priority, age));
        }
        let names: Vec<Arc<str>> = std::iter::from_fn(|| pop(&mut queue)).map(|p| p.uid.clone()).collect();
        assert_eq!(names, ["high", "old", "young"].map(Arc::from));
        let stuck = Stuck { room: true, ..Stuck::default() };
        queue.park(&"old".into(), stuck);
        queue.park(&"young".into(), stuck);
        queue.offer(pod("old", 0, 9));
        assert!(queue.pop().is_none(), "nothing has changed about it");
        queue.wake(|_, _| false);
        assert!(queue.pop().is_none());
        queue.retry(&"high".into());
        assert!(queue.pop().is_none(), "an error needs its time");
        tokio::time::advance(FIRST).await;
        assert_eq!(queue.next_due(), Some(Instant::now()));
        assert_eq!(&*queue.pop().unwrap().uid, "high");
        queue.wake(|_, stuck| stuck.room);
        queue.remove("old");
        assert_eq!(&*queue.pop().unwrap().uid, "young");
        assert!(queue.pop().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_promise_is_the_latest_one() {
        let said = |node: Option<&str>| PodInfo { nominated: node.map(Arc::from), ..pod("p", 0, 0) };
        let mut queue = Queue::default();
        queue.offer(said(None));
        queue.nominate("p", Some("ours".into()));
        let promised = |queue: &mut Queue, node: Option<&str>| {
            queue.offer(said(node));
            queue.get("p").unwrap().nominated.clone()
        };
        assert_eq!(promised(&mut queue, None).as_deref(), Some("ours"), "the object does not say it yet");
        assert_eq!(promised(&mut queue, Some("ours")).as_deref(), Some("ours"));
        assert_eq!(promised(&mut queue, Some("theirs")).as_deref(), Some("theirs"));
        queue.nominate("p", None);
        assert_eq!(promised(&mut queue, Some("theirs")), None, "the object says it still");
        assert_eq!(promised(&mut queue, None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_failed_rests_while_others_wait() {
        let mut queue = Queue::default();
        queue.offer(pod("failed", 9, 9));
        let failed = pop(&mut queue).unwrap();
        queue.park(&failed.uid, Stuck::default());
        queue.wake(|_, _| true);
        queue.offer(pod("fresh", 0, 0));
        assert_eq!(&*queue.pop().unwrap().uid, "fresh");
        assert_eq!(
            &*queue.pop().unwrap().uid,
            "failed",
            "with nothing else to do there is no point in waiting"
        );
        queue.park(&failed.uid, Stuck::default());
        queue.wake(|_, _| true);
        queue.offer(pod("other", 0, 0));
        tokio::time::advance(2 * FIRST).await;
        assert_eq!(&*queue.pop().unwrap().uid, "failed", "it has rested");
    }
}
