//! Pods that the node runs by itself, from manifests, and the mirrors by which the API shows them (kubernetes/kubernetes,
//! `pkg/kubelet/config`, `pkg/kubelet/pod`).
//!
//! ```text
//! folder.rs, url.rs: texts ─► manifest.rs: pods ─► table.rs: which run, which end, which wait ─► the agent's queue
//!                                                          └─► mirror.rs: the API's picture of them
//! ```
//!
//! Nobody but the node decides on such a pod: it runs before the API can be reached and while it is away, and what is
//! done to its mirror does nothing to it. Its status lives here, and its manifest also in its folder (`notes.rs`), so
//! that an agent that starts again can end properly what is not wanted any more.

mod folder;
mod manifest;
mod mirror;
pub(crate) mod notes;
mod references;
mod table;
mod url;
mod watch;

use std::sync::{Arc, OnceLock};

use base::Timestamp;
use client::{Informer, Key, Queue};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;

pub use manifest::PodRules;
pub(crate) use manifest::{Entry, Source};
pub(crate) use mirror::start as start_mirrors;
pub(crate) use table::Table;
pub(crate) use watch::follow;

use crate::worker::uid_of;

/// The annotation of mirrors: the hash of what they mirror.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The hash of a manifest: the pod's UID.
const HASH: &str = "kubernetes.io/config.hash";
/// Where a pod comes from.
const SOURCE: &str = "kubernetes.io/config.source";
/// When its manifest was first seen.
const SEEN: &str = "kubernetes.io/config.seen";

/// What the node is told to run by itself.
#[derive(Clone)]
pub struct Manifests {
    /// A folder of manifests, or one manifest.
    pub path: Option<std::path::PathBuf>,
    /// How often the folder is looked at although nothing is heard of it.
    pub file_check_frequency: std::time::Duration,
    /// Where more manifests are to be had.
    pub url: Option<String>,
    /// What is said when asking there.
    pub url_headers: Vec<(String, String)>,
    /// How often is asked.
    pub http_check_frequency: std::time::Duration,
    /// The API's rules for pods.
    pub rules: Arc<dyn PodRules>,
}

impl std::fmt::Debug for Manifests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers may be secrets.
        f.debug_struct("Manifests").field("path", &self.path).field("url", &self.url).finish_non_exhaustive()
    }
}

/// All pods of the node: those that the API binds to it, and its own. Clones share everything.
#[derive(Clone)]
pub(crate) struct Pods(Arc<Shared>);

struct Shared {
    /// What the API says, with mirrors. Nothing for a node alone.
    api: Option<Informer<Pod>>,
    own: Mutex<Table>,
    mirrors: OnceLock<Queue>,
}

/// Whether a pod of the API is the picture of a node's own.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

impl Pods {
    pub(crate) fn new(api: Option<Informer<Pod>>) -> Self {
        Self(Arc::new(Shared { api, own: Mutex::default(), mirrors: OnceLock::new() }))
    }

    /// The pod that the node runs, or ends, under this name.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Pod>> {
        if let Some(own) = self.0.own.lock().get(key) {
            return Some(own);
        }
        self.0.api.as_ref()?.get(key).filter(|pod| !is_mirror(pod))
    }

    /// Every pod that the node runs or ends.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        let mut all = self.0.own.lock().list();
        if let Some(api) = &self.0.api {
            let own: std::collections::BTreeSet<Key> = all.iter().map(|pod| Key::of(&**pod)).collect();
            let theirs = api.store().list().into_iter();
            all.extend(theirs.filter(|pod| !is_mirror(pod) && !own.contains(&Key::of(&**pod))));
        }
        all
    }

    /// How many are the node's own.
    pub(crate) fn own_count(&self) -> usize {
        self.0.own.lock().list().len()
    }

    /// Resolves when the API has said which pods there are. A node alone has nobody to wait for.
    pub(crate) async fn ready(&self) {
        if let Some(api) = &self.0.api {
            api.ready().await;
        }
    }

    /// Whether it is one of the node's own.
    pub(crate) fn is_own(&self, pod: &Pod) -> bool {
        self.0.own.lock().get(&Key::of(pod)).is_some_and(|own| uid_of(&own) == uid_of(pod))
    }

    /// Takes up the node's own pods that ran before this agent began.
    pub(crate) fn adopt(&self, entries: Vec<Entry>) {
        self.0.own.lock().adopt(entries);
    }

    /// Notes all that a source wants to run. Gives the keys for which something has changed.
    pub(crate) fn want(&self, source: Source, entries: Vec<Entry>, now: Timestamp) -> Vec<Key> {
        let changed = self.0.own.lock().want(source, entries, now);
        changed.iter().for_each(|key| self.wake_mirror(key));
        changed
    }

    /// What is to be remembered of a pod of the node's own.
    pub(crate) fn entry(&self, pod: &Pod) -> Option<Entry> {
        self.0.own.lock().entry(&Key::of(pod), uid_of(pod))
    }

    /// Notes the status of one of the node's own.
    pub(crate) fn report(&self, pod: &Pod, status: PodStatus) {
        let key = Key::of(pod);
        self.0.own.lock().report(&key, uid_of(pod), status);
        self.wake_mirror(&key);
    }

    /// Notes that one of the node's own has ended and left nothing behind; whoever waits for its name comes next.
    pub(crate) fn ended(&self, pod: &Pod) {
        let key = Key::of(pod);
        self.0.own.lock().ended(&key, uid_of(pod));
        self.wake_mirror(&key);
    }

    fn mirrors_go_to(&self, queue: Queue) {
        let _ = self.0.mirrors.set(queue);
    }

    fn wake_mirror(&self, key: &Key) {
        if let Some(queue) = self.0.mirrors.get() {
            queue.add(key.clone());
        }
    }
}
