//! Counts afresh what quotas limit once objects go (kubernetes/kubernetes, `pkg/controller/resourcequota`). Writes are
//! charged when they are admitted, by the same code, and in the API server it can see charges that are under way.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use admission::{Objects, quota_tables};
use parking_lot::Mutex;
use serde_json::Value;
use store::{Event, EventKind};
use tokio::sync::Notify;
use types::str_at;

use crate::follow::{Follower, News};
use crate::object;
use crate::state::Inner;

const QUOTAS: &str = "resourcequotas";
/// Between two counts: a namespace that loses many objects is not counted after each of them.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks after all quotas, now and after every change.
pub(crate) fn start(server: &Arc<Inner>) {
    server.drain.spawn(follow(Arc::downgrade(server), Follower::new(server, QUOTAS)));
}

/// The namespaces whose quotas have to be counted.
#[derive(Default)]
struct Due {
    namespaces: Mutex<BTreeSet<String>>,
    bell: Notify,
}

impl Due {
    fn add(&self, namespaces: BTreeSet<String>) {
        if !namespaces.is_empty() {
            self.namespaces.lock().extend(namespaces);
            self.bell.notify_one();
        }
    }
}

async fn follow(server: Weak<Inner>, mut quotas: Follower) {
    let due = Arc::new(Due::default());
    let mut followed: HashSet<Arc<str>> = HashSet::new();
    loop {
        tokio::select! {
            next = quotas.next() => {
                let Some((server, news)) = next else { return };
                let changed = match news {
                    News::Everything(_) => spaces_with_quotas(&server),
                    News::Events(events) => spaces(events.iter().filter(|e| asks_otherwise(e))),
                };
                for table in needed(&server, &changed) {
                    if followed.insert(table.clone()) {
                        let follower = Follower::from_now(&server, table.clone());
                        server.drain.spawn(follow_table(follower, table, due.clone()));
                    }
                }
                due.add(changed);
            }
            () = due.bell.notified() => {
                let Some(server) = server.upgrade() else { return };
                let namespaces = std::mem::take(&mut *due.namespaces.lock());
                for namespace in namespaces {
                    match server.admission.recount(&server.registry(), &namespace, &*server).await {
                        Ok(None) => {}
                        Ok(Some(pause)) => {
                            let due = due.clone();
                            server.drain.spawn_until_started(async move {
                                tokio::time::sleep(pause).await;
                                due.add(BTreeSet::from([namespace]));
                            });
                        }
                        Err(error) => {
                            tracing::warn!(namespace, error = error.message, "cannot count what quotas limit");
                        }
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = server.drain.started() => return,
                }
            }
        }
    }
}

/// Tells which namespaces use less of a table than before.
async fn follow_table(mut follower: Follower, table: Arc<str>, due: Arc<Due>) {
    while let Some((server, news)) = follower.next().await {
        due.add(match news {
            News::Everything(_) => spaces_with_quotas(&server),
            News::Events(events) => {
                // Asked first: most namespaces have no quota, and it takes reading an object to see what it frees.
                let limited = spaces_with_quotas(&server);
                let is_limited = |event: &Event| limited.contains(object::split_key(&event.record.key).0);
                spaces(events.iter().filter(|event| is_limited(event) && frees(&table, event)))
            }
        });
    }
}

/// Whether an object may use less than it did.
fn frees(table: &str, event: &Event) -> bool {
    match event.kind {
        EventKind::Deleted => true,
        EventKind::Created => false,
        EventKind::Updated => {
            let Some(previous) = &event.previous else { return false };
            match table {
                "pods" => !is_over(&previous.value) && is_over(&event.record.value),
                // What they ask for can shrink.
                "services" | "persistentvolumeclaims" => true,
                _ => false,
            }
        }
    }
}

fn is_over(pod: &[u8]) -> bool {
    let pod: Value = serde_json::from_slice(pod).unwrap_or_default();
    matches!(str_at(&pod, &["status", "phase"]), Some("Succeeded" | "Failed"))
}

/// Whether a quota limits something else than before.
fn asks_otherwise(event: &Event) -> bool {
    let spec = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default()["spec"].take();
    event.kind != EventKind::Deleted
        && event.previous.as_ref().is_none_or(|old| spec(&old.value) != spec(&event.record.value))
}

fn spaces<'a>(events: impl Iterator<Item = &'a Arc<Event>>) -> BTreeSet<String> {
    events.map(|event| object::split_key(&event.record.key).0.to_owned()).collect()
}

fn spaces_with_quotas(server: &Inner) -> BTreeSet<String> {
    let snapshot = server.store.snapshot(QUOTAS);
    snapshot.records.keys().map(|key| object::split_key(key).0.to_owned()).collect()
}

/// The tables that the quotas of these namespaces are about.
fn needed(server: &Inner, namespaces: &BTreeSet<String>) -> Vec<Arc<str>> {
    let registry = server.registry();
    let own = |quota: &Value| {
        str_at(quota, &["metadata", "namespace"]).is_some_and(|namespace| namespaces.contains(namespace))
    };
    let quotas = server.list(QUOTAS).into_iter().filter(own);
    quotas.flat_map(|quota| quota_tables(&registry, &quota)).collect()
}
