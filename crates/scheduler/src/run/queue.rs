use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Timestamp};
use tokio::time::Instant;

use crate::pod::PodInfo;

/// After a binding that failed (kubernetes/kubernetes, `pkg/scheduler/backend/queue/scheduling_queue.go`).
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(10);

/// Priority, then age; the number tells apart what is equal in both.
type Rank = (Reverse<i32>, Timestamp, u64);

/// The pods without a node.
#[derive(Default)]
pub(super) struct Queue {
    pods: HashMap<Arc<str>, Entry>,
    active: BTreeMap<Rank, Arc<str>>,
    due: BTreeMap<(Instant, u64), Arc<str>>,
    sequence: u64,
}

struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    backoff: Backoff,
}

#[derive(Clone, Copy)]
enum Place {
    Active(Rank),
    /// No node fits; a change that helps will wake it.
    Parked,
    Later((Instant, u64)),
    /// Handed out.
    Out,
}

impl Queue {
    /// A pod to be placed, new or changed. A change may make it fit, so it is tried at once.
    pub(super) fn offer(&mut self, pod: PodInfo) {
        let uid = pod.uid.clone();
        if let Some(entry) = self.pods.get_mut(&uid) {
            let changed = !same(&entry.pod, &pod);
            entry.pod = Arc::new(pod);
            if changed {
                self.activate(&uid);
            }
            return;
        }
        let backoff = Backoff::new(FIRST, MOST);
        self.pods.insert(uid.clone(), Entry { pod: Arc::new(pod), place: Place::Parked, backoff });
        self.activate(&uid);
    }

    /// The next pod; it stays known until [`Queue::remove`].
    pub(super) fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, uid) = self.active.pop_first()?;
        let entry = self.pods.get_mut(&uid)?;
        entry.place = Place::Out;
        Some(entry.pod.clone())
    }

    /// No node fits.
    pub(super) fn park(&mut self, pod: Arc<PodInfo>) {
        if let Some(entry) = self.pods.get_mut(&pod.uid) {
            entry.place = Place::Parked;
        }
    }

    /// Something went wrong on the way: once more, later.
    pub(super) fn retry(&mut self, pod: Arc<PodInfo>) {
        let Some(entry) = self.pods.get_mut(&pod.uid) else { return };
        self.sequence += 1;
        let at = (Instant::now() + entry.backoff.fail(), self.sequence);
        entry.place = Place::Later(at);
        self.due.insert(at, pod.uid.clone());
    }

    /// Tries the parked pods again that `helped` picks.
    pub(super) fn wake(&mut self, helped: impl Fn(&PodInfo) -> bool) {
        let parked = |entry: &Entry| matches!(entry.place, Place::Parked) && helped(&entry.pod);
        let woken: Vec<Arc<str>> =
            self.pods.iter().filter(|(_, entry)| parked(entry)).map(|(uid, _)| uid.clone()).collect();
        woken.iter().for_each(|uid| self.activate(uid));
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn release_due(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let uid = entry.remove();
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.place = Place::Parked;
            }
            self.activate(&uid);
        }
    }

    /// The pod has a node, or is gone.
    pub(super) fn remove(&mut self, uid: &str) {
        if let Some(entry) = self.pods.remove(uid) {
            self.withdraw(entry.place);
        }
    }

    fn withdraw(&mut self, place: Place) {
        match place {
            Place::Active(rank) => drop(self.active.remove(&rank)),
            Place::Later(at) => drop(self.due.remove(&at)),
            Place::Parked | Place::Out => {}
        }
    }

    fn activate(&mut self, uid: &Arc<str>) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        self.sequence += 1;
        let rank = (Reverse(entry.pod.priority), entry.pod.created, self.sequence);
        let place = std::mem::replace(&mut entry.place, Place::Active(rank));
        self.active.insert(rank, uid.clone());
        self.withdraw(place);
    }
}

/// Whether a pod still asks for the same.
fn same(a: &PodInfo, b: &PodInfo) -> bool {
    // All that can change while a pod waits: gates do not reach here, resources and tolerations do.
    let (a, b) = (&a.wants, &b.wants);
    Arc::ptr_eq(a, b) || (a.requests == b.requests && a.tolerations() == b.tolerations() && a.node == b.node)
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
        queue.park(Arc::new(pod("old", 0, 9)));
        queue.park(Arc::new(pod("young", 0, 1)));
        queue.offer(pod("old", 0, 9));
        assert!(queue.pop().is_none(), "nothing has changed about it");
        queue.wake(|p| &*p.uid == "young");
        assert_eq!(&*queue.pop().unwrap().uid, "young");
        queue.retry(Arc::new(pod("high", 5, 0)));
        assert!(queue.pop().is_none());
        tokio::time::advance(FIRST).await;
        assert_eq!(queue.next_due(), Some(Instant::now()));
        queue.release_due();
        assert_eq!(&*queue.pop().unwrap().uid, "high");
        queue.wake(|_| true);
        queue.remove("old");
        assert!(queue.pop().is_none());
    }
}
