//! What works but should be said of volumes and claims (kubernetes/kubernetes,
//! `pkg/api/persistentvolume/util.go`, `pkg/api/persistentvolumeclaim/util.go`, `pkg/api/storage/util.go`).

use serde_json::Value;
use types::{Path, at};

use super::check::*;
use super::pod_spec::warnings::node_selector_terms;

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn volume(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = &object["spec"];
    if annotation(object, BETA_CLASS).is_some() {
        warnings.push(format!(
            "metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    if annotation(object, "volume.beta.kubernetes.io/mount-options").is_some() {
        warnings.push("metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute instead".into());
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
    }
    if let Some(required) = at(spec, &["nodeAffinity", "required"]) {
        let root = Path::new("spec");
        let path = root.child("nodeAffinity");
        let path = path.child("required");
        node_selector_terms(required, &path.child("nodeSelectorTerms"), &mut warnings);
    }
    for (field, text) in [
        ("photonPersistentDisk", "spec.photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "spec.scaleIO: deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "spec.storageOS: deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "spec.glusterfs: deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "spec.rbd: deprecated in v1.28, non-functional in v1.31+"),
        ("cephfs", "spec.cephfs: deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if has(spec, field) {
            warnings.push(text.into());
        }
    }
    warnings
}

pub(super) fn claim(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if annotation(object, BETA_CLASS).is_some() {
        warnings.push(format!(
            "metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    claim_spec(&object["spec"], &Path::new("spec"), &mut warnings);
    warnings
}

pub(super) fn claim_spec(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for kind in ["requests", "limits"] {
        if let Some(size) = at(spec, &["resources", kind, "storage"])
            && !quantity(size).is_whole()
        {
            let path = path.child("resources");
            let path = path.child(kind);
            let size = size.as_str().unwrap_or_default();
            warnings.push(format!(
                "{}: fractional byte value {size:?} is invalid, must be an integer",
                path.key("storage")
            ));
        }
    }
}

/// Where a class's volumes may be: labels with old names.
pub(super) fn class(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, term) in list(object, "allowedTopologies").enumerate() {
        for (j, e) in list(term, "matchLabelExpressions").enumerate() {
            if let Some(message) = super::pod_spec::warnings::deprecated_label(text(e, "key")) {
                warnings.push(format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key: {message}"));
            }
        }
    }
    warnings
}
