use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use base::Backoff;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first and the longest delay after failures (client-go's default is 5 ms to 1000 s; nothing here is worth
/// waiting a quarter of an hour for).
const FIRST: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_secs(60);

/// Keys that need a look: each at most once in the queue, and at most once in work.
///
/// A key added while it is in work comes back when the work is done (client-go,
/// `util/workqueue/queue.go`). Time is Tokio's, so tests can drive it.
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// What is in `ready`, or waits for its present run to end.
    dirty: HashSet<T>,
    running: HashSet<T>,
    later: BinaryHeap<Reverse<(Instant, u64, ByTime<T>)>>,
    /// The earliest moment each key in `later` is due.
    due: HashMap<T, Instant>,
    sequence: u64,
    failures: HashMap<T, Backoff>,
}

/// Carried through the heap without being compared.
struct ByTime<T>(T);

impl<T> PartialEq for ByTime<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<T> Eq for ByTime<T> {}
impl<T> PartialOrd for ByTime<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for ByTime<T> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                running: HashSet::new(),
                later: BinaryHeap::new(),
                due: HashMap::new(),
                sequence: 0,
                failures: HashMap::new(),
            }),
            changed: Notify::new(),
        }
    }

    /// Asks for a look at a key, now.
    pub fn add(&self, key: T) {
        if self.state.lock().add(key) {
            self.changed.notify_one();
        }
    }

    /// Asks for a look at a key after a while; the earliest of several such wishes counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        let at = Instant::now() + delay;
        if state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.sequence += 1;
        let sequence = state.sequence;
        state.later.push(Reverse((at, sequence, ByTime(key))));
        drop(state);
        self.changed.notify_one();
    }

    /// Asks for another look after a failure, later with each failure in a row.
    pub fn retry(&self, key: T) -> Duration {
        let delay = {
            let mut state = self.state.lock();
            state.failures.entry(key.clone()).or_insert(Backoff::new(FIRST, MOST)).fail()
        };
        self.add_after(key, delay);
        delay
    }

    /// Ends a key's row of failures.
    pub fn forget(&self, key: &T) {
        self.state.lock().failures.remove(key);
    }

    /// The next key to look at. The caller says [`WorkQueue::done`] afterwards.
    pub async fn next(&self) -> T {
        loop {
            // Registered before the look, so that no wish made in between is missed.
            let changed = self.changed.notified();
            let wake = {
                let mut state = self.state.lock();
                state.release_due(Instant::now());
                if let Some(key) = state.take() {
                    return key;
                }
                state.later.peek().map(|Reverse((at, ..))| *at)
            };
            match wake {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// The next key that is ready, without waiting.
    pub fn try_next(&self) -> Option<T> {
        let mut state = self.state.lock();
        state.release_due(Instant::now());
        state.take()
    }

    /// The look at a key is over.
    pub fn done(&self, key: &T) {
        let mut state = self.state.lock();
        state.running.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) || self.running.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(Reverse((at, ..))) = self.later.peek()
            && *at <= now
        {
            let Some(Reverse((at, _, ByTime(key)))) = self.later.pop() else { return };
            // An earlier wish for the key has been granted already.
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_queued_once_and_runs_once_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert_eq!(queue.try_next(), None, "a is still in work");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        queue.done(&"b");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_counts_and_failures_double_it() {
        let queue = WorkQueue::new();
        let begun = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(20));
        assert_eq!(queue.next().await, "a");
        assert!(begun.elapsed() < Duration::from_secs(6));
        queue.done(&"a");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(queue.try_next(), None);
        assert_eq!(queue.retry("a"), FIRST);
        assert_eq!(queue.retry("a"), FIRST * 2);
        queue.forget(&"a");
        assert_eq!(queue.retry("a"), FIRST);
    }
}
