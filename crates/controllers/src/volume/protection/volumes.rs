//! Volumes stay as long as claims have them (kubernetes/kubernetes,
//! `pkg/controller/volume/pvprotection/pv_protection_controller.go`).

use std::sync::Arc;

use client::{Controller, Informer, Key, Next, storage};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;

use super::{Need, need, write};
use crate::context::Context;
use crate::error::Error;

const FINALIZER: &str = "kubernetes.io/pv-protection";

struct State {
    ctx: Context,
    volumes: Informer<PersistentVolume>,
}

pub(crate) fn start(ctx: &Context) {
    let volumes = ctx.informers.of::<PersistentVolume>();
    let controller = Controller::new("pv-protection").watches_changes(&volumes, |change, queue| {
        let volume = change.object();
        if need(&volume.metadata, FINALIZER) != Need::Nothing {
            queue.add(Key::of(&**volume));
        }
    });
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), volumes }), look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(volume) = state.volumes.get(&key) else { return Ok(Next::Done) };
    let on = match need(&volume.metadata, FINALIZER) {
        Need::Nothing => return Ok(Next::Done),
        Need::Check if storage::volume_phase(&volume) == "Bound" => return Ok(Next::Done),
        need => need == Need::Add,
    };
    write(&Api::all(state.ctx.client()), &*volume, FINALIZER, on).await?;
    Ok(Next::Done)
}
