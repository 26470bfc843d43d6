//! What the scheduler counts, under upstream's names (kubernetes/kubernetes, `pkg/scheduler/metrics/metrics.go`).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::{Counter, Family, Gauge, Histogram, Page};

/// A thousandth of a second, doubled again and again.
const ATTEMPT: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
/// A hundredth of a second, doubled again and again.
const WHOLE: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
    655.36, 1310.72, 2621.44, 5242.88,
];
/// A ten-thousandth of a second, doubled again and again.
const POINT: &[f64] =
    &[0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048];
const VICTIMS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];
/// From so many attempts on they are not told apart.
const MANY: usize = 15;

/// How an attempt to place a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

const OUTCOMES: [(Outcome, &str); 3] =
    [(Outcome::Scheduled, "scheduled"), (Outcome::Unschedulable, "unschedulable"), (Outcome::Error, "error")];

/// The parts of an attempt whose time is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    PreFilter,
    Filter,
    Score,
    PostFilter,
    PreBind,
    Bind,
}

const STAGES: [(Stage, &str); 6] = [
    (Stage::PreFilter, "PreFilter"),
    (Stage::Filter, "Filter"),
    (Stage::Score, "Score"),
    (Stage::PostFilter, "PostFilter"),
    (Stage::PreBind, "PreBind"),
    (Stage::Bind, "Bind"),
];

/// Where pods wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) active: usize,
    pub(crate) backoff: usize,
    pub(crate) unschedulable: usize,
    pub(crate) gated: usize,
}

/// The same for all profiles.
struct Numbers {
    attempts: Family<Counter>,
    attempt_seconds: Family<Histogram>,
    point_seconds: Family<Histogram>,
    incoming: Family<Counter>,
    algorithm: Histogram,
    victims: Histogram,
    preemptions: Counter,
    pending: [Gauge; 4],
    /// By the number of attempts.
    whole: Vec<Arc<Histogram>>,
    wholes: Family<Histogram>,
    attempts_needed: Histogram,
    cache: [Gauge; 3],
    extender_calls: Family<Histogram>,
    unschedulable: Family<Gauge>,
}

static NUMBERS: LazyLock<Numbers> = LazyLock::new(|| {
    let wholes = Family::new();
    let label =
        |n: usize| if n >= MANY { format!("attempts=\"{MANY}+\"") } else { format!("attempts=\"{n}\"") };
    let whole = (1..=MANY).map(|n| wholes.of(&label(n), || Histogram::new(WHOLE))).collect();
    Numbers {
        attempts: Family::new(),
        attempt_seconds: Family::new(),
        point_seconds: Family::new(),
        incoming: Family::new(),
        algorithm: Histogram::new(ATTEMPT),
        victims: Histogram::new(VICTIMS),
        preemptions: Counter::new(),
        pending: Default::default(),
        whole,
        wholes,
        attempts_needed: Histogram::new(ATTEMPTS),
        cache: Default::default(),
        extender_calls: Family::new(),
        unschedulable: Family::new(),
    }
});

/// What is counted for each profile apart, looked up once.
#[derive(Debug)]
pub(crate) struct ProfileNumbers {
    attempts: [(Arc<Counter>, Arc<Histogram>); 3],
    stages: [Arc<Histogram>; 6],
}

impl ProfileNumbers {
    pub(crate) fn of(profile: &str) -> Self {
        let attempts = OUTCOMES.map(|(_, result)| {
            let labels = format!("profile=\"{profile}\",result=\"{result}\"");
            let seconds = NUMBERS.attempt_seconds.of(&labels, || Histogram::new(ATTEMPT));
            (NUMBERS.attempts.of(&labels, Counter::new), seconds)
        });
        let stages = STAGES.map(|(_, point)| {
            let labels = format!("extension_point=\"{point}\",profile=\"{profile}\",status=\"Success\"");
            NUMBERS.point_seconds.of(&labels, || Histogram::new(POINT))
        });
        Self { attempts, stages }
    }

    /// An attempt is over.
    pub(crate) fn attempt(&self, outcome: Outcome, took: Duration) {
        let (count, seconds) = &self.attempts[outcome as usize];
        count.inc();
        seconds.observe(took.as_secs_f64());
    }

    /// A part of an attempt is over.
    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].observe(took.as_secs_f64());
    }
}

/// To find a node, or that there is none, took so long.
pub(crate) fn decided(took: Duration) {
    NUMBERS.algorithm.observe(took.as_secs_f64());
}

/// Pods are asked to leave for another one.
pub(crate) fn preempted(victims: usize) {
    NUMBERS.victims.observe(victims as f64);
}

/// Somebody looked for pods that might leave.
pub(crate) fn tried_preemption() {
    NUMBERS.preemptions.inc();
}

/// A pod is bound, so long after it first came, at its so many-th attempt.
pub(crate) fn bound(attempts: usize, since: Duration) {
    let attempts = attempts.max(1);
    NUMBERS.whole[attempts.min(MANY) - 1].observe(since.as_secs_f64());
    NUMBERS.attempts_needed.observe(attempts as f64);
}

/// So many pods wait.
pub(crate) fn pending(pending: Pending) {
    let values = [pending.active, pending.backoff, pending.unschedulable, pending.gated];
    for (gauge, value) in NUMBERS.pending.iter().zip(values) {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

/// So many nodes, pods on them, and pods about to be there.
pub(crate) fn cache(nodes: usize, pods: usize, assumed: usize) {
    for (gauge, value) in NUMBERS.cache.iter().zip([nodes, pods, assumed]) {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

/// Where pods are counted that come into a queue because of an event.
pub(crate) fn incoming(queue: &str, event: &str) -> Arc<Counter> {
    NUMBERS.incoming.of(&format!("event=\"{event}\",queue=\"{queue}\""), Counter::new)
}

/// How many pods a plugin keeps from their nodes.
pub(crate) fn unschedulable(plugin: &str, profile: &str) -> Arc<Gauge> {
    NUMBERS.unschedulable.of(&format!("plugin=\"{plugin}\",profile=\"{profile}\""), Gauge::new)
}

/// Where the time is counted that calls to extenders take.
pub(crate) fn extender(url: &str, verb: &str) -> Arc<Histogram> {
    // Whatever is in the configuration file stays within its quotes.
    let url = url.replace(['\\', '"', '\n'], "_");
    let labels = format!("extender=\"{url}\",verb=\"{verb}\"");
    NUMBERS.extender_calls.of(&labels, || Histogram::new(ATTEMPT))
}

/// Adds the scheduler's numbers to a page.
pub fn metrics(page: &mut Page) {
    let n = &*NUMBERS;
    page.counters(
        "scheduler_schedule_attempts_total",
        "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
        &n.attempts,
    );
    page.histograms(
        "scheduler_scheduling_attempt_duration_seconds",
        "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
        &n.attempt_seconds,
    );
    page.family(
        "scheduler_scheduling_algorithm_duration_seconds",
        "histogram",
        "Scheduling algorithm latency in seconds",
    );
    page.histogram("", &n.algorithm);
    page.histograms(
        "scheduler_framework_extension_point_duration_seconds",
        "Latency for running all plugins of a specific extension point.",
        &n.point_seconds,
    );
    page.histograms(
        "scheduler_pod_scheduling_sli_duration_seconds",
        "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
        &n.wholes,
    );
    page.family(
        "scheduler_pod_scheduling_attempts",
        "histogram",
        "Number of attempts to successfully schedule a pod.",
    );
    page.histogram("", &n.attempts_needed);
    page.gauges(
        "scheduler_unschedulable_pods",
        "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
        &n.unschedulable,
    );
    page.family("scheduler_pending_pods", "gauge", "Number of pending pods, by the queue type.");
    for (queue, gauge) in ["active", "backoff", "unschedulable", "gated"].into_iter().zip(&n.pending) {
        page.sample(&format!("queue=\"{queue}\""), gauge.get() as f64);
    }
    page.counters(
        "scheduler_queue_incoming_pods_total",
        "Number of pods added to scheduling queues by event and queue type.",
        &n.incoming,
    );
    page.counter(
        "scheduler_preemption_attempts_total",
        "Total preemption attempts in the cluster till now",
        &n.preemptions,
    );
    page.family("scheduler_preemption_victims", "histogram", "Number of selected preemption victims");
    page.histogram("", &n.victims);
    page.family(
        "scheduler_cache_size",
        "gauge",
        "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
    );
    for (sort, gauge) in ["nodes", "pods", "assumed_pods"].into_iter().zip(&n.cache) {
        page.sample(&format!("type=\"{sort}\""), gauge.get() as f64);
    }
    page.histograms(
        "gantry_scheduler_extender_duration_seconds",
        "Time that calls to extenders took, by extender and verb.",
        &n.extender_calls,
    );
}
