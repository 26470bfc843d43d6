//! Snapshots of volumes (kubernetes-csi/external-snapshotter, `client/apis/volumesnapshot/v1/types.go`).
//!
//! Everybody may write objects of these kinds, for any storage: whatever need not be there is optional, so that no
//! object keeps others from being read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::Resource;
use serde::{Deserialize, Serialize};

/// The API group of the kinds.
pub const GROUP: &str = "snapshot.storage.k8s.io";
const VERSION: &str = "v1";

/// On a content: it stays until its storage has dealt with the snapshot.
pub const CONTENT_FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
/// On a snapshot: its content goes first.
pub const BOUND_FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// On a snapshot: a claim may be on its way out of it.
pub const SOURCE_FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// On a claim: a snapshot of it is being taken.
pub const CLAIM_FINALIZER: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// On a class: it is for snapshots that name none.
pub const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// On a content: its snapshot is being deleted, so storage may deal with it.
pub const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// On a content: what was files may become a block device, and the other way round.
pub const ALLOW_MODE_CHANGE: &str = "snapshot.storage.kubernetes.io/allow-volume-mode-change";

/// A user's wish for a snapshot, and how far it has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct VolumeSnapshot {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "VolumeSnapshot::own_kind")]
    pub kind: String,
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: SnapshotSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SnapshotStatus>,
}

/// What is wished for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SnapshotSpec {
    pub source: SnapshotSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
}

/// Of what: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SnapshotSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_content_name: Option<String>,
}

/// How far a snapshot has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SnapshotStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_volume_snapshot_content_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// A quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
}

/// What went wrong last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct SnapshotError {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// The snapshot itself, as storage has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct VolumeSnapshotContent {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "VolumeSnapshotContent::own_kind")]
    pub kind: String,
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ContentSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ContentStatus>,
}

/// Whose it is and what it is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContentSpec {
    /// `Delete` or `Retain`.
    pub deletion_policy: String,
    pub driver: String,
    pub source: ContentSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volume_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
    pub volume_snapshot_ref: ObjectReference,
}

/// A volume of which a snapshot is to be taken, or a snapshot that is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContentSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
}

/// What storage says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContentStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// Nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<i64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
}

/// How snapshots are taken, and what becomes of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct VolumeSnapshotClass {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "VolumeSnapshotClass::own_kind")]
    pub kind: String,
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub driver: String,
    #[serde(default)]
    pub deletion_policy: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

macro_rules! kind {
    ($kind:ident, $plural:literal, $scope:ty) => {
        impl $kind {
            fn own_kind() -> String {
                stringify!($kind).to_owned()
            }
        }

        impl Resource for $kind {
            type DynamicType = ();
            type Scope = $scope;

            fn kind(_: &()) -> Cow<'_, str> {
                stringify!($kind).into()
            }

            fn group(_: &()) -> Cow<'_, str> {
                GROUP.into()
            }

            fn version(_: &()) -> Cow<'_, str> {
                VERSION.into()
            }

            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

kind!(VolumeSnapshot, "volumesnapshots", NamespaceResourceScope);
kind!(VolumeSnapshotContent, "volumesnapshotcontents", ClusterResourceScope);
kind!(VolumeSnapshotClass, "volumesnapshotclasses", ClusterResourceScope);

impl VolumeSnapshot {
    /// Whether a volume can be made from it.
    pub fn is_ready(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.ready_to_use == Some(true))
    }

    /// The content that it says it has; empty for none.
    pub fn bound_content(&self) -> &str {
        let status = self.status.as_ref();
        status.and_then(|s| s.bound_volume_snapshot_content_name.as_deref()).unwrap_or_default()
    }

    /// The claim of which it is to be taken.
    pub fn source_claim(&self) -> Option<&str> {
        self.spec.source.persistent_volume_claim_name.as_deref()
    }
}

impl VolumeSnapshotContent {
    /// Whether it is this snapshot's, and no other's of the same name.
    pub fn is_of(&self, snapshot: &VolumeSnapshot) -> bool {
        let of = &self.spec.volume_snapshot_ref;
        let own = &snapshot.metadata;
        of.uid.is_some() && of.uid == own.uid && of.name == own.name && of.namespace == own.namespace
    }

    /// Whether storage may deal with what is behind a content that is being deleted: its snapshot goes too, or it has
    /// none (`pkg/sidecar-controller/snapshot_controller.go`, `shouldDelete`).
    pub fn may_go(&self) -> bool {
        let marked = self.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BEING_DELETED));
        let unbound = self.spec.volume_snapshot_ref.uid.as_deref().is_none_or(str::is_empty);
        self.metadata.deletion_timestamp.is_some()
            && (marked || (unbound && self.spec.source.snapshot_handle.is_some()))
    }

    /// Whether it keeps a finalizer of the protection of contents.
    pub fn is_held(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|f| f == CONTENT_FINALIZER)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_as_they_are_served() {
        assert_eq!(
            VolumeSnapshotContent::url_path(&(), None),
            "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents"
        );
        let snapshot: VolumeSnapshot =
            serde_json::from_value(json!({"metadata": {"name": "s", "uid": "1", "namespace": "n"},
            "spec": {"source": {"persistentVolumeClaimName": "c"}}}))
            .unwrap();
        let text = serde_json::to_value(&snapshot).unwrap();
        assert_eq!(
            (&text["kind"], &text["apiVersion"]),
            (&json!("VolumeSnapshot"), &json!("snapshot.storage.k8s.io/v1"))
        );
        assert_eq!(text["spec"], json!({"source": {"persistentVolumeClaimName": "c"}}));
        // Whatever somebody else has written can be read.
        for other in [json!({}), json!({"spec": {}, "status": {"volumeGroupSnapshotHandle": "g"}})] {
            let content: VolumeSnapshotContent = serde_json::from_value(other).unwrap();
            assert!(!content.is_of(&snapshot) && !content.may_go() && !content.is_held());
        }
    }

    #[test]
    fn a_content_goes_with_its_snapshot() {
        let content = |deleted: bool, mark: bool, uid: &str| -> VolumeSnapshotContent {
            let when = deleted.then_some("2026-01-01T00:00:00Z");
            let marks = if mark { json!({BEING_DELETED: "yes"}) } else { json!({}) };
            serde_json::from_value(json!({"metadata": {"deletionTimestamp": when, "annotations": marks},
                "spec": {"source": {"snapshotHandle": "n/s"}, "volumeSnapshotRef": {"uid": uid}}}))
            .unwrap()
        };
        assert!(content(true, true, "1").may_go() && content(true, false, "").may_go());
        assert!(!content(true, false, "1").may_go() && !content(false, true, "1").may_go());
    }
}
