use std::collections::HashMap;
use std::sync::Arc;

use client::{Discovered, Informer, Key, PodView, controller_of, discover};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::error::{Attempt, Error};

/// Asks those who manage pods how many they are to keep.
pub(super) struct Scales {
    client: Client,
    sets: Informer<ReplicaSet>,
    /// The kinds of managers, as far as they were needed.
    kinds: Mutex<HashMap<(String, String), Discovered>>,
}

/// How many pods there should be.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) expected: i32,
    /// Whether some have no manager, and nobody can say.
    pub(super) unmanaged: bool,
}

impl Scales {
    pub(super) fn new(client: Client, sets: Informer<ReplicaSet>) -> Self {
        Self { client, sets, kinds: Mutex::default() }
    }

    /// The sum over all managers of these pods.
    pub(super) async fn expected(&self, pods: &[Arc<PodView>]) -> Result<Expected, Error> {
        let mut outcome = Expected::default();
        // By manager, whose size counts once however many of its pods there are.
        let mut seen: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                outcome.unmanaged = true;
                continue;
            };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let owner = self.manager(namespace, owner);
            if seen.contains_key(&owner.uid) {
                continue;
            }
            let size = self
                .size(namespace, &owner)
                .await?
                .ok_or_else(|| Error::NoManager { pod: pod.metadata.name.clone().unwrap_or_default() })?;
            seen.insert(owner.uid, size);
        }
        outcome.expected = seen.values().fold(0, |sum: i32, size| sum.saturating_add(*size));
        Ok(outcome)
    }

    /// Who decides on the size: for a replica set of a deployment, the deployment.
    fn manager(&self, namespace: &str, owner: &OwnerReference) -> OwnerReference {
        let set = self.set(namespace, owner);
        let above = set.as_ref().and_then(|set| controller_of(&set.metadata));
        above.unwrap_or(owner).clone()
    }

    fn set(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<ReplicaSet>> {
        let is_set = owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/");
        let set = is_set.then(|| self.sets.get(&Key::new(namespace, &owner.name)))??;
        (set.metadata.uid.as_ref() == Some(&owner.uid)).then_some(set)
    }

    /// How many pods a manager is to keep; `None` if it is not there.
    async fn size(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<i32>, Error> {
        if let Some(set) = self.set(namespace, owner) {
            return Ok(Some(set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)));
        }
        let Some(kind) = self.kind(owner).await? else { return Ok(None) };
        if !kind.has_scale {
            return Err(Error::NoScale { kind: kind.resource.plural });
        }
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource);
        match api.get_scale(&owner.name).await {
            Ok(scale) => Ok(Some(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))),
            Err(error) if client::is_not_found(&error) => Ok(None),
            Err(error) => {
                Err(error).attempt(|| format!("ask for the scale of {} {}", owner.kind, owner.name))
            }
        }
    }

    async fn kind(&self, owner: &OwnerReference) -> Result<Option<Discovered>, Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let key = (group.to_owned(), owner.kind.clone());
        if let Some(known) = self.kinds.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let (found, _) = discover(&self.client).await.attempt(|| "ask which kinds there are".into())?;
        let found = found.into_iter().find(|d| d.resource.group == key.0 && d.resource.kind == key.1);
        if let Some(found) = &found {
            self.kinds.lock().insert(key, found.clone());
        }
        Ok(found)
    }
}
