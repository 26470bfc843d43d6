//! The ConfigMaps and Secrets that this node's pods name: one watch for each, as long as somebody holds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use client::Key;
use futures::StreamExt;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::Fault;
use crate::trust::Bundle;

/// What an object holds.
pub(crate) type Content = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
    /// All ClusterTrustBundles together; none of an API that does not know them.
    TrustBundles,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
            Self::TrustBundles => "clustertrustbundle",
        }
    }
}

/// How long the API may take to tell of an object for the first time.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Wake = Arc<dyn Fn(&Key) + Send + Sync>;

type Name = (Kind, String, String);
/// Outer none: not heard of yet. Inner none: it is not there.
type State = Option<Option<Arc<Content>>>;

pub(crate) struct Objects {
    client: Client,
    drain: Drain,
    wake: Wake,
    followed: Arc<Mutex<HashMap<Name, Followed>>>,
}

struct Followed {
    state: watch::Sender<State>,
    /// Pods by UID.
    holders: BTreeMap<String, Key>,
    stop: Drain,
}

impl Objects {
    pub(crate) fn new(client: Client, drain: Drain, wake: Wake) -> Self {
        Self { client, drain, wake, followed: Arc::default() }
    }

    /// The object as it is now, if it is there; its holder is woken at every change from now on.
    pub(crate) async fn get(
        &self,
        kind: Kind,
        name: &str,
        pod: &Key,
        uid: &str,
    ) -> Result<Option<Arc<Content>>, Fault> {
        let mut state = self.follow(kind, name, pod, uid);
        let heard = tokio::time::timeout(PATIENCE, state.wait_for(Option::is_some)).await;
        match heard {
            Ok(Ok(state)) => Ok(state.clone().flatten()),
            _ => Err(Fault::Late { kind: kind.name() }),
        }
    }

    fn follow(&self, kind: Kind, name: &str, pod: &Key, uid: &str) -> watch::Receiver<State> {
        let mut followed = self.followed.lock();
        let namespace = if kind == Kind::TrustBundles { "" } else { pod.namespace() };
        let id: Name = (kind, namespace.to_owned(), name.to_owned());
        let entry = followed.entry(id.clone()).or_insert_with(|| {
            let (state, stop) = (watch::Sender::new(None), self.drain.child());
            let (namespace, client) = (pod.namespace(), self.client.clone());
            let tell = self.teller(id, state.clone());
            match kind {
                Kind::ConfigMap => {
                    let api = Api::namespaced(client, namespace);
                    stop.spawn_until_started(run(api, name.to_owned(), of_config_map, tell));
                }
                Kind::Secret => {
                    let api = Api::namespaced(client, namespace);
                    stop.spawn_until_started(run(api, name.to_owned(), of_secret, tell));
                }
                Kind::TrustBundles => drop(stop.spawn_until_started(run_bundles(Api::all(client), tell))),
            }
            Followed { state, holders: BTreeMap::new(), stop }
        });
        entry.holders.insert(uid.to_owned(), pod.clone());
        entry.state.subscribe()
    }

    /// Takes in news and wakes those whom it concerns.
    fn teller(
        &self,
        id: Name,
        state: watch::Sender<State>,
    ) -> impl Fn(Option<Arc<Content>>) + Send + 'static {
        let (followed, wake) = (Arc::downgrade(&self.followed), self.wake.clone());
        move |content| {
            let mut first = false;
            let changed = state.send_if_modified(|state| {
                first = state.is_none();
                let changed = state.as_ref() != Some(&content);
                *state = Some(content);
                changed
            });
            let Some(followed) = followed.upgrade() else { return };
            if changed && !first {
                let holders = followed.lock().get(&id).map(|f| f.holders.values().cloned().collect());
                holders.unwrap_or_else(Vec::new).iter().for_each(|key| wake(key));
            }
        }
    }

    /// A pod that is gone holds nothing any more.
    pub(crate) fn release(&self, uid: &str) {
        self.followed.lock().retain(|_, followed| {
            followed.holders.remove(uid);
            if followed.holders.is_empty() {
                followed.stop.start();
            }
            !followed.holders.is_empty()
        });
    }
}

fn of_config_map(map: ConfigMap) -> Content {
    let text = map.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes()));
    text.chain(map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0))).collect()
}

fn of_secret(secret: Secret) -> Content {
    secret.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect()
}

/// All bundles, each as one entry.
async fn run_bundles(api: Api<ClusterTrustBundle>, tell: impl Fn(Option<Arc<Content>>) + Send + 'static) {
    let entry = |bundle: ClusterTrustBundle| {
        let kept = Bundle {
            signer: bundle.spec.signer_name.unwrap_or_default(),
            labels: serde_json::to_value(bundle.metadata.labels.unwrap_or_default()).unwrap_or_default(),
            text: bundle.spec.trust_bundle,
        };
        (bundle.metadata.name.unwrap_or_default(), serde_json::to_vec(&kept).unwrap_or_default())
    };
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    let (mut all, mut listed) = (Content::new(), Content::new());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(bundle)) => listed.extend([entry(bundle)]),
            Ok(Event::InitDone) => {
                all = std::mem::take(&mut listed);
                tell(Some(Arc::new(all.clone())));
            }
            Ok(Event::Apply(bundle)) => {
                all.extend([entry(bundle)]);
                tell(Some(Arc::new(all.clone())));
            }
            Ok(Event::Delete(bundle)) => {
                all.remove(bundle.metadata.name.as_deref().unwrap_or_default());
                tell(Some(Arc::new(all.clone())));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot watch ClusterTrustBundles; will try again");
                if let watcher::Error::InitialListFailed(why) = &error
                    && client::is_not_found(why)
                {
                    tell(None);
                }
            }
        }
    }
}

async fn run<K>(
    api: Api<K>,
    name: String,
    content: fn(K) -> Content,
    tell: impl Fn(Option<Arc<Content>>) + Send + 'static,
) where
    K: client::Object,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(object)) => listed = Some(Arc::new(content(object))),
            Ok(Event::InitDone) => tell(listed.take()),
            Ok(Event::Apply(object)) => tell(Some(Arc::new(content(object)))),
            Ok(Event::Delete(_)) => tell(None),
            Err(error) => tracing::debug!(name, %error, "cannot watch an object; will try again"),
        }
    }
}
