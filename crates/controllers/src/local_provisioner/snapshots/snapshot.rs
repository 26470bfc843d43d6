//! What is next for a VolumeSnapshot (`snapshot_controller.go`, `syncSnapshot`).

use std::sync::Arc;

use client::snapshots::{
    BOUND_FINALIZER, CLAIM_FINALIZER, DEFAULT_CLASS, GROUP, SOURCE_FINALIZER, SnapshotStatus, VolumeSnapshot,
    VolumeSnapshotClass, VolumeSnapshotContent,
};
use client::storage::{BETA_PROVISIONER, PROVISIONER, annotation, claim_phase, is_bound_to};
use client::{Key, is_deleting};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};
use types::Quantity;
use types::local_volumes::{DRIVER, NODE_LABEL};

use super::super::release::node_of;

/// What a snapshot has to do with.
pub(super) struct Seen {
    /// The one that it names, or that is called after it.
    pub(super) content: Option<Arc<VolumeSnapshotContent>>,
    /// The one that it names.
    pub(super) class: Option<Arc<VolumeSnapshotClass>>,
    /// All there are, if it names none.
    pub(super) classes: Vec<Arc<VolumeSnapshotClass>>,
    pub(super) claim: Option<Arc<PersistentVolumeClaim>>,
    /// The claim's.
    pub(super) volume: Option<Arc<PersistentVolume>>,
    /// A claim waits for a volume made from it.
    pub(super) restoring: bool,
}

#[derive(Debug)]
pub(super) enum Step {
    Nothing,
    TakeClass(String),
    /// It gets these.
    Finalizers(Vec<String>),
    /// The user is told, in the status and by an event.
    Fail {
        reason: &'static str,
        message: String,
        unready: bool,
    },
    /// The user is told by an event.
    Refuse {
        reason: &'static str,
        message: String,
    },
    HoldClaim,
    Make(Box<VolumeSnapshotContent>),
    /// The content learns whose it is.
    Bind(Value),
    Say {
        status: Value,
        created: bool,
        ready: bool,
    },
    MarkContent,
    DeleteContent,
}

/// The name of a snapshot's content.
pub(super) fn content_name(snapshot: &VolumeSnapshot) -> String {
    match &snapshot.spec.source.volume_snapshot_content_name {
        Some(name) => name.clone(),
        None => format!("snapcontent-{}", snapshot.metadata.uid.as_deref().unwrap_or_default()),
    }
}

/// Whether a snapshot is being taken from its claim, or will be; `has_content` if it has one.
pub(super) fn is_in_work(snapshot: &VolumeSnapshot, has_content: bool) -> bool {
    let was_taken = snapshot.status.as_ref().is_some_and(|s| s.creation_time.is_some());
    !snapshot.is_ready() && !was_taken && (has_content || !is_deleting(&snapshot.metadata))
}

/// Whether a claim's storage is ours, as far as that is known.
pub(super) fn is_own_claim(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> bool {
    let made_by =
        || [PROVISIONER, BETA_PROVISIONER].iter().find_map(|name| annotation(&claim.metadata, name));
    match volume {
        Some(volume) => driver_of(volume) == Some(DRIVER),
        None => made_by() == Some(DRIVER),
    }
}

fn driver_of(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.csi.as_ref().map(|csi| csi.driver.as_str())
}

/// Whether a snapshot is ours to look after, or nobody's who could be known.
fn concerns(seen: &Seen) -> bool {
    let made_by = seen.claim.as_ref().and_then(|claim| annotation(&claim.metadata, PROVISIONER));
    let driver = seen
        .content
        .as_ref()
        .map(|content| content.spec.driver.as_str())
        .or_else(|| seen.class.as_ref().map(|class| class.driver.as_str()))
        .or_else(|| seen.volume.as_ref().and_then(|volume| driver_of(volume)))
        .or(made_by);
    driver.is_none_or(|driver| driver == DRIVER)
}

pub(super) fn plan(snapshot: &VolumeSnapshot, seen: &Seen) -> Step {
    if !concerns(seen) {
        return Step::Nothing;
    }
    if is_deleting(&snapshot.metadata) {
        return end(snapshot, seen);
    }
    match live(snapshot, seen) {
        Ok(step) => step,
        Err(failure) => {
            let error = snapshot.status.as_ref().and_then(|status| status.error.as_ref());
            // It is said already.
            if error.and_then(|error| error.message.as_deref()) == Some(&failure.message) {
                return Step::Nothing;
            }
            let Failure { reason, message, unready } = failure;
            Step::Fail { reason, message, unready }
        }
    }
}

struct Failure {
    reason: &'static str,
    message: String,
    unready: bool,
}

fn failure<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { reason, message: message.into(), unready: true })
}

const MISSING: &str = "VolumeSnapshotContent is missing";

fn live(snapshot: &VolumeSnapshot, seen: &Seen) -> Result<Step, Failure> {
    let source = &snapshot.spec.source;
    if source.persistent_volume_claim_name.is_some() == source.volume_snapshot_content_name.is_some() {
        return failure(
            "SnapshotValidationError",
            "Exactly one of PersistentVolumeClaimName and VolumeSnapshotContentName should be specified",
        );
    }
    let own = seen.content.as_ref().filter(|content| content.is_of(snapshot));
    let is_bound = !snapshot.bound_content().is_empty();
    if snapshot.is_ready() && is_bound {
        match &seen.content {
            None => return failure("SnapshotContentMissing", MISSING),
            Some(_) if own.is_none() => {
                return failure(
                    "SnapshotMisbound",
                    "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly",
                );
            }
            Some(_) => {}
        }
    } else if let Some(step) = class(snapshot, seen)? {
        return Ok(step);
    }
    let deletes = own.is_some_and(|content| content.spec.deletion_policy == "Delete");
    let finalizers = || snapshot.metadata.finalizers.iter().flatten();
    let wanted = [(SOURCE_FINALIZER, true), (BOUND_FINALIZER, is_bound && deletes)];
    let missing: Vec<_> =
        wanted.iter().filter(|(f, wanted)| *wanted && !finalizers().any(|had| had == f)).collect();
    if !missing.is_empty() {
        let all = finalizers().cloned().chain(missing.into_iter().map(|(f, _)| (*f).to_owned()));
        return Ok(Step::Finalizers(all.collect()));
    }
    if snapshot.is_ready() && is_bound {
        return Ok(Step::Nothing);
    }
    match &seen.content {
        Some(content) if source.volume_snapshot_content_name.is_some() => given(snapshot, content),
        None if source.volume_snapshot_content_name.is_some() => failure("SnapshotContentMissing", MISSING),
        Some(content) => taken(snapshot, content),
        // Another one would show another moment.
        None if snapshot.status.as_ref().is_some_and(|s| s.creation_time.is_some()) => {
            failure("SnapshotContentMissing", MISSING)
        }
        None => make(snapshot, seen),
    }
}

/// Sees to it that there is a class (`checkAndUpdateSnapshotClass`).
fn class(snapshot: &VolumeSnapshot, seen: &Seen) -> Result<Option<Step>, Failure> {
    if let Some(name) = &snapshot.spec.volume_snapshot_class_name {
        if seen.class.is_some() {
            return Ok(None);
        }
        let message =
            format!("Failed to get snapshot class with error volumesnapshotclass.{GROUP} {name:?} not found");
        return Err(Failure { reason: "GetSnapshotClassFailed", message, unready: false });
    }
    if snapshot.source_claim().is_none() {
        return Ok(None);
    }
    let chosen = volume(snapshot, seen).and_then(|volume| {
        let Some(driver) = driver_of(volume) else {
            let key = Key::of(snapshot);
            return Err(format!("snapshotting non-CSI volumes is not supported, snapshot:{key}"));
        };
        let mut marked = seen.classes.iter().filter(|class| {
            class.driver == driver && annotation(&class.metadata, DEFAULT_CLASS) == Some("true")
        });
        match (marked.next(), marked.count()) {
            (None, _) => Err("cannot find default snapshot class".to_owned()),
            (Some(class), 0) => Ok(class.metadata.name.clone().unwrap_or_default()),
            (Some(_), more) => Err(format!("{} default snapshot classes were found", more + 1)),
        }
    });
    match chosen {
        Ok(name) => Ok(Some(Step::TakeClass(name))),
        Err(why) => {
            let message = format!("Failed to set default snapshot class with error {why}");
            Err(Failure { reason: "SetDefaultSnapshotClassFailed", message, unready: false })
        }
    }
}

/// The volume of which a snapshot is to be taken (`getVolumeFromVolumeSnapshot`).
fn volume<'a>(snapshot: &VolumeSnapshot, seen: &'a Seen) -> Result<&'a PersistentVolume, String> {
    let name = snapshot.source_claim().unwrap_or_default();
    let Some(claim) = &seen.claim else {
        let why = format!("persistentvolumeclaim {name:?} not found");
        return Err(format!("failed to retrieve PVC {name} from the lister: {why:?}"));
    };
    if claim_phase(claim) != "Bound" {
        return Err(format!("the PVC {name} is not yet bound to a PV, will not attempt to take a snapshot"));
    }
    let bound = client::storage::volume_of(claim);
    let Some(volume) = &seen.volume else {
        let why = format!("persistentvolumes {bound:?} not found");
        return Err(format!("failed to retrieve PV {bound} from the API server: {why:?}"));
    };
    if is_bound_to(volume, claim) {
        Ok(volume)
    } else {
        Err("claim in dataSource not bound or invalid".into())
    }
}

/// A content that was there first.
fn given(snapshot: &VolumeSnapshot, content: &VolumeSnapshotContent) -> Result<Step, Failure> {
    if content.spec.source.snapshot_handle.is_none() {
        return failure(
            "SnapshotContentMismatch",
            "VolumeSnapshotContent is dynamically provisioned while expecting a pre-provisioned one",
        );
    }
    let of = &content.spec.volume_snapshot_ref;
    let uid = of.uid.as_deref().filter(|uid| !uid.is_empty());
    let own = &snapshot.metadata;
    if of.name != own.name
        || of.namespace != own.namespace
        || uid.is_some_and(|uid| own.uid.as_deref() != Some(uid))
    {
        return misbound(content);
    }
    let class = snapshot.spec.volume_snapshot_class_name.as_deref();
    let has_class = content.spec.volume_snapshot_class_name.is_some();
    if uid.is_none() || (class.is_some() && !has_class) {
        let mut spec = json!({"volumeSnapshotRef": {"uid": own.uid}});
        if let Some(class) = class {
            spec["volumeSnapshotClassName"] = class.into();
        }
        return Ok(Step::Bind(json!({"spec": spec})));
    }
    Ok(say(snapshot, content))
}

/// A content that was made for the snapshot.
fn taken(snapshot: &VolumeSnapshot, content: &VolumeSnapshotContent) -> Result<Step, Failure> {
    if content.spec.source.volume_handle.is_none() {
        let name = content_name(snapshot);
        return failure(
            "SnapshotContentMismatch",
            format!(
                "VolumeSnapshotContent {name} is pre-provisioned while expecting a dynamically provisioned one"
            ),
        );
    }
    if !content.is_of(snapshot) {
        return misbound(content);
    }
    Ok(say(snapshot, content))
}

fn misbound(content: &VolumeSnapshotContent) -> Result<Step, Failure> {
    let name = content.metadata.name.as_deref().unwrap_or_default();
    failure(
        "SnapshotContentMisbound",
        format!("VolumeSnapshotContent [{name}] is bound to a different snapshot"),
    )
}

/// What a snapshot says follows from what its content says (`updateSnapshotStatus`).
fn say(snapshot: &VolumeSnapshot, content: &VolumeSnapshotContent) -> Step {
    let old = snapshot.status.clone().unwrap_or_default();
    let known = content.status.clone().unwrap_or_default();
    let created =
        known.creation_time.and_then(|nanos| base::Timestamp::from_second(nanos / 1_000_000_000).ok());
    let size = known.restore_size.map(|bytes| Quantity::from_bytes(bytes).to_string());
    let new = SnapshotStatus {
        bound_volume_snapshot_content_name: old
            .bound_volume_snapshot_content_name
            .clone()
            .or_else(|| content.metadata.name.clone()),
        creation_time: old.creation_time.clone().or_else(|| created.map(|time| time.to_string())),
        ready_to_use: Some(known.ready_to_use == Some(true)),
        restore_size: old.restore_size.clone().or(size),
        error: known.error,
    };
    if new == old {
        return Step::Nothing;
    }
    let mut status = json!(new);
    if new.error.is_none() {
        status["error"] = Value::Null;
    }
    Step::Say {
        status,
        created: old.creation_time.is_none() && new.creation_time.is_some(),
        ready: old.ready_to_use != Some(true) && new.ready_to_use == Some(true),
    }
}

/// Begins (`createSnapshotContent`).
fn make(snapshot: &VolumeSnapshot, seen: &Seen) -> Result<Step, Failure> {
    let fail = |why: String| {
        failure(
            "SnapshotContentCreationFailed",
            format!("Failed to create snapshot content with error {why}"),
        )
    };
    let name = snapshot.metadata.name.as_deref().unwrap_or_default();
    let refused = |what: &str, why: &str| {
        fail(format!("snapshot controller failed to update {what} on API server: {why}"))
    };
    let Some(claim) = &seen.claim else { return refused(name, "cannot get claim from snapshot") };
    let is_held = claim.metadata.finalizers.iter().flatten().any(|f| f == CLAIM_FINALIZER);
    if is_deleting(&claim.metadata) && !is_held {
        let claim = claim.metadata.name.as_deref().unwrap_or_default();
        return refused(claim, "cannot add finalizer on claim because it is being deleted");
    }
    let volume = match volume(snapshot, seen) {
        Ok(volume) => volume,
        Err(why) => {
            return fail(format!("failed to get input parameters to create snapshot {name}: {why:?}"));
        }
    };
    let volume_name = volume.metadata.name.as_deref().unwrap_or_default();
    let spec = volume.spec.clone().unwrap_or_default();
    let Some(csi) = spec.csi else {
        return fail(format!("cannot find CSI PersistentVolumeSource for volume {volume_name}"));
    };
    let Some(class) = &seen.class else {
        return fail(format!("failed to take snapshot {name} without a snapshot class"));
    };
    let Some(node) = node_of(volume) else {
        return fail(format!(
            "volume {volume_name} is one of driver {:?}, and snapshot class {:?} is for driver {DRIVER:?}",
            csi.driver,
            class.metadata.name.as_deref().unwrap_or_default()
        ));
    };
    if !is_held {
        return Ok(Step::HoldClaim);
    }
    let meta = &snapshot.metadata;
    let content = json!({
        "metadata": {"name": content_name(snapshot), "labels": {NODE_LABEL: node},
            "finalizers": [client::snapshots::CONTENT_FINALIZER]},
        "spec": {
            "deletionPolicy": class.deletion_policy,
            "driver": DRIVER,
            "source": {"volumeHandle": csi.volume_handle},
            "sourceVolumeMode": spec.volume_mode,
            "volumeSnapshotClassName": class.metadata.name,
            "volumeSnapshotRef": {"apiVersion": format!("{GROUP}/v1"), "kind": "VolumeSnapshot",
                "namespace": meta.namespace, "name": meta.name, "uid": meta.uid,
                "resourceVersion": meta.resource_version},
        },
    });
    match serde_json::from_value(content) {
        Ok(content) => Ok(Step::Make(Box::new(content))),
        Err(error) => fail(error.to_string()),
    }
}

/// It is being deleted, and its content with it if that is to be (`checkandRemoveSnapshotFinalizersAndCheckandDeleteContent`).
fn end(snapshot: &VolumeSnapshot, seen: &Seen) -> Step {
    let finalizers = || snapshot.metadata.finalizers.iter().flatten();
    if !finalizers().any(|f| f == SOURCE_FINALIZER || f == BOUND_FINALIZER) {
        return Step::Nothing;
    }
    let own = seen.content.as_ref().filter(|content| content.is_of(snapshot));
    let mut goes_first = false;
    if let Some(content) = own {
        if seen.restoring && !is_deleting(&content.metadata) {
            let message = "Snapshot is being used to restore a PVC".to_owned();
            return Step::Refuse { reason: "SnapshotDeletePending", message };
        }
        if annotation(&content.metadata, client::snapshots::BEING_DELETED).is_none() {
            return Step::MarkContent;
        }
        goes_first = content.spec.deletion_policy == "Delete";
        if goes_first && !is_deleting(&content.metadata) {
            return Step::DeleteContent;
        }
    }
    let stays = |f: &&String| *f != SOURCE_FINALIZER && (*f != BOUND_FINALIZER || goes_first);
    let rest: Vec<String> = finalizers().filter(stays).cloned().collect();
    if rest.len() == finalizers().count() { Step::Nothing } else { Step::Finalizers(rest) }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
