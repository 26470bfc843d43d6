use std::sync::Arc;

use auth::{Answer, Attributes, NodeAuthorizer, NodeGraph, User, node_of};
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use store::{EventKind, Store, Watch};

use crate::object;

/// The Node authorizer over what is stored now.
///
/// Nothing follows the tables while no node asks. A question first takes in what has happened since the last one, so a
/// node that has just been told of a pod is never refused what that pod needs.
pub(super) struct Nodes {
    authorizer: NodeAuthorizer,
    watches: Mutex<Option<Vec<(&'static str, Watch)>>>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { authorizer: NodeAuthorizer::new(Arc::default()), watches: Mutex::new(None) }
    }
}

impl Nodes {
    pub(super) fn authorize(&self, store: &Store, user: &User, attributes: &Attributes<'_>) -> Answer {
        if node_of(user).is_none() {
            return Answer::default();
        }
        self.catch_up(store);
        self.authorizer.authorize(user, attributes)
    }

    fn catch_up(&self, store: &Store) {
        let graph = self.authorizer.graph();
        let mut watches = self.watches.lock();
        if let Some(watches) = &mut *watches
            && watches.iter_mut().all(|(table, watch)| follow(graph, table, watch))
        {
            return;
        }
        // The first question, or history does not reach back to the last one.
        graph.clear();
        let mut fresh = Vec::new();
        for table in NodeGraph::TABLES {
            let snapshot = store.snapshot(table);
            for record in snapshot.records.values() {
                if let Ok(object) = serde_json::from_slice::<Value>(&record.value) {
                    graph.set(table, &object);
                }
            }
            match store.watch(table, snapshot.revision) {
                Ok(watch) => fresh.push((table, watch)),
                Err(error) => tracing::warn!(%error, table, "cannot follow what nodes may see"),
            }
        }
        *watches = Some(fresh).filter(|f| f.len() == NodeGraph::TABLES.len());
    }
}

/// Takes in what has happened. `false` if that is no longer known.
fn follow(graph: &NodeGraph, table: &str, watch: &mut Watch) -> bool {
    loop {
        match watch.next().now_or_never() {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(events)) => {
                for event in events {
                    if event.kind == EventKind::Deleted {
                        let (namespace, name) = object::split_key(&event.record.key);
                        graph.remove(table, namespace, name);
                    } else if let Ok(object) = serde_json::from_slice::<Value>(&event.record.value) {
                        graph.set(table, &object);
                    }
                }
            }
        }
    }
}
