//! PersistentVolumes of this node's pods, and the data of the built-in storage that is on this node.

mod claim;
mod copies;
mod data;
mod folders;
mod follow;
mod growth;
mod record;
mod snapshots;
mod source;
mod store;
mod tree;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use base::Clock;
use client::{Key, Queue, Recorder, reference};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Client;
use parking_lot::Mutex;

use crate::error::{Fault, VolumeError};
use crate::ownership::Ownership;
use crate::volumes::{Place, blocking};
use record::Record;
use store::{Holder, Store};

pub use store::release_all;

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Persistent(Arc<Inner>);

struct Inner {
    client: Client,
    node: String,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    store: Store,
    /// Volumes whose turn it is, once they are followed.
    queue: OnceLock<Queue>,
    /// What is set up, by pod UID and volume; and the pod, to tell of.
    ready: Mutex<HashMap<(String, String), (Record, ObjectReference)>>,
}

/// What [`Persistent`] needs.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) node: String,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) data: std::path::PathBuf,
    pub(crate) pods: std::path::PathBuf,
}

impl Persistent {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { client, node, recorder, clock, data, pods } = parts;
        let store = Store::new(data, pods);
        Self(Arc::new(Inner {
            client,
            node,
            recorder,
            clock,
            store,
            queue: OnceLock::new(),
            ready: Mutex::default(),
        }))
    }

    /// The volume's place, if it is a PersistentVolume.
    pub(crate) async fn set_up(
        &self,
        pod: &Pod,
        volume: &core::Volume,
    ) -> Result<Option<Place>, VolumeError> {
        let Some((name, read_only)) = claim::of_volume(pod, volume) else { return Ok(None) };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let id = (uid.clone(), volume.name.clone());
        let known = self.0.ready.lock().get(&id).map(|(record, _)| record.clone());
        let record = match known {
            Some(record) => record,
            None => {
                let record = self.prepare(pod, volume, &name, &uid).await?;
                self.0.ready.lock().insert(id, (record.clone(), reference(pod)));
                // It may have been given more room while no pod had it, or no agent was there.
                if let Some(queue) = self.0.queue.get() {
                    queue.add(Key::new("", &record.volume));
                }
                record
            }
        };
        Ok(Some(Place { path: record.path, read_only: read_only || record.read_only }))
    }

    async fn prepare(
        &self,
        pod: &Pod,
        volume: &core::Volume,
        name: &str,
        uid: &str,
    ) -> Result<Record, VolumeError> {
        let (this, id) = (self.clone(), (uid.to_owned(), volume.name.clone()));
        let found = blocking(move || this.0.store.find(&id.0, &id.1)).await;
        let unread = |why| VolumeError::SetUp { volume: volume.name.clone(), why };
        if let Some(record) = found.map_err(unread)? {
            return Ok(record);
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pv = claim::resolve(&self.0.client, pod, volume, name).await.map_err(|why| {
            let claim = format!("{namespace}/{name}");
            VolumeError::Claim { volume: volume.name.clone(), claim, why: Box::new(why) }
        })?;
        let failed = |why| VolumeError::SetUp { volume: pv.metadata.name.clone().unwrap_or_default(), why };
        let wanted = source::wanted(&pv, &self.0.node).map_err(failed)?;
        let holder = Holder {
            uid: uid.to_owned(),
            name: volume.name.clone(),
            ownership: Ownership::of(pod),
            now: u32::try_from(self.0.clock.now().as_second()).unwrap_or(0),
        };
        let this = self.clone();
        blocking(move || this.0.store.set_up(&wanted, &holder)).await.map_err(failed)
    }

    /// Forgets a pod, of whose volumes nothing is mounted any more.
    pub(crate) async fn tear_down(&self, uid: &str) -> Result<(), Fault> {
        let (this, of) = (self.clone(), uid.to_owned());
        blocking(move || this.0.store.tear_down(&of)).await?;
        self.0.ready.lock().retain(|(pod, _), _| pod != uid);
        Ok(())
    }

    /// The pods that have a volume, as far as this agent has set it up.
    fn pods_with(&self, volume: &str) -> Vec<ObjectReference> {
        let ready = self.0.ready.lock();
        ready.values().filter(|(record, _)| record.volume == volume).map(|(_, pod)| pod.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
