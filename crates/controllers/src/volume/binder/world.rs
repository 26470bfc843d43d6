//! What is known, by the caches and by what was written since.

use std::sync::Arc;

use client::storage::{self, class_of_claim};
use client::{Key, PodView};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;

use super::claims::World;
use super::{Claim, State, Volume};
use crate::common::pods::is_finished;
use crate::error::{Attempt, Error};

/// A volume is wanted by the claim that it names; one that names none, by those of its class.
pub(super) fn wanted_by(volume: &PersistentVolume) -> [String; 1] {
    [match storage::claim_of(volume) {
        Some(claim) => by_claim(&key_of(claim)),
        None => by_class(storage::class_of_volume(volume)),
    }]
}

pub(super) fn by_claim(claim: &Key) -> String {
    format!("claim:{claim}")
}

pub(super) fn by_class(class: &str) -> String {
    format!("class:{class}")
}

pub(super) fn key_of(claim: &ObjectReference) -> Key {
    let part = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    Key::new(&part(&claim.namespace), &part(&claim.name))
}

pub(super) fn volume_key(name: &str) -> Key {
    Key::new("", name)
}

impl State {
    pub(super) fn claim(&self, key: &Key) -> Option<Claim> {
        self.claims.get(key).map(|claim| self.written_claims.newest(key, claim))
    }

    pub(super) fn volume(&self, key: &Key) -> Option<Volume> {
        self.volumes.get(key).map(|volume| self.written_volumes.newest(key, volume))
    }

    /// The claim that a volume refers to, and no other one of its name. That it is gone, the server must have said: a
    /// cache may not have heard of it yet, and what is reclaimed is lost.
    pub(super) async fn claim_behind(
        &self,
        volume: &PersistentVolume,
        reference: &ObjectReference,
    ) -> Result<Option<Claim>, Error> {
        let key = key_of(reference);
        let cached = self.claim(&key);
        let is_it = |claim: &Claim| claim.metadata.uid == reference.uid;
        let known_gone = matches!(storage::volume_phase(volume), "Released" | "Failed");
        if cached.as_ref().is_some_and(is_it) || (cached.is_none() && known_gone) {
            return Ok(cached);
        }
        if reference.uid.as_deref().is_none_or(str::is_empty) {
            return Ok(None);
        }
        let api = self.ctx.api::<PersistentVolumeClaim>(key.namespace());
        let fresh = api.get_opt(key.name()).await.attempt(|| format!("look at claim {key}"))?;
        Ok(fresh.map(Arc::new).filter(is_it))
    }
}

impl World for State {
    fn volume_named(&self, name: &str) -> Option<Volume> {
        self.volume(&volume_key(name))
    }

    fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<Volume> {
        let mut found = self.wanted.get(&by_claim(&Key::of(claim)));
        found.extend(self.wanted.get(&by_class(class_of_claim(claim))));
        found.into_iter().map(|volume| self.written_volumes.newest(&Key::of(&*volume), volume)).collect()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.store().by_name("", name)
    }

    fn default_class(&self) -> Option<String> {
        let classes = self.classes.store().list();
        storage::default_class(&classes).map(|class| class.name_any())
    }

    fn waiting_pods(&self, claim: &PersistentVolumeClaim) -> Vec<String> {
        let pods = self.users.get(Key::of(claim).as_str());
        let waits = |pod: &&Arc<PodView>| pod.node_name.is_none() && !is_finished(pod);
        pods.iter().filter(waits).map(|pod| pod.name_any()).collect()
    }
}
