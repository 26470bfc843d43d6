//! Whatever can be scaled, through its scale.

use std::collections::HashMap;

use client::{Discovered, discover};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;

/// Why a scale cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("unexpected GroupVersion string: {0}")]
    Version(String),
    #[error("no matches for kind {kind:?} in group {group:?}")]
    NoKind { kind: String, group: String },
    #[error("{}", client::message(.0))]
    Api(kube::Error),
}

/// Finds what references name. Kinds are remembered until one turns out not to be there.
pub(super) struct Targets {
    client: Client,
    kinds: Mutex<HashMap<(String, String), Vec<Discovered>>>,
}

/// A scale as it was read.
pub(super) struct Target {
    api: Api<DynamicObject>,
    name: String,
    pub(super) scale: Scale,
}

impl Targets {
    pub(super) fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    pub(super) async fn find(
        &self,
        namespace: &str,
        reference: &CrossVersionObjectReference,
    ) -> Result<Target, TargetError> {
        let version = reference.api_version.as_deref().unwrap_or_default();
        let group = match version.split('/').collect::<Vec<_>>()[..] {
            [_] => "",
            [group, _] => group,
            _ => return Err(TargetError::Version(version.to_owned())),
        };
        let mut first = None;
        for kind in self.kinds(group, &reference.kind).await? {
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &kind.resource);
            match api.get_scale(&reference.name).await {
                Ok(scale) => return Ok(Target { api, name: reference.name.clone(), scale }),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        let Some(error) = first else {
            return Err(TargetError::NoKind { kind: reference.kind.clone(), group: group.to_owned() });
        };
        if client::is_not_found(&error) {
            // Perhaps it is the kind that is gone, or served in another version by now.
            self.kinds.lock().remove(&(group.to_owned(), reference.kind.clone()));
        }
        Err(TargetError::Api(error))
    }

    /// What a kind is called, of which a group may have several; those with a scale come first.
    async fn kinds(&self, group: &str, kind: &str) -> Result<Vec<Discovered>, TargetError> {
        let key = (group.to_owned(), kind.to_owned());
        if let Some(known) = self.kinds.lock().get(&key) {
            return Ok(known.clone());
        }
        let (found, _) = discover(&self.client).await.map_err(TargetError::Api)?;
        let fits = |d: &Discovered| d.namespaced && d.resource.group == group && d.resource.kind == kind;
        let mut found: Vec<_> = found.into_iter().filter(fits).collect();
        found.sort_by_key(|d| !d.has_scale);
        if !found.is_empty() {
            self.kinds.lock().insert(key, found.clone());
        }
        Ok(found)
    }
}

impl Target {
    /// How many pods are wished for.
    pub(super) fn wished(&self) -> i32 {
        self.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
    }

    /// How many there are.
    pub(super) fn there(&self) -> i32 {
        self.scale.status.as_ref().map_or(0, |status| status.replicas)
    }

    /// Which pods those are; empty if nobody says.
    pub(super) fn selector(&self) -> &str {
        self.scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default()
    }

    /// Writes the scale, unless somebody else did meanwhile.
    pub(super) async fn resize(&mut self, replicas: i32) -> Result<(), kube::Error> {
        self.scale.spec.get_or_insert_default().replicas = Some(replicas);
        self.api.replace_scale(&self.name, &PostParams::default(), &self.scale).await.map(drop)
    }
}
