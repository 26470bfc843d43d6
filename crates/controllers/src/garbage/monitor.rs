//! One kind's metadata, straight from the watch into the graph: no cache in between.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Drain};
use client::{Discovered, Key};
use futures::StreamExt;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};

use super::Shared;
use super::graph::{KindId, Observed, Uid};

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(60);

/// Runs until the drain it gives is started.
pub(super) fn start(shared: &Arc<Shared>, id: KindId, kind: Arc<Discovered>) -> Drain {
    let drain = shared.ctx.drain.child();
    let (until, shared) = (drain.clone(), shared.clone());
    shared.ctx.drain.clone().spawn(async move {
        tokio::select! {
            () = follow(&shared, id, &kind) => {}
            () = until.started() => {}
        }
    });
    drain
}

async fn follow(shared: &Shared, id: KindId, kind: &Discovered) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(shared.ctx.client(), &kind.resource);
    let mut feed = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut backoff = Backoff::new(FIRST, MOST);
    let mut listed: HashSet<Uid> = HashSet::new();
    let (mut first, mut is_list) = (true, false);
    // Kinds that define kinds.
    let defines = matches!(kind.resource.plural.as_str(), "customresourcedefinitions" | "apiservices");
    while let Some(event) = feed.next().await {
        match event {
            Err(error) => {
                tracing::debug!(kind = %kind.resource.plural, %error, "the watch broke off");
                tokio::time::sleep(backoff.fail()).await;
            }
            Ok(Event::Init) => {
                listed.clear();
                is_list = true;
            }
            Ok(Event::InitApply(object)) => {
                let observed = observed(id, &object);
                listed.insert(observed.uid);
                let wakes = shared.graph.lock().observe(observed);
                shared.wake(wakes);
            }
            Ok(Event::InitDone) => {
                backoff.reset();
                if is_list {
                    let wakes = shared.graph.lock().keep(id, &std::mem::take(&mut listed));
                    shared.wake(wakes);
                    is_list = false;
                }
                if std::mem::take(&mut first) {
                    shared.unlisted.send_modify(|n| *n -= 1);
                } else if defines {
                    shared.kinds_changed.notify_one();
                }
            }
            Ok(Event::Apply(object)) => {
                backoff.reset();
                let wakes = shared.graph.lock().observe(observed(id, &object));
                shared.wake(wakes);
                if defines {
                    shared.kinds_changed.notify_one();
                }
            }
            Ok(Event::Delete(object)) => {
                let wakes =
                    shared.graph.lock().gone(Uid::of(object.metadata.uid.as_deref().unwrap_or_default()));
                shared.wake(wakes);
                if defines {
                    shared.kinds_changed.notify_one();
                }
            }
        }
    }
}

fn observed(kind: KindId, object: &PartialObjectMeta<DynamicObject>) -> Observed {
    let meta = &object.metadata;
    let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
    let going = meta.deletion_timestamp.is_some();
    let uid = meta.uid.as_deref().unwrap_or_default();
    Observed {
        uid: Uid::of(uid),
        uid_text: uid.into(),
        kind,
        key: Key::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        ),
        owners: meta
            .owner_references
            .iter()
            .flatten()
            .map(|owner| (Uid::of(&owner.uid), owner.block_owner_deletion == Some(true)))
            .collect(),
        foreground: going && has("foregroundDeletion"),
        orphan: going && has("orphan"),
    }
}
