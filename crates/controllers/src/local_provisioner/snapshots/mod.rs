//! Snapshots of the built-in storage's volumes (kubernetes-csi/external-snapshotter, `pkg/common-controller`).
//!
//! ```text
//! VolumeSnapshot ─► content ─► its node takes the snapshot, says so in the content's status ─► VolumeSnapshot's status
//!       └ deleted ─► content deleted ─► its node deletes the snapshot, lets the content go ─► VolumeSnapshot goes
//! ```
//!
//! What belongs to other drivers is left to those who look after them, and they may run in the same cluster: whatever
//! is done here is what upstream's controller does, under the same names.

mod content;
mod snapshot;

use std::sync::Arc;

use client::snapshots::{
    BEING_DELETED, CLAIM_FINALIZER, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent,
};
use client::storage::{claim_phase, volume_of};
use client::{Change, Controller, Index, Informer, Key, Next, Recorder};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use types::local_volumes::{NODE_LABEL, of_snapshot_handle};

use super::origin;
use super::release::node_of;
use crate::context::Context;
use crate::error::{Attempt, Error};
use content::ContentStep;
use snapshot::{Seen, Step};

struct State {
    ctx: Context,
    recorder: Recorder,
    /// Claims, volumes, snapshots and their contents.
    all: Arc<super::State>,
    classes: Informer<VolumeSnapshotClass>,
    /// Snapshots by the claim that they are of.
    of_claim: Index<VolumeSnapshot>,
}

pub(super) fn start(ctx: &Context, all: &Arc<super::State>) {
    let state = Arc::new(State {
        ctx: ctx.clone(),
        recorder: ctx.recorder("snapshot-controller"),
        of_claim: all
            .snapshots
            .index("source-claim", |s: &VolumeSnapshot| claim_of(s).map(|k| k.to_string())),
        all: all.clone(),
        classes: ctx.informers.of(),
    });
    let snapshots = Controller::new("volume-snapshots")
        .watches(&all.snapshots, |snapshot: &VolumeSnapshot| [Key::of(snapshot)])
        .watches(&all.contents, |content: &VolumeSnapshotContent| [snapshot_of(content)])
        .watches_changes(&all.claims, {
            let of_claim = state.of_claim.clone();
            move |change, queue| {
                let claim = change.object();
                of_claim.keys(Key::of(&**claim).as_str()).into_iter().for_each(|key| queue.add(key));
                // It may have waited for this one.
                if let origin::Wish::Snapshot(name) = origin::wish(claim) {
                    queue.add(Key::new(claim.metadata.namespace.as_deref().unwrap_or_default(), &name));
                }
            }
        })
        .watches_changes(&all.volumes, {
            let of_claim = state.of_claim.clone();
            move |change, queue| {
                let Some(claim) = super::provision::claim_of(change.object()) else { return };
                of_claim.keys(claim.as_str()).into_iter().for_each(|key| queue.add(key));
            }
        })
        .watches_changes(&state.classes, {
            let snapshots = all.snapshots.clone();
            move |_, queue| {
                snapshots.store().for_each(|key, snapshot| {
                    if !snapshot.is_ready() {
                        queue.add(key.clone());
                    }
                });
            }
        });
    ctx.spawn(snapshots, state.clone(), look);
    let contents = Controller::new("volume-snapshot-contents")
        .watches(&all.contents, |content: &VolumeSnapshotContent| [Key::of(content)])
        .watches_changes(&all.snapshots, {
            let contents = all.contents.clone();
            move |change, queue| {
                // Contents that outlive their snapshot.
                let Change::Deleted(snapshot) = change else { return };
                contents.store().for_each(|key, content| {
                    if content.is_of(snapshot) {
                        queue.add(key.clone());
                    }
                });
            }
        })
        .watches_changes(&all.nodes, {
            let contents = all.contents.clone();
            move |change, queue| {
                let Change::Deleted(node) = change else { return };
                contents.store().for_each(|key, content| {
                    if content::label(content) == node.metadata.name.as_deref() {
                        queue.add(key.clone());
                    }
                });
            }
        })
        .after(&all.volumes);
    ctx.spawn(contents, state.clone(), look_at_content);
    let sources = Controller::new("volume-snapshot-sources")
        .watches(&all.claims, |claim: &PersistentVolumeClaim| is_held(claim).then(|| Key::of(claim)))
        .watches(&all.snapshots, claim_of)
        .after(&all.contents)
        .after(&all.volumes);
    ctx.spawn(sources, state, look_at_source);
}

/// The snapshot that a content is for.
pub(super) fn snapshot_of(content: &VolumeSnapshotContent) -> Key {
    let of = &content.spec.volume_snapshot_ref;
    Key::new(of.namespace.as_deref().unwrap_or_default(), of.name.as_deref().unwrap_or_default())
}

fn claim_of(snapshot: &VolumeSnapshot) -> Option<Key> {
    let namespace = snapshot.metadata.namespace.as_deref().unwrap_or_default();
    snapshot.source_claim().map(|claim| Key::new(namespace, claim))
}

/// Whether a claim is held for snapshots.
fn is_held(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.finalizers.iter().flatten().any(|f| f == CLAIM_FINALIZER)
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(snapshot) = state.all.snapshots.get(&key) else { return Ok(Next::Done) };
    let seen = state.see(&snapshot);
    let step = snapshot::plan(&snapshot, &seen);
    state.carry_out(&snapshot, &seen, step).await?;
    Ok(Next::Done)
}

impl State {
    fn see(&self, snapshot: &VolumeSnapshot) -> Seen {
        let key = Key::of(snapshot);
        let claim = claim_of(snapshot).and_then(|claim| self.all.claims.get(&claim));
        let volume = claim.as_ref().and_then(|claim| self.all.volumes.store().by_name("", volume_of(claim)));
        let class = snapshot.spec.volume_snapshot_class_name.as_deref();
        let restores = self.all.copies.get(&origin::of_snapshot(&key));
        Seen {
            content: self.all.contents.store().by_name("", &snapshot::content_name(snapshot)),
            class: class.and_then(|name| self.classes.store().by_name("", name)),
            classes: if class.is_none() { self.classes.store().list() } else { Vec::new() },
            restoring: restores.iter().any(|claim| claim_phase(claim) == "Pending"),
            claim,
            volume,
        }
    }

    async fn carry_out(&self, snapshot: &VolumeSnapshot, seen: &Seen, step: Step) -> Result<(), Error> {
        let key = Key::of(snapshot);
        match step {
            Step::Nothing => {}
            Step::TakeClass(class) => {
                let change = json!({"spec": {"volumeSnapshotClassName": class}});
                self.change(snapshot, change, "give a class to").await?;
            }
            Step::Finalizers(finalizers) => {
                let change = json!({"metadata": {"finalizers": finalizers}});
                self.change(snapshot, change, "protect or let go").await?;
            }
            Step::Fail { reason, message, unready } => {
                let now = seconds(self.ctx.now());
                let mut status = json!({"error": {"message": message, "time": now}});
                if unready {
                    status["readyToUse"] = false.into();
                }
                self.say(snapshot, status).await?;
                self.recorder.warning(snapshot, reason, message);
            }
            Step::Refuse { reason, message } => self.recorder.warning(snapshot, reason, message),
            Step::HoldClaim => {
                if let Some(claim) = &seen.claim {
                    let finalizers = claim.metadata.finalizers.iter().flatten().map(String::as_str);
                    let all: Vec<_> = finalizers.chain([CLAIM_FINALIZER]).collect();
                    self.finalize_claim(claim, json!(all)).await?;
                    // The claim's change brings the next look.
                }
            }
            Step::Make(content) => self.make(snapshot, &content).await?,
            Step::Bind(change) => self.change_content(snapshot::content_name(snapshot), &change).await?,
            Step::Say { status, created, ready } => {
                self.say(snapshot, status).await?;
                if created {
                    let text = format!("Snapshot {key} was successfully created by the CSI driver.");
                    self.recorder.normal(snapshot, "SnapshotCreated", text);
                }
                if ready {
                    let text = format!("Snapshot {key} is ready to use.");
                    self.recorder.normal(snapshot, "SnapshotReady", text);
                }
            }
            Step::MarkContent => {
                let change = json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}});
                self.change_content(snapshot::content_name(snapshot), &change).await?;
            }
            Step::DeleteContent => {
                let Some(content) = &seen.content else { return Ok(()) };
                let name = content.metadata.name.as_deref().unwrap_or_default();
                let only = Preconditions { uid: content.metadata.uid.clone(), resource_version: None };
                let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
                let api: Api<VolumeSnapshotContent> = Api::all(self.ctx.client());
                match api.delete(name, &params).await {
                    Err(error) if client::is_not_found(&error) => {}
                    Err(error) => {
                        let text = "Failed to delete snapshot content API object";
                        self.recorder.warning(snapshot, "SnapshotContentObjectDeleteError", text);
                        return Err(error).attempt(|| format!("delete content {name} of snapshot {key}"));
                    }
                    Ok(_) => {}
                }
            }
        }
        Ok(())
    }

    async fn make(&self, snapshot: &VolumeSnapshot, content: &VolumeSnapshotContent) -> Result<(), Error> {
        let key = Key::of(snapshot);
        let api: Api<VolumeSnapshotContent> = Api::all(self.ctx.client());
        match api.create(&PostParams::default(), content).await {
            Err(error) if client::is_already_exists(&error) => return Ok(()),
            Err(error) => {
                let text = format!(
                    "Error creating volume snapshot content object for snapshot {key}: {}.",
                    client::message(&error)
                );
                self.recorder.warning(snapshot, "CreateSnapshotContentFailed", text);
                return Err(error).attempt(|| format!("make a content for snapshot {key}"));
            }
            Ok(_) => {}
        }
        let text = format!("Waiting for a snapshot {key} to be created by the CSI driver.");
        self.recorder.normal(snapshot, "CreatingSnapshot", text);
        Ok(())
    }

    async fn change(&self, snapshot: &VolumeSnapshot, mut change: Value, what: &str) -> Result<(), Error> {
        let key = Key::of(snapshot);
        change["metadata"]["resourceVersion"] = json!(snapshot.metadata.resource_version);
        let api = self.ctx.api::<VolumeSnapshot>(key.namespace());
        match api.patch(key.name(), &PatchParams::default(), &Patch::Merge(change)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            patched => patched.attempt(|| format!("{what} snapshot {key}")).map(drop),
        }
    }

    async fn say(&self, snapshot: &VolumeSnapshot, status: Value) -> Result<(), Error> {
        let key = Key::of(snapshot);
        let patch =
            json!({"metadata": {"resourceVersion": snapshot.metadata.resource_version}, "status": status});
        let api = self.ctx.api::<VolumeSnapshot>(key.namespace());
        match api.patch_status(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            patched => patched.attempt(|| format!("say how far snapshot {key} is")).map(drop),
        }
    }

    async fn change_content(&self, name: String, change: &Value) -> Result<(), Error> {
        let api: Api<VolumeSnapshotContent> = Api::all(self.ctx.client());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            patched => patched.attempt(|| format!("change content {name}")).map(drop),
        }
    }

    async fn finalize_claim(&self, claim: &PersistentVolumeClaim, finalizers: Value) -> Result<(), Error> {
        let key = Key::of(claim);
        let patch = json!({"metadata": {"resourceVersion": claim.metadata.resource_version,
            "uid": claim.metadata.uid, "finalizers": finalizers}});
        let api = self.ctx.api::<PersistentVolumeClaim>(key.namespace());
        match api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            patched => patched.attempt(|| format!("protect or let go claim {key}")).map(drop),
        }
    }
}

/// The node part of times that objects carry: whole seconds.
fn seconds(now: base::Timestamp) -> String {
    base::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

async fn look_at_content(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(content) = state.all.contents.get(&key) else { return Ok(Next::Done) };
    let nodes = state.all.nodes.store();
    let source = &content.spec.source;
    let node = match (&source.snapshot_handle, &source.volume_handle) {
        (Some(handle), _) => of_snapshot_handle(handle).map(|(node, _)| node.to_owned()),
        (None, Some(handle)) => state.node_of_volume(handle),
        (None, None) => None,
    };
    let snapshot = state.all.snapshots.get(&snapshot_of(&content));
    match content::plan(&content, node.as_deref(), snapshot.as_deref(), |n| nodes.by_name("", n).is_some()) {
        ContentStep::Nothing => {}
        ContentStep::Complain(text) => state.recorder.warning(&*content, "ContentValidationError", text),
        ContentStep::Label(node) => {
            let change = json!({"metadata": {"labels": {NODE_LABEL: node}}});
            state.change_content(key.name().to_owned(), &change).await?;
        }
        ContentStep::Mark => {
            let change = json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}});
            state.change_content(key.name().to_owned(), &change).await?;
        }
        ContentStep::Finalizers(all) => {
            let version = &content.metadata.resource_version;
            let change = json!({"metadata": {"resourceVersion": version, "finalizers": all}});
            state.change_content(key.name().to_owned(), &change).await?;
        }
    }
    Ok(Next::Done)
}

impl State {
    fn node_of_volume(&self, handle: &str) -> Option<String> {
        // Volumes are called like their handles, unless somebody made them by hand.
        let volumes = self.all.volumes.store();
        let is_it = |volume: &k8s_openapi::api::core::v1::PersistentVolume| {
            let csi = volume.spec.as_ref().and_then(|s| s.csi.as_ref());
            csi.is_some_and(|csi| csi.volume_handle == handle)
        };
        let named = volumes.by_name("", handle).filter(|volume| is_it(volume));
        let volume = named.or_else(|| volumes.list().into_iter().find(|volume| is_it(volume)))?;
        node_of(&volume).map(str::to_owned)
    }
}

async fn look_at_source(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(claim) = state.all.claims.get(&key).filter(|claim| is_held(claim)) else {
        return Ok(Next::Done);
    };
    let volume = state.all.volumes.store().by_name("", volume_of(&claim));
    let contents = state.all.contents.store();
    let is_there = |snapshot: &VolumeSnapshot| {
        contents.by_name("", &snapshot::content_name(snapshot)).is_some_and(|content| content.is_of(snapshot))
    };
    let snapshots = state.of_claim.get(key.as_str());
    let in_work = snapshots.iter().any(|snapshot| snapshot::is_in_work(snapshot, is_there(snapshot)));
    if in_work || !snapshot::is_own_claim(&claim, volume.as_deref()) {
        return Ok(Next::Done);
    }
    let rest: Vec<_> = claim.metadata.finalizers.iter().flatten().filter(|f| *f != CLAIM_FINALIZER).collect();
    state.finalize_claim(&claim, json!(rest)).await?;
    Ok(Next::Done)
}

#[cfg(test)]
mod tests;
