//! Sources that pods' volumes and PersistentVolumes have in common
//! (`pkg/apis/core/validation/validation.go`, `validate…VolumeSource`).

use serde_json::Value;
use types::{FieldErrors, Path, at, dns_label, dns_subdomain};

use super::super::check::*;

/// Where a source stands.
pub(crate) struct Source<'a> {
    /// The volume's name.
    pub(crate) name: &'a str,
    /// The pod's name, if it is no template.
    pub(crate) pod: &'a str,
    /// Whether it is a pod's own.
    pub(crate) is_pod: bool,
    /// Whether it is a PersistentVolume's.
    pub(crate) persistent: bool,
}

pub(crate) const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

pub(crate) fn host_path(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    match text(v, "path") {
        "" => errors.required(&path.child("path"), ""),
        place => {
            no_backsteps(place, &path.child("path"), errors);
            one_of(v, "type", path, TYPES, errors);
        }
    }
}

pub(crate) fn local(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    match text(v, "path") {
        "" => errors.required(&path.child("path"), ""),
        place => no_backsteps(place, &path.child("path"), errors),
    }
}

fn partition(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if !(0..=255).contains(&int(v, "partition")) {
        errors.invalid(&path.child("partition"), int(v, "partition"), "must be between 1 and 255, inclusive");
    }
}

pub(crate) fn gce_disk(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "pdName", path, errors);
    partition(v, path, errors);
}

pub(crate) fn aws_disk(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "volumeID", path, errors);
    partition(v, path, errors);
}

pub(crate) fn nfs(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "server", path, errors);
    required(v, "path", path, errors);
    if !text(v, "path").starts_with('/') {
        errors.invalid(&path.child("path"), text(v, "path"), "must be an absolute path");
    }
}

fn is_iscsi_name(name: &str) -> bool {
    let alnum = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric());
    match name.get(..3) {
        Some("iqn") => {
            let date = |s: &str| {
                let b = s.as_bytes();
                b.len() == 7
                    && b[4] == b'-'
                    && b.iter().enumerate().all(|(i, c)| i == 4 || c.is_ascii_digit())
            };
            name.strip_prefix("iqn.")
                .and_then(|rest| rest.split_once('.'))
                .filter(|(when, _)| date(when))
                .and_then(|(_, rest)| rest.split_once(':'))
                .is_some_and(|(domain, id)| {
                    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
                    let odd = |c: char| ",;*&$|".contains(c) || c.is_whitespace();
                    !domain.is_empty() && domain.bytes().all(legal) && !id.is_empty() && !id.contains(odd)
                })
        }
        Some("eui") => name.len() == 20 && alnum(name.get(4..).unwrap_or("-")),
        Some("naa") => name.len() == 36 && alnum(name.get(4..).unwrap_or("-")),
        _ => false,
    }
}

fn iscsi_name(name: &str, persistent: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let known = ["iqn", "eui", "naa"].iter().any(|p| name.starts_with(p));
    if !known && !persistent {
        errors.invalid(path, name, "must be valid format starting with iqn, eui, or naa");
    } else if !is_iscsi_name(name) {
        errors.invalid(path, name, "must be valid format");
    }
}

pub(crate) fn iscsi(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "targetPortal", path, errors);
    let portal = text(v, "targetPortal");
    if source.persistent && has(v, "initiatorName") && source.name.len() + 1 + portal.len() > 64 {
        errors.invalid(&path.child("targetportal"), portal, ISCSI_TOO_LONG);
    }
    match text(v, "iqn") {
        "" => errors.required(&path.child("iqn"), ""),
        name => iscsi_name(name, source.persistent, &path.child("iqn"), errors),
    }
    in_range(int(v, "lun"), 0, 255, &path.child("lun"), errors);
    if (flag(v, "chapAuthDiscovery") || flag(v, "chapAuthSession")) && !has(v, "secretRef") {
        errors.required(&path.child("secretRef"), "");
    }
    if let Some(secret) = get(v, "secretRef").filter(|_| source.persistent) {
        required(secret, "name", &path.child("secretRef"), errors);
    }
    if let Some(name) = v.get("initiatorName").and_then(Value::as_str) {
        iscsi_name(name, source.persistent, &path.child("initiatorname"), errors);
    }
}

pub(crate) fn glusterfs(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "endpoints", path, errors);
    required(v, "path", path, errors);
    if let Some(namespace) = v.get("endpointsNamespace").and_then(Value::as_str).filter(|_| source.persistent)
    {
        let path = path.child("endpointsNamespace");
        match namespace {
            "" => errors.invalid(
                &path,
                "",
                "if the endpointnamespace is set, it must be a valid namespace name",
            ),
            name => name_is(name, dns_label, &path, errors),
        }
    }
}

pub(crate) fn flocker(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    match (text(v, "datasetName").is_empty(), text(v, "datasetUUID").is_empty()) {
        (true, true) => errors.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(path, "resource", why);
        }
        _ => {}
    }
    if text(v, "datasetName").contains('/') {
        errors.invalid(&path.child("datasetName"), text(v, "datasetName"), "must not contain '/'");
    }
}

pub(crate) fn rbd(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(v, "monitors") == 0 {
        errors.required(&path.child("monitors"), "");
    }
    required(v, "image", path, errors);
}

pub(crate) fn cephfs(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(v, "monitors") == 0 {
        errors.required(&path.child("monitors"), "");
    }
}

fn secret_ref(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(secret) = get(v, "secretRef") else { return };
    let path = path.child("secretRef");
    required(secret, "name", &path, errors);
    if source.persistent {
        required(secret, "namespace", &path, errors);
    }
}

pub(crate) fn cinder(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "volumeID", path, errors);
    secret_ref(v, source, path, errors);
}

pub(crate) fn quobyte(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(v, "registry");
    if registry.is_empty() {
        errors.required(&path.child("registry"), PAIRS);
    } else if text(v, "tenant").len() >= 65 {
        errors.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        let is_pair = |pair: &str| {
            pair.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.starts_with('['))
        };
        for _ in registry.split(',').filter(|pair| !is_pair(pair)) {
            errors.invalid(&path.child("registry"), registry, PAIRS);
        }
    }
    required(v, "volume", path, errors);
}

pub(crate) fn fc(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let (names, ids) = (count(v, "targetWWNs"), count(v, "wwids"));
    if names == 0 && ids == 0 {
        let why = "must specify either targetWWNs or wwids, but not both";
        errors.required(&path.child("targetWWNs"), why);
    }
    if names > 0 && ids > 0 {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(&path.child("targetWWNs"), v["targetWWNs"].clone(), why);
    }
    if names > 0 {
        match v.get("lun").and_then(Value::as_i64) {
            None => errors.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) => in_range(lun, 0, 255, &path.child("lun"), errors),
        }
    }
}

pub(crate) fn flex_volume(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "driver", path, errors);
    for (key, _) in entries(v, "options") {
        let domain = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&path.child("options").key(key), key, why);
        }
    }
}

pub(crate) fn azure_file(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "secretName", path, errors);
    required(v, "shareName", path, errors);
    if source.persistent && has(v, "secretNamespace") {
        required(v, "secretNamespace", path, errors);
    }
}

pub(crate) fn vsphere(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "volumePath", path, errors);
}

pub(crate) fn photon(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "pdID", path, errors);
}

pub(crate) fn portworx(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "volumeID", path, errors);
}

pub(crate) fn azure_disk(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "diskName", path, errors);
    required(v, "diskURI", path, errors);
    one_of(v, "cachingMode", path, &["None", "ReadOnly", "ReadWrite"], errors);
    one_of(v, "kind", path, &["Dedicated", "Managed", "Shared"], errors);
    let uri = text(v, "diskURI");
    match at(v, &["kind"]).and_then(Value::as_str) {
        Some("Managed") if !uri.starts_with("/subscriptions/") => errors.not_supported(
            &path.child("diskURI"),
            uri,
            &[
                "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
            ],
        ),
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => errors.not_supported(
            &path.child("diskURI"),
            uri,
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        ),
        _ => {}
    }
}

pub(crate) fn storage_os(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required_name(v, "volumeName", dns_label, path, errors);
    optional_name(v, "volumeNamespace", dns_label, path, errors);
    secret_ref(v, source, path, errors);
}

pub(crate) fn scale_io(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in ["gateway", "system", "volumeName"] {
        required(v, field, path, errors);
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    if let Some(fault) = dns_subdomain(&name.to_lowercase()) {
        errors.invalid(path, name, &fault);
    }
}

/// A PersistentVolume's CSI source.
pub(crate) fn csi_volume(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    csi_driver_name(text(v, "driver"), &path.child("driver"), errors);
    required(v, "volumeHandle", path, errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        if let Some(secret) = get(v, field) {
            secret_reference(secret, &path.child(field), errors);
        }
    }
}
