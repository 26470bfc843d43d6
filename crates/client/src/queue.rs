mod numbers;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use numbers::Numbers;

pub use numbers::queue_metrics;

/// The first and the longest delay after failures (client-go's default is 5 ms to 1000 s; nothing here is worth
/// waiting a quarter of an hour for).
const FIRST: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_secs(60);

/// Keys that need a look: each at most once in the queue, and at most once in work.
///
/// A key added while it is in work comes back when the work is done (client-go,
/// `util/workqueue/queue.go`). Time is Tokio's, so tests can drive it.
pub struct WorkQueue<T: Clone + Eq + Hash> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T: Clone + Eq + Hash> {
    ready: VecDeque<T>,
    /// What is in `ready`, or waits for its present run to end, and since when.
    dirty: HashMap<T, Instant>,
    /// What is being looked at, and since when.
    running: HashMap<T, Instant>,
    later: BinaryHeap<Reverse<(Instant, u64, ByTime<T>)>>,
    /// The earliest moment each key in `later` is due.
    due: HashMap<T, Instant>,
    sequence: u64,
    failures: HashMap<T, Backoff>,
    numbers: Option<Arc<Numbers>>,
}

impl<T: Clone + Eq + Hash> Drop for State<T> {
    fn drop(&mut self) {
        if let Some(numbers) = &self.numbers {
            numbers.dropped(self.dirty.len(), self.running.values().copied());
        }
    }
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
        Self::with(None)
    }

    /// An empty queue that is counted in [`queue_metrics`] under a name.
    pub fn named(name: &str) -> Self {
        Self::with(Some(Numbers::of(name)))
    }

    fn with(numbers: Option<Arc<Numbers>>) -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashMap::new(),
                running: HashMap::new(),
                later: BinaryHeap::new(),
                due: HashMap::new(),
                sequence: 0,
                failures: HashMap::new(),
                numbers,
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
        if let Some(numbers) = &state.numbers {
            numbers.put_off();
        }
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
        state.finish(key);
        if state.dirty.contains_key(key) {
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
        if self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), Instant::now());
        if let Some(numbers) = &self.numbers {
            numbers.added();
        }
        if self.running.contains_key(&key) {
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
        let now = Instant::now();
        let since = self.dirty.remove(&key);
        self.running.insert(key.clone(), now);
        if let Some(numbers) = &self.numbers {
            numbers.taken(since.unwrap_or(now), now);
            numbers.longest(self.running.values().min().copied());
        }
        Some(key)
    }

    fn finish(&mut self, key: &T) {
        if let Some(since) = self.running.remove(key)
            && let Some(numbers) = &self.numbers
        {
            numbers.finished(since, Instant::now());
            numbers.longest(self.running.values().min().copied());
        }
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
    async fn a_named_queue_is_counted() {
        let value = |name: &str| -> f64 {
            let mut page = base::metrics::Page::new();
            queue_metrics(&mut page);
            let text = page.finish();
            let start = format!("workqueue_{name}{{name=\"counted\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        let queue = WorkQueue::named("counted");
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!((value("adds_total"), value("depth")), (2.0, 2.0));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(queue.try_next(), Some("a"));
        queue.add("a");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(queue.try_next(), Some("b"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((value("adds_total"), value("depth")), (3.0, 1.0), "what runs may wait again");
        assert_eq!(value("queue_duration_seconds_sum"), 10.0);
        assert_eq!(
            (value("unfinished_work_seconds"), value("longest_running_processor_seconds")),
            (4.0, 3.0)
        );
        queue.done(&"a");
        assert_eq!(
            (value("unfinished_work_seconds"), value("longest_running_processor_seconds")),
            (1.0, 1.0)
        );
        assert_eq!((value("work_duration_seconds_sum"), value("work_duration_seconds_count")), (3.0, 1.0));
        queue.retry("c");
        assert_eq!(value("retries_total"), 1.0);
        drop(queue);
        assert_eq!((value("depth"), value("unfinished_work_seconds")), (0.0, 0.0), "nothing is left behind");
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
