//! What work queues tell of themselves, under upstream's names (kubernetes/kubernetes,
//! `component-base/metrics/prometheus/workqueue/metrics.go`). A queue with a name counts; others do not.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::{Counter, Family, Gauge, Histogram, Page};
use tokio::time::Instant;

/// Upper bounds in seconds: upstream's, ten to the power of -8 and so on.
const SECONDS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

static QUEUES: Family<Numbers> = Family::new();
/// Before anything began, also by a clock that a test has stopped a while ago.
static BEGINNING: LazyLock<Instant> = LazyLock::new(|| {
    let now = std::time::Instant::now();
    Instant::from_std(now.checked_sub(Duration::from_secs(3600)).unwrap_or(now))
});

/// The numbers of the queues of one name. There may be several in one process, in tests at least.
#[derive(Debug)]
pub(super) struct Numbers {
    adds: Counter,
    retries: Counter,
    depth: Gauge,
    waited: Histogram,
    worked: Histogram,
    running: Gauge,
    /// The sum of the moments when what is running began, in nanoseconds since the beginning of all.
    begun: Gauge,
    /// The first of these moments; zero if nothing is running.
    first: AtomicI64,
}

fn nanos(at: Instant) -> i64 {
    let since = at.checked_duration_since(*BEGINNING).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Numbers {
    pub(super) fn of(name: &str) -> Arc<Self> {
        QUEUES.of(&format!("name=\"{name}\""), || Self {
            adds: Counter::new(),
            retries: Counter::new(),
            depth: Gauge::new(),
            waited: Histogram::new(SECONDS),
            worked: Histogram::new(SECONDS),
            running: Gauge::new(),
            begun: Gauge::new(),
            first: AtomicI64::new(0),
        })
    }

    /// A key has been asked for that was not waiting.
    pub(super) fn added(&self) {
        self.adds.inc();
        self.depth.add(1);
    }

    /// A key has been asked for that is to be looked at later.
    pub(super) fn put_off(&self) {
        self.retries.inc();
    }

    /// A key has been taken; `since` is when it was asked for.
    pub(super) fn taken(&self, since: Instant, now: Instant) {
        self.depth.add(-1);
        self.waited.observe(now.duration_since(since).as_secs_f64());
        self.running.add(1);
        self.begun.add(nanos(now));
    }

    /// The look at a key is over; `since` is when it began.
    pub(super) fn finished(&self, since: Instant, now: Instant) {
        self.worked.observe(now.duration_since(since).as_secs_f64());
        self.running.add(-1);
        self.begun.add(-nanos(since));
    }

    /// The look that has been under way for the longest began then.
    pub(super) fn longest(&self, since: Option<Instant>) {
        self.first.store(since.map_or(0, |at| nanos(at).max(1)), Ordering::Relaxed);
    }

    /// A queue has gone, with so many keys waiting and these looks under way.
    pub(super) fn dropped(&self, waiting: usize, running: impl Iterator<Item = Instant>) {
        self.depth.add(-i64::try_from(waiting).unwrap_or(i64::MAX));
        for since in running {
            self.running.add(-1);
            self.begun.add(-nanos(since));
        }
        self.longest(None);
    }

    /// How long everything that is under way has been, in seconds, and the longest of it.
    fn under_way(&self, now: i64) -> (f64, f64) {
        let whole = self.running.get().saturating_mul(now).saturating_sub(self.begun.get()).max(0);
        let longest = match self.first.load(Ordering::Relaxed) {
            0 => 0,
            first => (now - first).max(0),
        };
        (whole as f64 / 1e9, longest as f64 / 1e9)
    }
}

/// Adds the numbers of all work queues of this process to a page.
pub fn queue_metrics(page: &mut Page) {
    let (all, now) = (QUEUES.all(), nanos(Instant::now()));
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Numbers) -> f64| {
        page.family(name, kind, help);
        all.iter().for_each(|(labels, numbers)| page.sample(labels, value(numbers)));
    };
    family("workqueue_adds_total", "counter", "Total number of adds handled by workqueue", &|n| {
        n.adds.get() as f64
    });
    family("workqueue_depth", "gauge", "Current depth of workqueue", &|n| n.depth.get().max(0) as f64);
    family(
        "workqueue_longest_running_processor_seconds",
        "gauge",
        "How many seconds has the longest running processor for workqueue been running.",
        &|n| n.under_way(now).1,
    );
    family("workqueue_retries_total", "counter", "Total number of retries handled by workqueue", &|n| {
        n.retries.get() as f64
    });
    family(
        "workqueue_unfinished_work_seconds",
        "gauge",
        "How many seconds of work has done that is in progress and hasn't been observed by work_duration.",
        &|n| n.under_way(now).0,
    );
    let waited = "How long in seconds an item stays in workqueue before being requested.";
    page.family("workqueue_queue_duration_seconds", "histogram", waited);
    all.iter().for_each(|(labels, numbers)| page.histogram(labels, &numbers.waited));
    let worked = "How long in seconds processing an item from workqueue takes.";
    page.family("workqueue_work_duration_seconds", "histogram", worked);
    all.iter().for_each(|(labels, numbers)| page.histogram(labels, &numbers.worked));
}
