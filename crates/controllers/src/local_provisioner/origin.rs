//! Where a claim's data comes from: nowhere, a snapshot, or another claim (kubernetes-csi/external-provisioner,
//! `pkg/controller/controller.go`, `getVolumeContentSource`).

use std::fmt;

use client::snapshots::{self, ALLOW_MODE_CHANGE, VolumeSnapshot, VolumeSnapshotContent};
use client::storage::{claim_phase, is_bound_to, volume_of, volume_phase};
use client::{Cache, Key, is_deleting};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use types::Quantity;
use types::local_volumes::{CLONE, DRIVER, SNAPSHOT, of_snapshot_handle};

use super::provision::{bytes, is_ours, requested};
use super::release::node_of;

/// Files are made of whole blocks.
const BLOCK: i64 = 4096;

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Snapshot(String),
    Claim(String),
    /// Somebody else knows what to do with a source of this kind.
    Other(String),
    /// It cannot be.
    Wrong(String),
}

/// As upstream names it in errors.
impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(name) => write!(f, "DataSource Type VolumeSnapshot by Name {name}"),
            Self::Claim(name) => write!(f, "DataSource Type PersistentVolumeClaim by Name {name}"),
            Self::Nothing | Self::Other(_) | Self::Wrong(_) => f.write_str("DataSource"),
        }
    }
}

pub(super) fn wish(claim: &PersistentVolumeClaim) -> Wish {
    let Some(spec) = &claim.spec else { return Wish::Nothing };
    let (group, kind, name, namespace) = match (&spec.data_source_ref, &spec.data_source) {
        (Some(source), _) => {
            (&source.api_group, source.kind.as_str(), &source.name, source.namespace.as_deref())
        }
        (None, Some(source)) => (&source.api_group, source.kind.as_str(), &source.name, None),
        (None, None) => return Wish::Nothing,
    };
    let group = group.as_deref().unwrap_or_default();
    let known = matches!((group, kind), ("", "PersistentVolumeClaim") | (_, "VolumeSnapshot"));
    match namespace.filter(|of| known && Some(*of) != claim.metadata.namespace.as_deref()) {
        Some(other) => Wish::Wrong(format!(
            "dataSourceRef names namespace {other:?}: sources in other namespaces are not available in this version"
        )),
        None => match (group, kind) {
            ("", "PersistentVolumeClaim") => Wish::Claim(name.clone()),
            (snapshots::GROUP, "VolumeSnapshot") => Wish::Snapshot(name.clone()),
            (_, "VolumeSnapshot") => Wish::Wrong(format!(
                "the PVC source does not belong to the right APIGroup. Expected {}, Got {group}",
                snapshots::GROUP
            )),
            _ => Wish::Other(kind.to_owned()),
        },
    }
}

/// Under what the claims that wait for a snapshot, or for another claim, are found.
pub(super) fn waits_for(claim: &PersistentVolumeClaim) -> Option<String> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    match wish(claim) {
        Wish::Snapshot(name) => Some(of_snapshot(&Key::new(namespace, &name))),
        Wish::Claim(name) => Some(of_claim(&Key::new(namespace, &name))),
        _ => None,
    }
}

pub(super) fn of_snapshot(key: &Key) -> String {
    format!("snapshot {key}")
}

pub(super) fn of_claim(key: &Key) -> String {
    format!("claim {key}")
}

/// What is there.
pub(super) struct Sources<'a> {
    pub(super) claims: &'a Cache<PersistentVolumeClaim>,
    pub(super) volumes: &'a Cache<PersistentVolume>,
    pub(super) snapshots: &'a Cache<VolumeSnapshot>,
    pub(super) contents: &'a Cache<VolumeSnapshotContent>,
}

/// Data that a volume can begin as a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it is.
    pub(super) node: String,
    /// What the volume says of it.
    pub(super) attribute: (&'static str, String),
    /// No smaller volume holds it.
    pub(super) bytes: i64,
}

/// Looks for what a claim wishes, or says why it cannot be had, or not yet.
pub(super) fn find(
    claim: &PersistentVolumeClaim,
    wish: &Wish,
    sources: &Sources<'_>,
) -> Result<Option<Found>, String> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    match wish {
        Wish::Snapshot(name) => snapshot(claim, namespace, name, sources).map(Some),
        Wish::Claim(name) => other_claim(claim, namespace, name, sources).map(Some),
        Wish::Nothing | Wish::Other(_) | Wish::Wrong(_) => Ok(None),
    }
}

fn snapshot(
    claim: &PersistentVolumeClaim,
    namespace: &str,
    name: &str,
    sources: &Sources<'_>,
) -> Result<Found, String> {
    let Some(snapshot) = sources.snapshots.by_name(namespace, name) else {
        return Err(format!(
            "error getting snapshot {name} from api server: volumesnapshots.{} {name:?} not found",
            snapshots::GROUP
        ));
    };
    let unbound = || format!("snapshot {name} not bound");
    let bound = Some(snapshot.bound_content()).filter(|bound| !bound.is_empty());
    let content = bound.and_then(|bound| sources.contents.by_name("", bound));
    let content = content.filter(|c| c.is_of(&snapshot) && c.spec.driver == DRIVER).ok_or_else(unbound)?;
    // A snapshot on its way out waits for claims, until its content goes.
    if is_deleting(&content.metadata) {
        return Err(format!("snapshot {name} is being deleted"));
    }
    if !snapshot.is_ready() {
        return Err(format!("snapshot {name} is not Ready"));
    }
    let status = content.status.clone().unwrap_or_default();
    let handle = status.snapshot_handle.as_deref().and_then(of_snapshot_handle);
    let Some((node, on_node)) = handle else {
        return Err(format!("snapshot handle {name} is not available"));
    };
    let (has, wants) = (status.restore_size.unwrap_or(0), requested(claim).0);
    if wants.saturating_add(BLOCK - 1) / BLOCK * BLOCK < has {
        return Err(format!(
            "requested volume size {wants} is less than the size {has} for the source snapshot {name}"
        ));
    }
    same_mode(claim, &content)?;
    Ok(Found { node: node.into(), attribute: (SNAPSHOT, on_node.into()), bytes: wants })
}

fn mode(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref()).unwrap_or("Filesystem")
}

fn same_mode(claim: &PersistentVolumeClaim, content: &VolumeSnapshotContent) -> Result<(), String> {
    let Some(was) = content.spec.source_volume_mode.as_deref() else { return Ok(()) };
    if was == mode(claim) {
        return Ok(());
    }
    let meta = &content.metadata;
    let why = match meta.annotations.as_ref().and_then(|a| a.get(ALLOW_MODE_CHANGE)).map(String::as_str) {
        Some("true") => return Ok(()),
        Some(_) => "is set to false",
        None => "annotation is not present",
    };
    Err(format!(
        "requested volume {} modifies the mode of the source volume but does not have permission to do so. \
         {ALLOW_MODE_CHANGE} {why} on snapshotcontent {}",
        Key::of(claim),
        meta.name.as_deref().unwrap_or_default()
    ))
}

fn other_claim(
    claim: &PersistentVolumeClaim,
    namespace: &str,
    name: &str,
    sources: &Sources<'_>,
) -> Result<Found, String> {
    let Some(source) = sources.claims.by_name(namespace, name) else {
        return Err(format!(
            "error getting PVC {name} (namespace {namespace:?}) from api server: persistentvolumeclaim {name:?} not found"
        ));
    };
    if claim_phase(&source) != "Bound" {
        return Err(format!(
            "the PVC DataSource {name} must have a status of Bound.  Got {}",
            claim_phase(&source)
        ));
    }
    if is_deleting(&source.metadata) {
        return Err(format!("the PVC DataSource {name} is currently being deleted"));
    }
    let (wants, has) = (requested(claim).0, requested(&source).0);
    if wants < has {
        return Err(format!(
            "error, new PVC request must be greater than or equal in size to the specified PVC data source, requested \
             {wants} but source is {has}"
        ));
    }
    let invalid = || "claim in dataSource not bound or invalid".to_owned();
    let volume = sources.volumes.by_name("", volume_of(&source)).ok_or_else(invalid)?;
    let good = is_ours(&volume) && is_bound_to(&volume, &source) && volume_phase(&volume) == "Bound";
    let node = node_of(&volume).filter(|_| good).ok_or_else(invalid)?;
    let spec = volume.spec.clone().unwrap_or_default();
    let (was, is) = (spec.volume_mode.as_deref().unwrap_or("Filesystem"), mode(claim));
    if was != is {
        return Err(format!(
            "the source PVC and destination PVCs must have the same volume mode for cloning.  Source is {was}, but new PVC \
             requested {is}"
        ));
    }
    let capacity = spec.capacity.as_ref().and_then(|c| c.get("storage")).map_or(0, |q| bytes(&q.0));
    let volume = volume.metadata.name.clone().unwrap_or_default();
    Ok(Found { node: node.into(), attribute: (CLONE, volume), bytes: wants.max(capacity) })
}

/// How a volume's capacity is written: as the claim has it, unless it has to be larger.
pub(super) fn capacity(found: Option<&Found>, wanted: i64, given: String) -> String {
    match found {
        Some(found) if found.bytes > wanted => Quantity::from_bytes(found.bytes).to_string(),
        _ => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn sources_have_their_kinds() {
        let wish = |source: Value| {
            wish(&testkit::object(
                json!({"metadata": {"namespace": "n", "name": "c"}, "spec": {"dataSourceRef": source}}),
            ))
        };
        let snapshot = |more: Value| {
            let mut source = json!({"apiGroup": snapshots::GROUP, "kind": "VolumeSnapshot", "name": "s"});
            types::patch::merge_patch(&mut source, more);
            wish(source)
        };
        assert_eq!(snapshot(json!({})), Wish::Snapshot("s".into()));
        assert_eq!(snapshot(json!({"namespace": "n"})), Wish::Snapshot("s".into()));
        let Wish::Wrong(why) = snapshot(json!({"namespace": "m"})) else { panic!("is wrong") };
        assert!(why.contains("names namespace \"m\""), "{why}");
        let Wish::Wrong(why) = snapshot(json!({"apiGroup": "x.io"})) else { panic!("is wrong") };
        assert_eq!(
            why,
            "the PVC source does not belong to the right APIGroup. Expected snapshot.storage.k8s.io, Got x.io"
        );
        assert_eq!(wish(json!({"kind": "PersistentVolumeClaim", "name": "o"})), Wish::Claim("o".into()));
        let other = json!({"apiGroup": "x.io", "kind": "Book", "name": "b", "namespace": "elsewhere"});
        assert_eq!(wish(other), Wish::Other("Book".into()));
        assert_eq!(wish(Value::Null), Wish::Nothing);
    }
}
