//! From the watch into the cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Drain};
use futures::{Stream, StreamExt};
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Change, Informer, Inner, Object};
use crate::informer::Cache;
use crate::key::Key;

/// How long to wait after failures in a row.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(30);

impl<K: Object> Informer<K> {
    pub(super) fn start(
        feed: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        drain: &Drain,
    ) -> Self {
        let stop = drain.child();
        let informer = Self(Arc::new(Inner {
            cache: Cache::default(),
            ready: watch::Sender::new(false),
            callbacks: Mutex::default(),
            stop: stop.clone(),
        }));
        let follower = informer.clone();
        drain.spawn(async move {
            tokio::select! {
                () = follower.follow(feed) => {}
                () = stop.started() => {}
            }
        });
        informer
    }

    /// The watcher resumes, and lists anew, by itself; what it cannot do is to wait after failures.
    async fn follow(&self, feed: impl Stream<Item = watcher::Result<Event<K>>> + Send) {
        let mut backoff = Backoff::new(FIRST, MOST);
        let mut listed: Option<HashMap<Key, Arc<K>>> = None;
        let mut feed = std::pin::pin!(feed);
        while let Some(event) = feed.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let delay = backoff.fail();
                    tracing::debug!(%error, ?delay, kind = std::any::type_name::<K>(), "the watch broke off");
                    tokio::time::sleep(delay).await;
                    continue;
                }
            };
            match event {
                Event::Init => listed = Some(HashMap::new()),
                Event::InitApply(object) => {
                    let object = Arc::new(trim(object));
                    if let Some(listed) = &mut listed {
                        listed.insert(Key::of(&*object), object);
                    }
                }
                Event::InitDone => {
                    backoff.reset();
                    self.replace(listed.take().unwrap_or_default());
                    self.0.ready.send_replace(true);
                }
                Event::Apply(object) => {
                    backoff.reset();
                    self.apply(Arc::new(trim(object)));
                }
                Event::Delete(object) => self.delete(&Key::of(&object), Some(Arc::new(trim(object)))),
            }
        }
    }

    /// Brings the cache to what a new list says.
    fn replace(&self, listed: HashMap<Key, Arc<K>>) {
        for key in self.0.cache.keys() {
            if !listed.contains_key(&key) {
                self.delete(&key, None);
            }
        }
        for object in listed.into_values() {
            self.apply(object);
        }
    }

    fn apply(&self, object: Arc<K>) {
        let key = Key::of(&*object);
        let callbacks = self.0.callbacks.lock();
        let call = |change: &Change<K>| callbacks.iter().for_each(|callback| callback(change));
        match self.0.cache.insert(object.clone(), key) {
            None => call(&Change::Added(object)),
            // Seen already: a list that came after a watch.
            Some(old) if old.meta().resource_version == object.meta().resource_version => {}
            // Deleted and made anew while nobody looked.
            Some(old) if old.meta().uid != object.meta().uid => {
                call(&Change::Deleted(old));
                call(&Change::Added(object));
            }
            Some(old) => call(&Change::Updated { old, new: object }),
        }
    }

    fn delete(&self, key: &Key, last: Option<Arc<K>>) {
        let callbacks = self.0.callbacks.lock();
        let Some(old) = self.0.cache.remove(key) else { return };
        let change = Change::Deleted(last.unwrap_or(old));
        callbacks.iter().for_each(|callback| callback(&change));
    }
}

/// Nobody in the cluster's own components reads who set which field, and it is half of many an object.
fn trim<K: Object>(mut object: K) -> K {
    object.managed_fields_mut().clear();
    object.meta_mut().managed_fields = None;
    object
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn object(name: &str, uid: &str, revision: &str) -> ConfigMap {
        let text = |text: &str| Some(text.to_owned());
        let metadata = ObjectMeta {
            namespace: text("n"),
            name: text(name),
            uid: text(uid),
            resource_version: text(revision),
            ..Default::default()
        };
        ConfigMap { metadata, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_list_tells_only_what_changed() {
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(object("same", "1", "1"))),
            Ok(Event::InitApply(object("changed", "2", "2"))),
            Ok(Event::InitApply(object("reborn", "3", "3"))),
            Ok(Event::InitApply(object("gone", "4", "4"))),
            Ok(Event::InitDone),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(object("same", "1", "1"))),
            Ok(Event::InitApply(object("changed", "2", "7"))),
            Ok(Event::InitApply(object("reborn", "5", "8"))),
            Ok(Event::InitDone),
            Ok(Event::Delete(object("same", "1", "9"))),
        ];
        let drain = Drain::new();
        let informer = Informer::start(stream::iter(events), &drain);
        let mut changes = informer.subscribe();
        drain.child().drain().await;
        informer.ready().await;
        let mut seen = Vec::new();
        while seen.len() < 9 {
            let change = changes.recv().await.unwrap();
            let what = match &change {
                Change::Added(_) => "added",
                Change::Updated { .. } => "updated",
                Change::Deleted(_) => "deleted",
            };
            seen.push(format!("{what} {}", change.object().name_any()));
        }
        seen[..4].sort();
        assert_eq!(seen[..4], ["added changed", "added gone", "added reborn", "added same"]);
        assert_eq!(seen[4], "deleted gone");
        seen[5..8].sort();
        assert_eq!(seen[5..8], ["added reborn", "deleted reborn", "updated changed"]);
        assert_eq!(seen[8], "deleted same");
        assert_eq!(informer.store().len(), 2);
    }
}
