//! What containers mount (`ValidateVolumeMounts`, `ValidateVolumeDevices`).

use serde_json::Value;
use types::{FieldErrors, Path, at};

use super::super::check::*;
use super::PodContext;

pub(super) fn validate(container: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    mounts(container, pod, &path.child("volumeMounts"), errors);
    devices(container, pod, &path.child("volumeDevices"), errors);
}

fn mounts(container: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, mount) in list(container, "volumeMounts").enumerate() {
        let here = path.index(i);
        let (name, place) = (text(mount, "name"), text(mount, "mountPath"));
        let (sub, expr) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        required(mount, "name", &here, errors);
        let volume = pod.volumes.find(name);
        if volume.is_none() {
            errors.not_found(&here.child("name"), name);
        }
        required(mount, "mountPath", &here, errors);
        if repeats(list(container, "volumeMounts").take(i).map(|m| text(m, "mountPath")), place) {
            errors.invalid(&here.child("mountPath"), place, "must be unique");
        }
        let mut devices = list(container, "volumeDevices");
        if devices.any(|d| text(d, "name") == name) {
            errors.invalid(&here.child("name"), name, "must not already exist in volumeDevices");
        }
        if list(container, "volumeDevices").any(|d| text(d, "devicePath") == place) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(&here.child("mountPath"), place, why);
        }
        // The paths below this point lack the index, as upstream's do.
        if !sub.is_empty() {
            descending_path(sub, &path.child("subPath"), errors);
        }
        if !expr.is_empty() {
            if !sub.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(&here.child("subPathExpr"), expr, why);
            }
            descending_path(expr, &path.child("subPathExpr"), errors);
        }
        propagation(mount, container, path, errors);
        recursive_read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
}

fn propagation(mount: &Value, container: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    one_of(mount, "mountPropagation", path, &["Bidirectional", "HostToContainer", "None"], errors);
    let privileged = at(container, &["securityContext", "privileged"]) == Some(&Value::Bool(true));
    if text(mount, "mountPropagation") == "Bidirectional" && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(&path.child("mountPropagation"), why);
    }
}

fn recursive_read_only(mount: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match mount.get("recursiveReadOnly").and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(path, why);
            }
        }
        Some(other) => errors.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, device) in list(container, "volumeDevices").enumerate() {
        let path = path.index(i);
        let (name, place) = (text(device, "name"), text(device, "devicePath"));
        let before = || list(container, "volumeDevices").take(i);
        required(device, "name", &path, errors);
        if !name.is_empty() && repeats(before().map(|d| text(d, "name")), name) {
            errors.invalid(&path.child("name"), name, "must be unique");
        }
        match pod.volumes.find(name) {
            None => errors.not_found(&path.child("name"), name),
            Some(Some(v)) if !has(v, "persistentVolumeClaim") && !has(v, "ephemeral") => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&path.child("name"), name, why);
            }
            Some(_) => {}
        }
        required(device, "devicePath", &path, errors);
        if repeats(before().map(|d| text(d, "devicePath")), place) {
            errors.invalid(&path.child("devicePath"), place, "must be unique");
        }
        if place.split('/').any(|part| part == "..") {
            errors.invalid(&path.child("devicePath"), place, "can not contain backsteps ('..')");
        }
        if list(container, "volumeMounts").any(|m| text(m, "name") == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeMounts");
        }
        if list(container, "volumeMounts").any(|m| text(m, "mountPath") == place) {
            let why = "must not already exist as a path in volumeMounts";
            errors.invalid(&path.child("devicePath"), place, why);
        }
    }
}
