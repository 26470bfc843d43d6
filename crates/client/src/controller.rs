use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use tokio::task::JoinSet;

use crate::informer::{Change, Informer, Object};
use crate::key::Key;
use crate::queue::WorkQueue;

/// What comes after a successful look at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something changes.
    Done,
    /// Another look after a while, whatever happens in between.
    After(Duration),
}

/// What upstream calls the queue of a controller, where that is not the controller's name: dashboards go by it.
fn queue_name(controller: &'static str) -> &'static str {
    match controller {
        "endpointslice" => "endpoint_slice",
        "endpointslicemirroring" => "endpoint_slice_mirroring",
        "horizontal-pod-autoscaler" => "horizontalpodautoscaler",
        "ephemeral-volume" => "ephemeral_volume",
        "garbage-collector" => "garbage_collector_attempt_to_delete",
        "node-ipam" => "cidrallocator_node",
        "node-lifecycle" => "node_lifecycle_controller",
        "persistent-volume-binder" => "claims",
        "csrapproving" | "csrcleaner" | "csrsigning" => "certificate",
        "job-orphan-pods" => "job_orphan_pod",
        "pv-protection" => "pvprotection",
        "pvc-protection" => "pvcprotection",
        "resource-claim" | "resource-claim-use" => "resource_claim",
        "root-ca-certificate-publisher" => "root_ca_cert_publisher",
        "service-cidr" => "ipaddresses",
        "stale-disruption" => "stale_pod_disruption",
        "token-cleaner" => "token_cleaner",
        "ttl-after-finished" => "ttl_jobs_to_delete",
        "volume-expand" => "volume_expand",
        "volumeattributesclass-protection" => "vacprotection",
        other => other,
    }
}

/// A controller's queue, for wake-ups that come from elsewhere than an informer.
pub type Queue = Arc<WorkQueue<Key>>;

type Ready = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Looks at keys whenever something about them may have changed.
///
/// Failures are logged and tried again later and later; a panic counts as a failure.
pub struct Controller {
    name: &'static str,
    workers: usize,
    queue: Queue,
    ready: Vec<Ready>,
}

impl Controller {
    /// A controller that watches nothing yet and looks at up to four keys at a time.
    pub fn new(name: &'static str) -> Self {
        Self { name, workers: 4, queue: Arc::new(WorkQueue::named(queue_name(name))), ready: Vec::new() }
    }

    /// How many keys it may look at at the same time.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// The queue.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Looks at the keys of each object that comes, changes or goes. A changed object counts twice, as it was and
    /// as it is.
    pub fn watches<K, I>(self, informer: &Informer<K>, keys: impl Fn(&K) -> I + Send + Sync + 'static) -> Self
    where
        K: Object,
        I: IntoIterator<Item = Key>,
    {
        self.watches_changes(informer, move |change, queue| {
            if let Change::Updated { old, .. } = change {
                keys(old).into_iter().for_each(|key| queue.add(key));
            }
            keys(change.object()).into_iter().for_each(|key| queue.add(key));
        })
    }

    /// Lets a callback decide what each change means for the queue.
    pub fn watches_changes<K: Object>(
        self,
        informer: &Informer<K>,
        callback: impl Fn(&Change<K>, &WorkQueue<Key>) + Send + Sync + 'static,
    ) -> Self {
        let queue = self.queue.clone();
        informer.on_change(move |change| callback(change, &queue));
        self.after(informer)
    }

    /// Begins only when this informer knows the present state too.
    pub fn after<K: Object>(mut self, informer: &Informer<K>) -> Self {
        let informer = informer.clone();
        self.ready.push(Box::pin(async move { informer.ready().await }));
        self
    }

    /// Runs until `drain` starts, then lets the looks in flight finish.
    pub async fn run<F, Fut, E>(self, drain: Drain, look: F)
    where
        F: Fn(Key) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Next, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let ready = self.ready;
        tokio::select! {
            () = async { for informer in ready { informer.await } } => {}
            () = drain.started() => return,
        }
        let (queue, name) = (self.queue, self.name);
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = drain.started() => break,
                Some(finished) = running.join_next(), if !running.is_empty() => drop::<Result<(), _>>(finished),
                key = queue.next(), if running.len() < self.workers => {
                    let run = Run { queue: queue.clone(), key: Some(key.clone()), name };
                    let looking = look(key);
                    running.spawn(async move { run.finish(looking.await) });
                }
            }
        }
        while running.join_next().await.is_some() {}
    }
}

/// A look in flight. Dropped without an outcome, it was a panic.
struct Run {
    queue: Queue,
    key: Option<Key>,
    name: &'static str,
}

impl Run {
    fn finish<E: Display>(mut self, outcome: Result<Next, E>) {
        let Some(key) = self.key.take() else { return };
        match outcome {
            Ok(next) => {
                self.queue.forget(&key);
                if let Next::After(delay) = next {
                    self.queue.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                let delay = self.queue.retry(key.clone());
                if delay > Duration::from_secs(1) {
                    tracing::warn!(controller = self.name, %key, %error, ?delay, "cannot reconcile; will try again");
                } else {
                    tracing::debug!(controller = self.name, %key, %error, ?delay, "cannot reconcile; will try again");
                }
            }
        }
        self.queue.done(&key);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        tracing::error!(controller = self.name, %key, "the look at an object was cut short");
        self.queue.retry(key.clone());
        self.queue.done(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_are_tried_again_and_wishes_granted() {
        let controller = Controller::new("test");
        let queue = controller.queue();
        queue.add(Key::new("a", "b"));
        let (drain, looks) = (Drain::new(), Arc::new(AtomicU32::new(0)));
        let (end, count) = (drain.clone(), looks.clone());
        controller
            .run(drain, move |key| {
                assert_eq!((key.namespace(), key.name()), ("a", "b"));
                let (end, count) = (end.clone(), count.clone());
                async move {
                    match count.fetch_add(1, Ordering::SeqCst) {
                        0 => Err("no luck"),
                        1 => panic!("on purpose"),
                        2 => Ok(Next::After(Duration::from_secs(100))),
                        _ => {
                            end.start();
                            Ok(Next::Done)
                        }
                    }
                }
            })
            .await;
        assert_eq!(looks.load(Ordering::SeqCst), 4);
    }
}
