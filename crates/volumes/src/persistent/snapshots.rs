//! The snapshots that are on this node: taken when their content asks for it, deleted before it goes
//! (kubernetes-csi/external-snapshotter, `pkg/sidecar-controller/snapshot_controller.go`). Nobody else writes the status
//! of those contents.

use std::time::UNIX_EPOCH;

use client::snapshots::{CONTENT_FINALIZER, VolumeSnapshotContent};
use client::{Controller, EventKind, Informer, Informers, Key, Next, Selection};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use types::local_volumes::{DRIVER, NODE_LABEL, of_snapshot_handle, snapshot_handle};

use super::Persistent;
use super::copies::Taken;
use super::source::{Origin, Wanted, wanted};
use crate::error::Fault;
use crate::volumes::blocking;

/// More volumes are not copies of each other before any of them has data.
const DEEPEST: usize = 16;

/// What is to be done about a content.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// A snapshot of the volume of this handle.
    Take {
        handle: String,
        snapshot: String,
    },
    /// It should be there.
    Find(String),
    /// The object may go, once what is named here has.
    LetGo(Option<String>),
}

fn step(content: &VolumeSnapshotContent, node: &str) -> Step {
    if content.spec.driver != DRIVER {
        return Step::Nothing;
    }
    let source = &content.spec.source;
    let snapshot = match source.snapshot_handle.as_deref() {
        Some(handle) => of_snapshot_handle(handle).filter(|(of, _)| *of == node).map(|(_, s)| s.to_owned()),
        None => content.spec.volume_snapshot_ref.uid.as_ref().map(|uid| format!("snapshot-{uid}")),
    };
    if content.metadata.deletion_timestamp.is_some() {
        let held = content.is_held() && content.may_go();
        let delete = content.spec.deletion_policy == "Delete";
        return if held { Step::LetGo(snapshot.filter(|_| delete)) } else { Step::Nothing };
    }
    let ready = content.status.as_ref().is_some_and(|s| s.ready_to_use == Some(true));
    match (snapshot, &source.volume_handle) {
        _ if ready => Step::Nothing,
        (Some(snapshot), Some(handle)) => Step::Take { handle: handle.clone(), snapshot },
        (Some(snapshot), None) => Step::Find(snapshot),
        // Its label is wrong, and whoever gave it may mend it.
        (None, _) => Step::Nothing,
    }
}

/// What a content says of a snapshot that is there.
fn ready(taken: Taken, handle: &str) -> Value {
    let since = taken.when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    json!({"snapshotHandle": handle, "creationTime": nanoseconds, "restoreSize": taken.bytes, "readyToUse": true,
        "error": null})
}

impl Persistent {
    /// Follows this node's snapshots, once `volumes` are known.
    pub(super) fn snapshots(
        &self,
        informers: &Informers,
        volumes: &Informer<PersistentVolume>,
    ) -> (Controller, Informer<VolumeSnapshotContent>) {
        let selection = Selection::labels(format!("{NODE_LABEL}={}", self.0.node));
        let contents = informers.select::<VolumeSnapshotContent>(selection);
        let controller = Controller::new("local-snapshots")
            .watches(&contents, |content: &VolumeSnapshotContent| [Key::of(content)])
            .watches_changes(volumes, {
                let contents = contents.clone();
                move |change, queue| {
                    let handle = handle_of(change.object());
                    contents.store().for_each(|key, content| {
                        if handle.is_some() && content.spec.source.volume_handle.as_deref() == handle {
                            queue.add(key.clone());
                        }
                    });
                }
            });
        (controller, contents)
    }

    pub(super) async fn look_at_content(
        &self,
        contents: &Informer<VolumeSnapshotContent>,
        volumes: &Informer<PersistentVolume>,
        key: &Key,
    ) -> Result<Next, Fault> {
        let Some(content) = contents.get(key) else { return Ok(Next::Done) };
        let (outcome, snapshot) = match step(&content, &self.0.node) {
            Step::Nothing => return Ok(Next::Done),
            Step::LetGo(snapshot) => return self.let_content_go(&content, snapshot).await,
            Step::Take { handle, snapshot } => (self.take(volumes, &handle, &snapshot).await, snapshot),
            Step::Find(snapshot) => (self.find(&snapshot).await, snapshot),
        };
        let status = match &outcome {
            Err(Fault::Ending) => return settled(outcome),
            Ok(taken) => ready(*taken, &snapshot_handle(&self.0.node, &snapshot)),
            Err(error) => {
                let of = content.spec.source.volume_handle.as_deref().unwrap_or(&snapshot);
                let text = format!(
                    "Failed to create snapshot: failed to take snapshot of the volume {of}: {:?}",
                    error.to_string()
                );
                let known = content.status.as_ref().and_then(|s| s.error.as_ref()?.message.as_deref());
                if known == Some(&text) {
                    return settled(outcome);
                }
                self.0.recorder.warning(&*content, "SnapshotCreationFailed", text.as_str());
                json!({"readyToUse": false, "error": {"message": text, "time": self.0.clock.now().to_string()}})
            }
        };
        let api: Api<VolumeSnapshotContent> = Api::all(self.0.client.clone());
        let patch = Patch::Merge(json!({"status": status}));
        match api.patch_status(key.name(), &PatchParams::default(), &patch).await {
            Err(error) if client::is_not_found(&error) => return Ok(Next::Done),
            said => drop(said?),
        }
        settled(outcome)
    }

    async fn take(
        &self,
        volumes: &Informer<PersistentVolume>,
        handle: &str,
        snapshot: &str,
    ) -> Result<Taken, Fault> {
        let all = volumes.store().list();
        let Some(pv) = all.iter().find(|pv| handle_of(pv) == Some(handle)) else {
            return Err(Fault::NoOrigin { what: "volume", name: handle.to_owned() });
        };
        self.begin(volumes, pv).await?;
        let (this, wanted) = (self.clone(), wanted(pv, &self.0.node)?);
        let (snapshot, now) = (snapshot.to_owned(), self.now());
        blocking(move || this.0.store.take(&wanted, &snapshot, now)).await
    }

    async fn find(&self, snapshot: &str) -> Result<Taken, Fault> {
        let (this, name) = (self.clone(), snapshot.to_owned());
        let missing = || Fault::NoOrigin { what: "snapshot", name: snapshot.to_owned() };
        blocking(move || this.0.store.taken(&name)).await?.ok_or_else(missing)
    }

    async fn let_content_go(
        &self,
        content: &VolumeSnapshotContent,
        snapshot: Option<String>,
    ) -> Result<Next, Fault> {
        if let Some(snapshot) = snapshot {
            let this = self.clone();
            let gone = async {
                self.copy_out(&Origin::Snapshot(snapshot.clone()), None).await?;
                blocking(move || this.0.store.delete_snapshot(&snapshot)).await
            };
            if let Err(error) = gone.await {
                self.0.recorder.warning(content, "SnapshotDeleteError", "Failed to delete snapshot");
                return Err(error);
            }
        }
        let finalizers = content.metadata.finalizers.iter().flatten();
        let rest: Vec<_> = finalizers.filter(|f| *f != CONTENT_FINALIZER).collect();
        let patch = json!({"metadata": {"uid": content.metadata.uid,
            "resourceVersion": content.metadata.resource_version, "finalizers": rest}});
        let api: Api<VolumeSnapshotContent> = Api::all(self.0.client.clone());
        let name = content.metadata.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => {}
            patched => drop(patched?),
        }
        Ok(Next::Done)
    }

    /// Makes the data of a volume that is to begin as a copy, and before it the data that it is a copy of. Not only when
    /// a pod comes: what the copy is made from changes, or goes.
    pub(super) async fn begin(
        &self,
        volumes: &Informer<PersistentVolume>,
        pv: &PersistentVolume,
    ) -> Result<(), Fault> {
        // What cannot be read is told to the pod that comes for it.
        let Ok(first) = wanted(pv, &self.0.node) else { return Ok(()) };
        let mut chain = vec![first];
        while chain.len() < DEEPEST {
            let Some(Wanted { origin: Some(Origin::Volume(name)), .. }) = chain.last() else { break };
            let Some(source) = volumes.get(&Key::new("", name)) else { break };
            chain.push(wanted(&source, &self.0.node)?);
        }
        if chain[0].origin.is_none() {
            return Ok(());
        }
        let (this, now) = (self.clone(), self.now());
        let made = blocking(move || {
            if this.0.store.has(&chain[0])? {
                return Ok(());
            }
            chain.iter().rev().try_for_each(|wanted| {
                this.0.store.make_empty(wanted, now)?;
                this.0.store.make_copy(wanted, now)
            })
        });
        let made = made.await;
        if let Err(error) = &made
            && !matches!(error, Fault::Ending)
        {
            let spec = pv.spec.clone().unwrap_or_default();
            let class = spec.storage_class_name.unwrap_or_default();
            let text = format!("failed to provision volume with StorageClass {class:?}: {error}");
            if let Some(claim) = spec.claim_ref {
                self.0.recorder.say(claim, EventKind::Warning, "ProvisioningFailed", text);
            }
        }
        made
    }

    /// Lets all volumes that are to begin as a copy of this have it, before it goes. The server is asked: a cache may not
    /// know yet of one that was made in time. `source` is what goes, if it is a volume.
    pub(super) async fn copy_out(
        &self,
        origin: &Origin,
        source: Option<&PersistentVolume>,
    ) -> Result<(), Fault> {
        let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
        let own = ListParams::default().labels(&format!("{NODE_LABEL}={}", self.0.node));
        for pv in api.list(&own).await?.items {
            let Ok(wanted) = wanted(&pv, &self.0.node) else { continue };
            if pv.metadata.deletion_timestamp.is_none() && wanted.origin.as_ref() == Some(origin) {
                let (this, now) = (self.clone(), self.now());
                let source = source.and_then(|source| super::source::wanted(source, &self.0.node).ok());
                let made = blocking(move || {
                    // It may be that no pod has come to it yet.
                    source.iter().try_for_each(|source| this.0.store.make_empty(source, now))?;
                    this.0.store.make_copy(&wanted, now)
                });
                match made.await {
                    // Nothing is lost that could be had.
                    Err(
                        Fault::NoOrigin { .. }
                        | Fault::TooLarge { .. }
                        | Fault::TooMuch { .. }
                        | Fault::NoDevice { .. },
                    ) => {}
                    made => made?,
                }
            }
        }
        Ok(())
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> u32 {
        u32::try_from(self.0.clock.now().as_second()).unwrap_or(0)
    }
}

/// What will not change is not tried again.
fn settled(outcome: Result<Taken, Fault>) -> Result<Next, Fault> {
    match outcome {
        Ok(_) | Err(Fault::Path(_)) => Ok(Next::Done),
        Err(error) => Err(error),
    }
}

fn handle_of(pv: &PersistentVolume) -> Option<&str> {
    let csi = pv.spec.as_ref()?.csi.as_ref()?;
    Some(csi.volume_handle.as_str()).filter(|_| csi.driver == DRIVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(more: Value) -> Step {
        let mut content = json!({"metadata": {"name": "c", "finalizers": [CONTENT_FINALIZER]},
            "spec": {"driver": DRIVER, "deletionPolicy": "Delete", "source": {"volumeHandle": "v"},
                "volumeSnapshotRef": {"uid": "1"}}});
        types::patch::merge_patch(&mut content, more);
        step(&serde_json::from_value(content).unwrap(), "n1")
    }

    #[test]
    fn contents_are_served_and_let_go() {
        let own = || Some("snapshot-1".to_owned());
        assert_eq!(next(json!({})), Step::Take { handle: "v".into(), snapshot: "snapshot-1".into() });
        assert_eq!(next(json!({"status": {"readyToUse": true}})), Step::Nothing);
        assert_eq!(next(json!({"spec": {"driver": "csi.example.com"}})), Step::Nothing);
        let found = |handle: &str| {
            next(json!({"spec": {"source": {"volumeHandle": null, "snapshotHandle": handle}}}))
        };
        assert_eq!(found("n1/old"), Step::Find("old".into()));
        assert_eq!(
            (found("n2/old"), found("old"), found("n1/")),
            (Step::Nothing, Step::Nothing, Step::Nothing)
        );
        let deleted = |more: Value| {
            let mut all = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {client::snapshots::BEING_DELETED: "yes"}}});
            types::patch::merge_patch(&mut all, more);
            next(all)
        };
        assert_eq!(deleted(json!({})), Step::LetGo(own()));
        assert_eq!(deleted(json!({"status": {"readyToUse": true}})), Step::LetGo(own()));
        assert_eq!(deleted(json!({"spec": {"deletionPolicy": "Retain"}})), Step::LetGo(None));
        assert_eq!(deleted(json!({"metadata": {"finalizers": ["other"]}})), Step::Nothing);
        // Its snapshot counts on it.
        assert_eq!(deleted(json!({"metadata": {"annotations": null}})), Step::Nothing);
        let elsewhere = json!({"spec": {"source": {"volumeHandle": null, "snapshotHandle": "n2/x"}}});
        assert_eq!(deleted(elsewhere), Step::LetGo(None));
    }
}
