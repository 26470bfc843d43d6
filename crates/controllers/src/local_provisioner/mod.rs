//! The built-in storage: volumes for claims whose data is on the node of their first pod. It behaves as provisioners
//! outside the cluster's own controllers do (kubernetes-sigs/sig-storage-lib-external-provisioner,
//! `controller/controller.go`; kubernetes-csi/external-resizer, `pkg/controller/controller.go`).
//!
//! Only objects are made here. The node's agent makes the data when the first pod comes, lets it grow with its volume,
//! and lets a deleted volume's object go when the data has gone.

mod attributes;
mod growth;
mod origin;
mod parameters;
mod provision;
mod release;
mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use client::snapshots::{VolumeSnapshot, VolumeSnapshotContent};
use client::{Change, Controller, Index, Informer, Key, Next, Recorder};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use types::local_volumes::DRIVER;

use crate::context::Context;
use crate::error::{Attempt, Error};

use attributes::Answer;
use growth::Growth;
use origin::Sources;
use provision::{SELECTED_NODE, Step, World};

/// What was refused is tried again after so long, for what it depends on may be any object.
const RETRY: Duration = Duration::from_secs(30);

struct State {
    ctx: Context,
    recorder: Recorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    snapshots: Informer<VolumeSnapshot>,
    contents: Informer<VolumeSnapshotContent>,
    /// Claims by what they are to begin as a copy of.
    copies: Index<PersistentVolumeClaim>,
}

pub(crate) fn start(ctx: &Context) {
    let claims: Informer<PersistentVolumeClaim> = ctx.informers.of();
    let state = Arc::new(State {
        ctx: ctx.clone(),
        recorder: ctx.recorder(DRIVER),
        copies: claims.index("data-source", |claim: &PersistentVolumeClaim| origin::waits_for(claim)),
        claims,
        volumes: ctx.informers.of(),
        classes: ctx.informers.of(),
        nodes: ctx.informers.of(),
        snapshots: ctx.informers.of(),
        contents: ctx.informers.of(),
    });
    let claims = Controller::new("local-provisioner")
        .watches(&state.claims, |claim: &PersistentVolumeClaim| [Key::of(claim)])
        .watches(&state.volumes, |volume: &PersistentVolume| provision::claim_of(volume))
        .watches_changes(&state.claims, {
            let copies = state.copies.clone();
            move |change, queue| {
                let source = origin::of_claim(&Key::of(&**change.object()));
                copies.keys(&source).into_iter().for_each(|key| queue.add(key));
            }
        })
        .watches_changes(&state.volumes, {
            let copies = state.copies.clone();
            move |change, queue| {
                let Some(claim) = provision::claim_of(change.object()) else { return };
                copies.keys(&origin::of_claim(&claim)).into_iter().for_each(|key| queue.add(key));
            }
        })
        .after(&state.classes)
        .after(&state.nodes);
    // Claims do not wait for kinds that somebody may have taken away.
    let wake = {
        let (queue, copies) = (claims.queue(), state.copies.clone());
        move |snapshot: &Key| {
            copies.keys(&origin::of_snapshot(snapshot)).into_iter().for_each(|key| queue.add(key))
        }
    };
    state.snapshots.on_change({
        let wake = wake.clone();
        move |change| wake(&Key::of(&**change.object()))
    });
    state.contents.on_change(move |change| wake(&snapshots::snapshot_of(change.object())));
    ctx.spawn(claims, state.clone(), look);
    snapshots::start(ctx, &state);
    let volumes = Controller::new("local-volume-release")
        .watches(&state.volumes, |volume: &PersistentVolume| [Key::of(volume)])
        .watches_changes(&state.nodes, {
            let volumes = state.volumes.clone();
            move |change, queue| {
                let Change::Deleted(node) = change else { return };
                let all = volumes.store().list();
                let kept = all.iter().filter(|v| release::node_of(v) == node.metadata.name.as_deref());
                kept.for_each(|volume| queue.add(Key::of(&**volume)));
            }
        });
    ctx.spawn(volumes, state, release::look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(claim) = state.claims.get(&key) else { return Ok(Next::Done) };
    let volumes = state.volumes.store();
    if let Some(name) = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|n| !n.is_empty()) {
        let Some(volume) = volumes.by_name("", name) else { return Ok(Next::Done) };
        if let Some(answer) = attributes::plan(&claim, &volume, state.ctx.now()) {
            return state.answer(&claim, answer).await;
        }
        return state.grow(&claim, &volume).await;
    }
    if volumes.by_name("", &provision::name_for(&claim)).is_some() {
        return Ok(Next::Done);
    }
    let sources = Sources {
        claims: state.claims.store(),
        volumes,
        snapshots: state.snapshots.store(),
        contents: state.contents.store(),
    };
    let world = World { classes: state.classes.store(), nodes: state.nodes.store(), sources };
    match provision::plan(&claim, &world) {
        Step::Nothing => Ok(Next::Done),
        Step::Make(volume) => state.make(&claim, &volume).await,
        Step::LeaveToPopulator => {
            let text = "Assuming an external populator will provision the volume";
            state.recorder.normal(&*claim, "Provisioning", text);
            Ok(Next::Done)
        }
        Step::Refuse { why, another_node } => {
            state.recorder.warning(&*claim, "ProvisioningFailed", why);
            if another_node {
                let patch = json!({"metadata": {
                    "resourceVersion": claim.metadata.resource_version, "annotations": {SELECTED_NODE: null},
                }});
                let api = state.ctx.api::<PersistentVolumeClaim>(key.namespace());
                let patched = api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
                patched.attempt(|| format!("ask for another node for claim {key}"))?;
                return Ok(Next::Done);
            }
            Ok(Next::After(RETRY))
        }
    }
}

impl State {
    async fn make(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<Next, Error> {
        let key = Key::of(claim);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let text = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.recorder.normal(claim, "Provisioning", text);
        let api: Api<PersistentVolume> = Api::all(self.ctx.client());
        match api.create(&PostParams::default(), volume).await {
            Err(error) if client::is_already_exists(&error) => return Ok(Next::Done),
            Err(error) => {
                let text = format!("Error saving provisioned volume: {}", client::message(&error));
                self.recorder.warning(claim, "ProvisioningFailed", text);
                Err(error).attempt(|| format!("make volume {name} for claim {key}"))?
            }
            Ok(_) => {}
        }
        let text = format!("Successfully provisioned volume {name}");
        self.recorder.normal(claim, "ProvisioningSucceeded", text);
        Ok(Next::Done)
    }

    async fn answer(&self, claim: &PersistentVolumeClaim, answer: Answer) -> Result<Next, Error> {
        self.say(claim, answer.status).await?;
        match answer.refusal {
            Some(why) => self.recorder.warning(claim, "VolumeModifyFailed", why),
            None => self.recorder.normal(claim, "VolumeModifyCancelled", "Cancelled modify."),
        }
        Ok(Next::Done)
    }

    /// Takes a claim that wants more one step further. Each step changes an object, which brings the next look.
    async fn grow(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<Next, Error> {
        let (key, now) = (Key::of(claim), self.ctx.now());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        match growth::plan(claim, volume, now) {
            Growth::Nothing => {}
            Growth::Begin(status) => {
                self.say(claim, status).await?;
                let text = format!("External resizer is resizing volume {name}");
                self.recorder.normal(claim, "Resizing", text);
            }
            Growth::Enlarge(size) => {
                let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version},
                    "spec": {"capacity": {"storage": size}}});
                let api: Api<PersistentVolume> = Api::all(self.ctx.client());
                let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
                patched.attempt(|| format!("give volume {name} more room for claim {key}"))?;
            }
            Growth::LeaveToNode(status) => {
                self.say(claim, status).await?;
                let text = "Require file system resize of volume on node";
                self.recorder.normal(claim, "FileSystemResizeRequired", text);
            }
            Growth::End(status) => {
                self.say(claim, status).await?;
                self.recorder.normal(claim, "VolumeResizeSuccessful", "Resize volume succeeded");
            }
        }
        Ok(Next::Done)
    }

    async fn say(&self, claim: &PersistentVolumeClaim, status: Value) -> Result<(), Error> {
        let key = Key::of(claim);
        let patch =
            json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status});
        let api = self.ctx.api::<PersistentVolumeClaim>(key.namespace());
        let patched = api.patch_status(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.attempt(|| format!("say what has become of what claim {key} asks for")).map(drop)
    }
}

#[cfg(test)]
mod tests;
