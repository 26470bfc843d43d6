//! The kinds of volume snapshots, with upstream's fields, rules and columns (kubernetes-csi/external-snapshotter,
//! `client/config/crd`), and the class that snapshots get which ask for nothing else.
//!
//! They are made if they are missing, like everything here, and never changed back: whoever installs another driver may
//! apply upstream's own definitions over them.

use std::sync::Arc;

use serde_json::{Value, json};
use types::{Reason, Status, local_volumes};

use super::create;
use crate::state::Inner;

const GROUP: &str = "snapshot.storage.k8s.io";
/// Definitions in the project's own groups say where they were agreed on.
const APPROVED: &str = "https://github.com/kubernetes-csi/external-snapshotter/pull/814";

pub(super) async fn ensure(server: &Arc<Inner>) -> Result<(), Status> {
    for definition in [snapshots(), contents(), classes()] {
        create(server, "apiextensions.k8s.io", "v1", "customresourcedefinitions", definition).await?;
    }
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": local_volumes::SNAPSHOT_CLASS,
            "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"}},
        "driver": local_volumes::DRIVER, "deletionPolicy": "Delete",
    });
    match create(server, GROUP, "v1", "volumesnapshotclasses", class).await {
        // Somebody has replaced the definitions by others, to which the class is nothing. That is no reason not to start.
        Err(status)
            if matches!(status.reason, Some(Reason::NotFound | Reason::Invalid | Reason::BadRequest)) =>
        {
            tracing::warn!(message = status.message, "the class of built-in snapshots cannot be made");
            Ok(())
        }
        made => made,
    }
}

/// A definition of one version. `status`: the kind has that subresource.
fn definition(names: Value, scope: &str, columns: Value, schema: Value, status: bool) -> Value {
    let name = format!("{}.{GROUP}", names["plural"].as_str().unwrap_or_default());
    let mut version = json!({"name": "v1", "served": true, "storage": true,
        "additionalPrinterColumns": columns, "schema": {"openAPIV3Schema": schema}});
    if status {
        version["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": APPROVED}},
        "spec": {"group": GROUP, "names": names, "scope": scope, "versions": [version]},
    })
}

fn names(kind: &str, plural: &str, short: &[&str]) -> Value {
    json!({"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
        "shortNames": short})
}

fn column(name: &str, kind: &str, path: &str, description: &str) -> Value {
    let mut column = json!({"name": name, "type": kind, "jsonPath": path});
    if !description.is_empty() {
        column["description"] = description.into();
    }
    column
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

/// Text that stays as it was made.
fn fixed(description: &str, name: &str) -> Value {
    json!({"type": "string", "description": description,
        "x-kubernetes-validations": [rule("self == oldSelf", &format!("{name} is immutable"))]})
}

fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// Once given, it cannot be taken away.
fn kept(name: &str) -> Value {
    rule(&format!("!has(oldSelf.{name}) || has(self.{name})"), &format!("{name} is required once set"))
}

fn one_of(a: &str, b: &str) -> Value {
    rule(
        &format!("(has(self.{a}) && !has(self.{b})) || (!has(self.{a}) && has(self.{b}))"),
        &format!("exactly one of {a} and {b} must be set"),
    )
}

fn object(description: &str, required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"type": "object", "description": description, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn error() -> Value {
    let properties = json!({
        "message": text("What went wrong, for people and logs; it holds no secrets."),
        "time": {"type": "string", "format": "date-time", "description": "When it was noticed."},
    });
    object("What went wrong last. It goes when all is well again.", &[], properties)
}

fn policy() -> Value {
    json!({"type": "string", "enum": ["Delete", "Retain"],
        "description": "What becomes of the snapshot in storage when its VolumeSnapshot is deleted: Delete takes it away, Retain keeps it, and its content."})
}

fn snapshots() -> Value {
    let mut source = object(
        "What the snapshot is of; exactly one of the two. It cannot be changed.",
        &[],
        json!({
            "persistentVolumeClaimName": fixed(
                "A claim in the same namespace; a snapshot is taken of its volume.",
                "persistentVolumeClaimName"),
            "volumeSnapshotContentName": fixed(
                "A VolumeSnapshotContent that stands for a snapshot which is there already.",
                "volumeSnapshotContentName"),
        }),
    );
    let (claim, content) = ("persistentVolumeClaimName", "volumeSnapshotContentName");
    source["x-kubernetes-validations"] = json!([kept(claim), kept(content), one_of(content, claim)]);
    let mut class = text("How it is taken. Without, it is the default class of the volume's driver.");
    class["x-kubernetes-validations"] =
        json!([rule("size(self) > 0", "volumeSnapshotClassName must not be the empty string when set")]);
    let quantity = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
    let status = json!({
        "boundVolumeSnapshotContentName": text("The VolumeSnapshotContent that it is bound to; it counts only if that one names this snapshot too."),
        "creationTime": {"type": "string", "format": "date-time", "description": "The moment that the snapshot shows."},
        "readyToUse": {"type": "boolean", "description": "Whether volumes can be made from it."},
        "restoreSize": {"type": "string", "pattern": quantity, "x-kubernetes-int-or-string": true,
            "description": "The least size of a volume that is made from it."},
        "error": error(),
        "volumeGroupSnapshotName": text("The VolumeGroupSnapshot that it is part of."),
    });
    let spec = json!({"source": source, "volumeSnapshotClassName": class});
    let schema = json!({
        "spec": object("What is wished for.", &["source"], spec),
        "status": object("How far it has come.", &[], status),
    });
    let columns = json!([
        column("ReadyToUse", "boolean", ".status.readyToUse", "Whether volumes can be made from it."),
        column("SourcePVC", "string", ".spec.source.persistentVolumeClaimName", "The claim that it is of."),
        column(
            "SourceSnapshotContent",
            "string",
            ".spec.source.volumeSnapshotContentName",
            "The content that was there before it."
        ),
        column(
            "RestoreSize",
            "string",
            ".status.restoreSize",
            "The least size of a volume that is made from it."
        ),
        column("SnapshotClass", "string", ".spec.volumeSnapshotClassName", "Its class."),
        column(
            "SnapshotContent",
            "string",
            ".status.boundVolumeSnapshotContentName",
            "The content that it is bound to."
        ),
        column("CreationTime", "date", ".status.creationTime", "The moment that it shows."),
        column("Age", "date", ".metadata.creationTimestamp", ""),
    ]);
    let about = "A user's wish for a snapshot of a volume, or for one that is there already.";
    let names = names("VolumeSnapshot", "volumesnapshots", &["vs"]);
    definition(names, "Namespaced", columns, object(about, &["spec"], schema), true)
}

fn contents() -> Value {
    let mut source = object(
        "The volume to take a snapshot of, or a snapshot that is there; exactly one of the two. It cannot be changed.",
        &[],
        json!({
            "volumeHandle": fixed("What the driver calls the volume.", "volumeHandle"),
            "snapshotHandle": fixed("What the driver calls the snapshot.", "snapshotHandle"),
        }),
    );
    source["x-kubernetes-validations"] =
        json!([kept("volumeHandle"), kept("snapshotHandle"), one_of("volumeHandle", "snapshotHandle")]);
    let mut reference = object(
        "The VolumeSnapshot that it is bound to, or is to be bound to.",
        &[],
        json!({
            "apiVersion": text("Its API version."), "kind": text("Its kind."), "name": text("Its name."),
            "namespace": text("Its namespace."), "uid": text("Its UID; empty until both are bound."),
            "resourceVersion": text("Its version when this was written."), "fieldPath": text("A part of it."),
        }),
    );
    reference["x-kubernetes-map-type"] = "atomic".into();
    reference["x-kubernetes-validations"] = json!([rule(
        "has(self.name) && has(self.__namespace__)",
        "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"
    )]);
    let mut spec = object(
        "Whose it is, and what it is made from.",
        &["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
        json!({
            "deletionPolicy": policy(),
            "driver": text("The storage driver that has it."),
            "source": source,
            "sourceVolumeMode": fixed("Whether the volume was used as Filesystem or as Block.", "sourceVolumeMode"),
            "volumeSnapshotClassName": text("The class that it was made by."),
            "volumeSnapshotRef": reference,
        }),
    );
    spec["x-kubernetes-validations"] = json!([kept("sourceVolumeMode")]);
    let status = json!({
        "snapshotHandle": text("What the driver calls the snapshot."),
        "creationTime": {"type": "integer", "format": "int64",
            "description": "The moment that it shows, in nanoseconds since 1970."},
        "restoreSize": {"type": "integer", "format": "int64", "minimum": 0,
            "description": "The least size of a volume that is made from it, in bytes."},
        "readyToUse": {"type": "boolean", "description": "Whether volumes can be made from it."},
        "error": error(),
        "volumeGroupSnapshotHandle": text("What the driver calls the group of snapshots that it is part of."),
    });
    let schema = json!({"spec": spec, "status": object("What storage says.", &[], status)});
    let columns = json!([
        column("ReadyToUse", "boolean", ".status.readyToUse", "Whether volumes can be made from it."),
        column(
            "RestoreSize",
            "integer",
            ".status.restoreSize",
            "The least size of a volume that is made from it."
        ),
        column(
            "DeletionPolicy",
            "string",
            ".spec.deletionPolicy",
            "What becomes of it when its VolumeSnapshot is deleted."
        ),
        column("Driver", "string", ".spec.driver", "The storage driver that has it."),
        column("VolumeSnapshotClass", "string", ".spec.volumeSnapshotClassName", "Its class."),
        column(
            "VolumeSnapshot",
            "string",
            ".spec.volumeSnapshotRef.name",
            "The VolumeSnapshot that it is bound to."
        ),
        column(
            "VolumeSnapshotNamespace",
            "string",
            ".spec.volumeSnapshotRef.namespace",
            "The namespace of that one."
        ),
        column("Age", "date", ".metadata.creationTimestamp", ""),
    ]);
    let about = "A snapshot as its storage has it.";
    let names = names("VolumeSnapshotContent", "volumesnapshotcontents", &["vsc", "vscs"]);
    definition(names, "Cluster", columns, object(about, &["spec"], schema), true)
}

fn classes() -> Value {
    let schema = json!({
        "driver": text("The storage driver that takes the snapshots."),
        "deletionPolicy": policy(),
        "parameters": {"type": "object", "additionalProperties": {"type": "string"},
            "description": "What the driver wants to know."},
    });
    let columns = json!([
        column("Driver", "string", ".driver", ""),
        column(
            "DeletionPolicy",
            "string",
            ".deletionPolicy",
            "What becomes of snapshots when their VolumeSnapshots are deleted."
        ),
        column("Age", "date", ".metadata.creationTimestamp", ""),
    ]);
    let about = "How snapshots are taken, and what becomes of them.";
    let names = names("VolumeSnapshotClass", "volumesnapshotclasses", &["vsclass", "vsclasses"]);
    definition(names, "Cluster", columns, object(about, &["driver", "deletionPolicy"], schema), false)
}
