//! One list and watch for each kind in a process, and the cache it fills.
//!
//! ```text
//! list ─► watch ─► Cache ─► callbacks (work queues)
//!   ▲        │ 410: too old
//!   └────────┘
//! ```

mod cache;
mod feed;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use base::Drain;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

pub use cache::{Cache, Index};

use crate::key::Key;

/// What an informer can hold: typed objects, or the metadata of any.
pub trait Object: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Object for K {}

/// Which objects of a kind are of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// A field selector, such as `spec.nodeName=n1`; empty for all.
    pub fields: String,
    /// A label selector; empty for all.
    pub labels: String,
}

impl Selection {
    /// Objects whose fields fit.
    pub fn fields(fields: impl Into<String>) -> Self {
        Self { fields: fields.into(), ..Self::default() }
    }

    /// Objects whose labels fit.
    pub fn labels(labels: impl Into<String>) -> Self {
        Self { labels: labels.into(), ..Self::default() }
    }

    fn config(&self) -> watcher::Config {
        let mut config = watcher::Config::default();
        if !self.fields.is_empty() {
            config = config.fields(&self.fields);
        }
        if !self.labels.is_empty() {
            config = config.labels(&self.labels);
        }
        config
    }
}

/// What happened to an object.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Change<K> {
    Added(Arc<K>),
    Updated {
        old: Arc<K>,
        new: Arc<K>,
    },
    /// With the last state that was seen.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object as it is now, or last was.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(object) => Self::Added(object.clone()),
            Self::Updated { old, new } => Self::Updated { old: old.clone(), new: new.clone() },
            Self::Deleted(object) => Self::Deleted(object.clone()),
        }
    }
}

/// The informers of a process. Clones share everything.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
    client: Client,
}

struct Shared {
    /// Who looks.
    client: Client,
    drain: Drain,
    running: Mutex<HashMap<(TypeId, Selection), Box<dyn Any + Send>>>,
}

impl Informers {
    /// No informer runs yet; each begins when it is first asked for, and ends with `drain`.
    pub fn new(client: Client, drain: Drain) -> Self {
        let shared = Arc::new(Shared { client: client.clone(), drain, running: Mutex::default() });
        Self { shared, client }
    }

    /// The same informers, for a component that writes as somebody else: two components that follow one kind need not
    /// hold everything twice.
    #[must_use]
    pub fn acting_as(&self, client: Client) -> Self {
        Self { shared: self.shared.clone(), client }
    }

    /// The client that their user writes with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every object of a kind.
    pub fn of<K>(&self) -> Informer<K>
    where
        K: Object + Resource<DynamicType = ()>,
    {
        self.select(Selection::default())
    }

    /// The objects of a kind that a selection picks. Each selection has a cache of its own.
    pub fn select<K>(&self, selection: Selection) -> Informer<K>
    where
        K: Object + Resource<DynamicType = ()>,
    {
        let mut running = self.shared.running.lock();
        let entry = running.entry((TypeId::of::<K>(), selection.clone())).or_insert_with(|| {
            let feed = watcher(Api::<K>::all(self.shared.client.clone()), selection.config());
            Box::new(Informer::start(feed, &self.shared.drain))
        });
        entry.downcast_ref::<Informer<K>>().cloned().unwrap_or_else(|| unreachable!("keyed by type"))
    }

    /// The metadata of every object of a kind that is known only at run time.
    ///
    /// It is not shared: the caller keeps it, and stops it with [`Informer::stop`].
    pub fn metadata(&self, resource: &ApiResource) -> Informer<PartialObjectMeta<DynamicObject>> {
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.shared.client.clone(), resource);
        Informer::start(watcher(api, watcher::Config::default()), &self.shared.drain)
    }
}

/// One kind's cache, kept up to date by a watch. Clones share it.
pub struct Informer<K>(Arc<Inner<K>>);

struct Inner<K> {
    cache: Cache<K>,
    ready: watch::Sender<bool>,
    /// Held while a change goes into the cache and to all callbacks, so that a new callback misses none.
    callbacks: Mutex<Vec<Callback<K>>>,
    stop: Drain,
}

type Callback<K> = Box<dyn Fn(&Change<K>) + Send>;

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Object> Informer<K> {
    /// What is known at present.
    pub fn store(&self) -> &Cache<K> {
        &self.0.cache
    }

    /// The object under a key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.0.cache.get(key)
    }

    /// Resolves when the first list is in the cache.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Whether the first list is in the cache.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Calls back for each change, in order, and first for each object that is known already.
    ///
    /// The callback runs between two changes: it must be quick, and must not register callbacks itself. The cache
    /// shows the change already.
    pub fn on_change(&self, callback: impl Fn(&Change<K>) + Send + 'static) {
        let mut callbacks = self.0.callbacks.lock();
        for object in self.0.cache.list() {
            callback(&Change::Added(object));
        }
        callbacks.push(Box::new(callback));
    }

    /// The changes as a queue, beginning with each object that is known already. Nothing is ever dropped, so the
    /// reader must keep up.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Change<K>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.on_change(move |change| {
            // A reader that is gone wants no more.
            let _ = sender.send(change.clone());
        });
        receiver
    }

    /// A lookup by anything that can be told from an object. The same name gives the same index: `values` of the
    /// first caller counts.
    pub fn index<I>(&self, name: &'static str, values: impl Fn(&K) -> I + Send + Sync + 'static) -> Index<K>
    where
        I: IntoIterator<Item = String>,
    {
        self.0.cache.index(name, Box::new(move |object| values(object).into_iter().collect()))
    }

    /// Ends the watch. The cache stays as it is.
    pub fn stop(&self) {
        self.0.stop.start();
    }
}
