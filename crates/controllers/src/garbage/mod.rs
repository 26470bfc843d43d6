//! Garbage collection: what becomes of objects whose owners go (kubernetes/kubernetes,
//! `pkg/controller/garbagecollector`).
//!
//! ```text
//! a watch of each kind's metadata ─► Graph ─► queue ─► collect
//!        ▲ started and stopped as kinds come and go
//! ```
//!
//! Nothing is deleted because of what the graph says alone: the object and its owners are asked for first.

mod collect;
mod graph;
mod monitor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use client::{Controller, Discovered, discover};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::context::Context;
use collect::Collector;
use graph::{Graph, KindId};

/// Events own nothing and are owned by nothing.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// Kinds that cannot be listed do not keep the others from being collected for longer than this.
const PATIENCE: Duration = Duration::from_secs(30);
/// New kinds come in crowds.
const SETTLE: Duration = Duration::from_millis(500);

/// The kinds that are watched. A kind's number is never used again.
#[derive(Default)]
struct Kinds {
    all: HashMap<KindId, Arc<Discovered>>,
    running: HashMap<KindId, Drain>,
    last: u32,
}

impl Kinds {
    /// The kind that an owner reference names, in whatever version.
    fn find(&self, api_version: &str, kind: &str) -> Option<Arc<Discovered>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.all.values().find(|d| d.resource.group == group && d.resource.kind == kind).cloned()
    }
}

struct Shared {
    ctx: Context,
    graph: Mutex<Graph>,
    kinds: RwLock<Kinds>,
    /// A kind may have come or gone.
    kinds_changed: Notify,
    /// How many kinds are not listed yet.
    unlisted: watch::Sender<usize>,
    queue: client::Queue,
}

pub(crate) fn start(ctx: &Context) {
    let controller = ctx.sized(Controller::new("garbage-collector").workers(16));
    let shared = Arc::new(Shared {
        ctx: ctx.clone(),
        graph: Mutex::default(),
        kinds: RwLock::default(),
        kinds_changed: Notify::new(),
        unlisted: watch::Sender::new(0),
        queue: controller.queue(),
    });
    let following = shared.clone();
    ctx.drain.spawn_until_started(async move { following.follow_kinds().await });
    let drain = ctx.drain.clone();
    ctx.drain.spawn(async move {
        let mut unlisted = shared.unlisted.subscribe();
        tokio::select! {
            // Zero is where it begins, too: the first change is the number of kinds.
            _ = tokio::time::timeout(PATIENCE, async {
                if unlisted.changed().await.is_ok() {
                    let _ = unlisted.wait_for(|n| *n == 0).await;
                }
            }) => {}
            () = drain.started() => return,
        }
        let collector = Arc::new(Collector::new(shared));
        controller.run(drain, move |key| collector.clone().look(key)).await;
    });
}

impl Shared {
    /// Watches every kind there is, whenever kinds may have changed.
    async fn follow_kinds(self: Arc<Self>) {
        let mut backoff = base::Backoff::new(Duration::from_millis(100), PATIENCE);
        loop {
            match discover(&self.ctx.client()).await {
                Ok((found, silent)) => {
                    backoff.reset();
                    self.update_kinds(found, &silent);
                    self.kinds_changed.notified().await;
                    tokio::time::sleep(SETTLE).await;
                }
                Err(error) => {
                    crate::metrics::kinds_unknown();
                    tracing::warn!(%error, "cannot ask the server for its kinds");
                    tokio::time::sleep(backoff.fail()).await;
                }
            }
        }
    }

    fn update_kinds(self: &Arc<Self>, found: Vec<Discovered>, silent: &[String]) {
        let is_ours = |d: &Discovered| {
            let name = (d.resource.group.as_str(), d.resource.plural.as_str());
            ["list", "watch", "delete"].iter().all(|verb| d.can(verb)) && !IGNORED.contains(&name)
        };
        let found: Vec<Discovered> = found.into_iter().filter(is_ours).collect();
        let mut kinds = self.kinds.write();
        // A group that does not answer has not gone.
        let is_silent =
            |d: &Discovered| silent.iter().any(|s| s.split('/').next() == Some(&d.resource.group));
        let gone: Vec<KindId> = kinds
            .all
            .iter()
            .filter(|(_, known)| !found.contains(known) && !is_silent(known))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            kinds.all.remove(&id);
            if let Some(drain) = kinds.running.remove(&id) {
                drain.start();
            }
            self.graph.lock().forget(id);
        }
        let fresh: Vec<Discovered> =
            found.into_iter().filter(|d| !kinds.all.values().any(|known| **known == *d)).collect();
        self.unlisted.send_modify(|n| *n += fresh.len());
        for kind in fresh {
            kinds.last += 1;
            let (id, kind) = (KindId(kinds.last), Arc::new(kind));
            kinds.all.insert(id, kind.clone());
            kinds.running.insert(id, monitor::start(self, id, kind));
        }
    }

    fn wake(&self, wakes: Vec<graph::Wake>) {
        wakes.into_iter().for_each(|wake| self.queue.add(wake.key()));
    }
}

#[cfg(test)]
mod tests;
