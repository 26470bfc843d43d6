//! What is to be done about a claim.

use std::sync::Arc;

use client::storage::{self, Search, annotation};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::Volume;
use super::say::{self, Saying};
use crate::error::Error;

/// What is known besides the claim.
pub(super) trait World {
    /// The volume of this name.
    fn volume_named(&self, name: &str) -> Option<Volume>;
    /// Volumes that are the claim's, or nobody's and of its class.
    fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<Volume>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    fn default_class(&self) -> Option<String>;
    /// The pods that use the claim and have no node yet.
    fn waiting_pods(&self, claim: &PersistentVolumeClaim) -> Vec<String>;
}

#[derive(Debug, PartialEq)]
pub(super) enum ClaimStep {
    /// Bind, or finish binding, or see that all is as it should be.
    Bind(Volume),
    /// It has no class and gets this one.
    Take(String),
    /// Somebody else makes a volume.
    Provision(String),
    Say(Saying),
    Wait(Option<Saying>),
    Lose(Saying),
    /// Our own mark says that this volume is the claim's, and it is another one's.
    Misbound {
        volume: String,
        by: String,
    },
}

pub(super) fn step(claim: &PersistentVolumeClaim, world: &impl World) -> Result<ClaimStep, Error> {
    if annotation(&claim.metadata, storage::BIND_COMPLETED).is_some() {
        return Ok(bound(claim, world));
    }
    match storage::volume_of(claim) {
        "" => unbound(claim, world),
        name => Ok(wishes_for(claim, name, world)),
    }
}

/// It takes any volume that suits (`syncUnboundClaim`).
fn unbound(claim: &PersistentVolumeClaim, world: &impl World) -> Result<ClaimStep, Error> {
    let name = storage::class_of_claim(claim);
    let class = Some(name).filter(|name| !name.is_empty()).and_then(|name| world.class(name));
    let delayed = class.as_deref().is_some_and(storage::waits_for_consumer);
    let search = Search::new(claim)
        .map_err(|source| Error::Selector { object: format!("claim {}", client::Key::of(claim)), source })?;
    if let Some(volume) = search.best(world.candidates(claim), delayed) {
        return Ok(ClaimStep::Bind(volume));
    }
    if !storage::has_class(claim)
        && let Some(class) = world.default_class()
    {
        return Ok(ClaimStep::Take(class));
    }
    if delayed && annotation(&claim.metadata, storage::SELECTED_NODE).is_none() {
        return Ok(ClaimStep::Wait(Some(say::delayed(&world.waiting_pods(claim)))));
    }
    if name.is_empty() {
        return Ok(ClaimStep::Wait(Some(say::NOTHING_AVAILABLE)));
    }
    Ok(match class {
        None => ClaimStep::Say(say::no_class(name)),
        // Those were part of the cluster once.
        Some(class) if class.provisioner.starts_with("kubernetes.io/") => {
            ClaimStep::Say(say::no_plugin(&class.provisioner))
        }
        Some(class) => ClaimStep::Provision(class.provisioner.clone()),
    })
}

/// It names its volume.
fn wishes_for(claim: &PersistentVolumeClaim, name: &str, world: &impl World) -> ClaimStep {
    let Some(volume) = world.volume_named(name) else { return ClaimStep::Wait(None) };
    match storage::claim_of(&volume) {
        None => match storage::misfit(claim, &volume) {
            Some(why) => ClaimStep::Wait(Some(say::misfit(name, &why))),
            None => ClaimStep::Bind(volume),
        },
        Some(_) if storage::is_bound_to(&volume, claim) => ClaimStep::Bind(volume),
        Some(_) if annotation(&claim.metadata, storage::BOUND_BY_CONTROLLER).is_none() => {
            ClaimStep::Wait(Some(say::taken(name)))
        }
        Some(other) => {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            let by = format!("{}/{}", part(&other.namespace), part(&other.name));
            ClaimStep::Misbound { volume: name.into(), by }
        }
    }
}

/// It had its volume once (`syncBoundClaim`).
fn bound(claim: &PersistentVolumeClaim, world: &impl World) -> ClaimStep {
    let name = storage::volume_of(claim);
    if name.is_empty() {
        return ClaimStep::Lose(say::LOST_REFERENCE);
    }
    let Some(volume) = world.volume_named(name) else { return ClaimStep::Lose(say::LOST_VOLUME) };
    match storage::claim_of(&volume) {
        None => ClaimStep::Bind(volume),
        Some(reference) if reference.uid == claim.metadata.uid => ClaimStep::Bind(volume),
        Some(_) => ClaimStep::Lose(say::MISBOUND),
    }
}

#[cfg(test)]
mod tests;
