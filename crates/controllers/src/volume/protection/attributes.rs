//! VolumeAttributesClasses stay as long as claims or volumes are of them (kubernetes/kubernetes,
//! `pkg/controller/volume/vacprotection/vac_protection_controller.go`).

use std::sync::Arc;

use client::{Controller, Index, Informer, Key, Next};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Api;
use kube::api::ListParams;

use super::{Need, need, write};
use crate::context::Context;
use crate::error::{Attempt, Error};

const FINALIZER: &str = "kubernetes.io/vac-protection";

struct State {
    ctx: Context,
    classes: Informer<VolumeAttributesClass>,
    claims: Index<PersistentVolumeClaim>,
    volumes: Index<PersistentVolume>,
}

fn of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let has = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let target = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = target.and_then(|modify| modify.target_volume_attributes_class_name.clone());
    let mut all: Vec<String> = [wanted, has, target].into_iter().flatten().collect();
    all.sort();
    all.dedup();
    all
}

fn of_volume(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.volume_attributes_class_name.clone()
}

pub(crate) fn start(ctx: &Context) {
    let classes = ctx.informers.of::<VolumeAttributesClass>();
    let (claims, volumes) =
        (ctx.informers.of::<PersistentVolumeClaim>(), ctx.informers.of::<PersistentVolume>());
    let controller = Controller::new("volumeattributesclass-protection")
        .watches(&classes, |class: &VolumeAttributesClass| [Key::of(class)])
        .watches(&claims, |claim: &PersistentVolumeClaim| keys(of_claim(claim)))
        .watches(&volumes, |volume: &PersistentVolume| keys(of_volume(volume)));
    let state = State {
        ctx: ctx.clone(),
        classes,
        claims: claims.index("attributes-class", of_claim),
        volumes: volumes.index("attributes-class", of_volume),
    };
    ctx.spawn(controller, Arc::new(state), look);
}

fn keys(names: impl IntoIterator<Item = String>) -> Vec<Key> {
    names.into_iter().map(|name| Key::new("", &name)).collect()
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(class) = state.classes.get(&key) else { return Ok(Next::Done) };
    let on = match need(&class.metadata, FINALIZER) {
        Need::Nothing => return Ok(Next::Done),
        Need::Check if state.is_used(key.name()).await? => return Ok(Next::Done),
        need => need == Need::Add,
    };
    write(&Api::all(state.ctx.client()), &*class, FINALIZER, on).await?;
    Ok(Next::Done)
}

impl State {
    /// What the caches have not heard of, the server has.
    async fn is_used(&self, class: &str) -> Result<bool, Error> {
        if !self.claims.keys(class).is_empty() || !self.volumes.keys(class).is_empty() {
            return Ok(true);
        }
        let why = || format!("look for what is of VolumeAttributesClass {class}");
        let volumes: Api<PersistentVolume> = Api::all(self.ctx.client());
        let volumes = volumes.list(&ListParams::default()).await.attempt(why)?;
        if volumes.items.iter().any(|volume| of_volume(volume).as_deref() == Some(class)) {
            return Ok(true);
        }
        let claims: Api<PersistentVolumeClaim> = Api::all(self.ctx.client());
        let claims = claims.list(&ListParams::default()).await.attempt(why)?;
        Ok(claims.items.iter().any(|claim| of_claim(claim).iter().any(|name| name == class)))
    }
}
