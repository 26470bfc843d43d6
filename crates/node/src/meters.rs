//! What the agent counts of its own doings, for `/metrics` (kubernetes/kubernetes, `pkg/kubelet/metrics/metrics.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The bounds of the histograms, in seconds.
pub(crate) const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// How long things took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations {
    /// One for each bound: those that took no longer.
    pub(crate) within: [u64; BOUNDS.len()],
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

impl Durations {
    fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (count, bound) in self.within.iter_mut().zip(BOUNDS) {
            *count += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// By label values, in the order of the metric's labels.
pub(crate) type Counts<const N: usize> = BTreeMap<[String; N], u64>;

/// All that is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// By operation.
    pub(crate) operations: BTreeMap<&'static str, Durations>,
    /// By operation.
    pub(crate) operation_errors: BTreeMap<&'static str, u64>,
    pub(crate) looks: Durations,
    pub(crate) pod_starts: Durations,
    pub(crate) image_pulls: Durations,
    pub(crate) started_pods: u64,
    /// By kind of container, and of those that failed also by reason.
    pub(crate) started_containers: Counts<1>,
    pub(crate) failed_containers: Counts<2>,
    /// By signal.
    pub(crate) evictions: BTreeMap<String, u64>,
    /// By the resource that somebody lacked.
    pub(crate) preemptions: BTreeMap<String, u64>,
    /// By reason.
    pub(crate) images_removed: BTreeMap<&'static str, u64>,
    /// By pod UID; then probe type, result, container, pod, namespace.
    pub(crate) probes: BTreeMap<String, Counts<5>>,
}

/// Counters. Everybody may count at any time.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<Counted>);

impl Meters {
    /// Takes note of something.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Counted)) {
        change(&mut self.0.lock());
    }

    /// What was counted up to now.
    pub(crate) fn read(&self) -> Counted {
        self.0.lock().clone()
    }

    /// Counts what the runtime is asked to do, and how long it takes.
    pub(crate) async fn operation<T, E>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let outcome = work.await;
        self.note(|counted| {
            counted.operations.entry(name).or_default().note(begun.elapsed());
            if outcome.is_err() {
                *counted.operation_errors.entry(name).or_default() += 1;
            }
        });
        outcome
    }

    /// A pod was looked at.
    pub(crate) fn looked(&self, took: Duration) {
        self.note(|counted| counted.looks.note(took));
    }

    /// An image was pulled.
    pub(crate) fn pulled(&self, took: Duration) {
        self.note(|counted| counted.image_pulls.note(took));
    }

    /// All containers of a pod run for the first time.
    pub(crate) fn pod_started(&self, took: Duration) {
        self.note(|counted| counted.pod_starts.note(took));
    }

    /// A pod is gone: nobody asks for its probes any more.
    pub(crate) fn forget_pod(&self, uid: &str) {
        self.note(|counted| drop(counted.probes.remove(uid)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn operations_are_counted() {
        let meters = Meters::default();
        let _: Result<(), ()> = meters.operation("start_container", async { Ok(()) }).await;
        let _: Result<(), ()> = meters.operation("start_container", async { Err(()) }).await;
        meters.looked(Duration::from_millis(30));
        let read = meters.read();
        assert_eq!(read.operations["start_container"].count, 2);
        assert_eq!(read.operation_errors["start_container"], 1);
        assert_eq!(read.looks.within[..4], [0, 0, 0, 1]);
        assert!(read.looks.sum > 0.029);
    }
}
