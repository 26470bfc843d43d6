//! Events are collected and delivered many at a time (kubernetes/kubernetes, `apiserver/plugin/pkg/audit/buffered`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::Drain;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::backend::{AuditBatch, Outlet};
use super::counts::Counts;

/// Events that wait take no more than this, however few they are.
const MOST_BYTES: usize = 256 * 1024 * 1024;
/// So many batches are on their way at once: a server that hangs must not gather all there ever were.
const MOST_UNDER_WAY: usize = 8;
/// When the server ends, events are waited for until there are none for this long ...
const SILENCE: Duration = Duration::from_millis(200);
/// ... but no longer than this.
const FAREWELL: Duration = Duration::from_secs(12);

/// What waits.
pub(super) struct Buffer {
    sender: mpsc::Sender<String>,
    bytes: Arc<AtomicUsize>,
}

impl Buffer {
    /// Takes an event, or drops and counts it.
    pub(super) fn give(&self, event: String, counts: &Counts) {
        let length = event.len();
        if self.bytes.fetch_add(length, Ordering::Relaxed).saturating_add(length) > MOST_BYTES {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            return counts.failed("buffered", 1, "the audit buffer holds too many bytes");
        }
        if let Err(error) = self.sender.try_send(event) {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            let why = match error {
                mpsc::error::TrySendError::Full(_) => "audit buffer queue blocked",
                mpsc::error::TrySendError::Closed(_) => "audit backend shut down",
            };
            counts.failed("buffered", 1, why);
        }
    }
}

/// Begins to deliver what is given to the buffer.
pub(super) fn start(outlet: &Arc<Outlet>, batch: AuditBatch, counts: &Arc<Counts>, drain: &Drain) -> Buffer {
    let (sender, receiver) = mpsc::channel(batch.buffer.max(1));
    let bytes = Arc::new(AtomicUsize::new(0));
    let worker = Worker {
        receiver,
        bytes: bytes.clone(),
        outlet: outlet.clone(),
        batch,
        counts: counts.clone(),
        drain: drain.clone(),
        under_way: Arc::new(Semaphore::new(MOST_UNDER_WAY)),
    };
    drain.spawn(worker.run());
    Buffer { sender, bytes }
}

struct Worker {
    receiver: mpsc::Receiver<String>,
    bytes: Arc<AtomicUsize>,
    outlet: Arc<Outlet>,
    batch: AuditBatch,
    counts: Arc<Counts>,
    drain: Drain,
    under_way: Arc<Semaphore>,
}

impl Worker {
    async fn run(mut self) {
        let mut throttle = self.batch.throttle.map(|(rate, burst)| Throttle::new(rate, burst));
        loop {
            let first = tokio::select! {
                biased;
                first = self.receiver.recv() => first,
                () = self.drain.started() => break,
            };
            let Some(first) = first else { return };
            let events = self.collect(first).await;
            if let Some(throttle) = &mut throttle {
                tokio::select! {
                    () = throttle.turn() => {}
                    () = self.drain.started() => {}
                }
            }
            self.deliver(events).await;
        }
        // Requests under way still have their last events to tell.
        let end = Instant::now() + FAREWELL;
        loop {
            let patience = SILENCE.min(end.saturating_duration_since(Instant::now()));
            let Ok(Some(first)) = tokio::time::timeout(patience, self.receiver.recv()).await else { break };
            let mut events = vec![first];
            while events.len() < self.batch.most.max(1)
                && let Ok(event) = self.receiver.try_recv()
            {
                events.push(event);
            }
            self.deliver(events).await;
        }
        self.receiver.close();
        let mut late = 0;
        while self.receiver.try_recv().is_ok() {
            late += 1;
        }
        if late > 0 {
            self.counts.failed("buffered", late, "audit backend shut down");
        }
    }

    async fn collect(&mut self, first: String) -> Vec<String> {
        let mut events = vec![first];
        let end = Instant::now() + self.batch.wait;
        while events.len() < self.batch.most {
            let next = tokio::select! {
                biased;
                next = self.receiver.recv() => next,
                () = tokio::time::sleep_until(end) => None,
                () = self.drain.started() => None,
            };
            let Some(next) = next else { break };
            events.push(next);
        }
        events
    }

    async fn deliver(&self, events: Vec<String>) {
        self.bytes.fetch_sub(events.iter().map(String::len).sum(), Ordering::Relaxed);
        let (outlet, counts) = (self.outlet.clone(), self.counts.clone());
        let work = async move {
            if let Err(why) = outlet.deliver(&events).await {
                counts.failed(outlet.name(), events.len(), &why);
            }
        };
        match &*self.outlet {
            // Lines stay in order.
            Outlet::Log(_) => work.await,
            Outlet::Webhook(_) => {
                let Ok(permit) = self.under_way.clone().acquire_owned().await else { return };
                self.drain.spawn(async move {
                    work.await;
                    drop(permit);
                });
            }
        }
    }
}

/// So many a second, and so many at once.
struct Throttle {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Throttle {
    fn new(rate: f32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: f64::from(rate).max(0.001), burst, tokens: burst, filled: Instant::now() }
    }

    async fn turn(&mut self) {
        self.fill();
        if self.tokens < 1.0 {
            tokio::time::sleep(Duration::from_secs_f64((1.0 - self.tokens) / self.rate)).await;
            self.fill();
        }
        self.tokens -= 1.0;
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn batches_are_throttled() {
        let mut throttle = Throttle::new(10.0, 15);
        let begun = Instant::now();
        for _ in 0..15 {
            throttle.turn().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            throttle.turn().await;
        }
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_millis(1200), "{took:?}");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let (sender, receiver) = mpsc::channel(3);
        let buffer = Buffer { sender, bytes: Arc::default() };
        let counts = Counts::default();
        for _ in 0..5 {
            buffer.give("event".into(), &counts);
        }
        assert_eq!((counts.lost("buffered"), buffer.bytes.load(Ordering::Relaxed)), (2, 15));
        drop(receiver);
        buffer.give("event".into(), &counts);
        assert_eq!(counts.lost("buffered"), 3);
        let huge = Buffer { bytes: Arc::new(AtomicUsize::new(MOST_BYTES)), ..buffer };
        huge.give("event".into(), &counts);
        assert_eq!((counts.lost("buffered"), huge.bytes.load(Ordering::Relaxed)), (4, MOST_BYTES));
    }
}
