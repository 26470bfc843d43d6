//! Volumes of pods (`ValidateVolumes`, `validateVolumeSource`).

use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain};

use super::super::check::*;
use super::super::storage::validate_claim_spec;
use super::sources::{self, Source};
use super::{env, projected};

/// The volumes of a pod that can be mounted, by name.
#[derive(Default)]
pub(crate) struct Volumes<'a>(Vec<(&'a str, Option<&'a Value>)>);

impl<'a> Volumes<'a> {
    /// The volume of that name.
    pub(crate) fn find(&self, name: &str) -> Option<Option<&'a Value>> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// Adds a claim that will be there once the pod is.
    pub(crate) fn add_claim(&mut self, name: &'a str) {
        self.0.push((name, None));
    }
}

type Check = fn(&Value, &Source<'_>, &Path<'_>, &mut FieldErrors);

/// Each kind of source in upstream's order of looking at them: its field, what errors call it, its rules.
const SOURCES: &[(&str, &str, Check)] = &[
    ("emptyDir", "emptyDir", empty_dir),
    ("hostPath", "hostPath", sources::host_path),
    ("gitRepo", "gitRepo", git_repo),
    ("gcePersistentDisk", "persistentDisk", sources::gce_disk),
    ("awsElasticBlockStore", "awsElasticBlockStore", sources::aws_disk),
    ("secret", "secret", secret),
    ("nfs", "nfs", sources::nfs),
    ("iscsi", "iscsi", sources::iscsi),
    ("glusterfs", "glusterfs", sources::glusterfs),
    ("flocker", "flocker", sources::flocker),
    ("persistentVolumeClaim", "persistentVolumeClaim", claim),
    ("rbd", "rbd", sources::rbd),
    ("cinder", "cinder", sources::cinder),
    ("cephfs", "cephfs", sources::cephfs),
    ("quobyte", "quobyte", sources::quobyte),
    ("downwardAPI", "downwardAPI", downward_api),
    ("fc", "fc", sources::fc),
    ("flexVolume", "flexVolume", sources::flex_volume),
    ("configMap", "configMap", config_map),
    ("azureFile", "azureFile", sources::azure_file),
    ("vsphereVolume", "vsphereVolume", sources::vsphere),
    ("photonPersistentDisk", "photonPersistentDisk", sources::photon),
    ("portworxVolume", "portworxVolume", sources::portworx),
    ("azureDisk", "azureDisk", sources::azure_disk),
    ("storageos", "storageos", sources::storage_os),
    ("projected", "projected", projected::validate),
    ("scaleIO", "scaleIO", sources::scale_io),
    ("csi", "csi", csi),
    ("ephemeral", "ephemeral", ephemeral),
    ("image", "image", image),
];

/// Checks a pod's volumes; `pod` is its name if it is no template.
pub(super) fn validate<'a>(
    spec: &'a Value,
    pod: &str,
    is_pod: bool,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) -> Volumes<'a> {
    let path = path.child("volumes");
    let mut volumes = Volumes::default();
    for (i, volume) in list(spec, "volumes").enumerate() {
        let path = path.index(i);
        let before = errors.len();
        let name = text(volume, "name");
        validate_source(volume, &Source { name, pod, is_pod, persistent: false }, &path, errors);
        required_name(volume, "name", dns_label, &path, errors);
        if volumes.find(name).is_some() {
            errors.duplicate(&path.child("name"), name);
        }
        if errors.len() == before {
            volumes.0.push((name, Some(volume)));
        }
        if let Some(claim) = get(volume, "persistentVolumeClaim").filter(|_| !pod.is_empty()) {
            let claim = text(claim, "claimName");
            let made = |v: &Value| {
                has(v, "ephemeral")
                    && claim.strip_prefix(pod).and_then(|c| c.strip_prefix('-')) == Some(text(v, "name"))
            };
            if list(spec, "volumes").any(made) {
                let why = "must not reference a PVC that gets created for an ephemeral volume";
                errors.invalid(&path.child("persistentVolumeClaim").child("claimName"), claim, why);
            }
        }
    }
    volumes
}

fn validate_source(volume: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    one_source(volume, SOURCES, source, path, errors);
    if let Some(iscsi) = get(volume, "iscsi")
        && has(iscsi, "initiatorName")
        && source.name.len() + 1 + text(iscsi, "targetPortal").len() > 64
    {
        errors.invalid(&path.child("name"), source.name, sources::ISCSI_TOO_LONG);
    }
}

/// Checks the one source that there must be.
pub(crate) fn one_source(
    value: &Value,
    kinds: &[(&str, &str, Check)],
    source: &Source<'_>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let mut found = false;
    for (field, shown, check) in kinds {
        let Some(given) = get(value, field) else { continue };
        if found {
            // Two of upstream's names are odd here.
            let shown = match *field {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                other => other,
            };
            errors.forbidden(&path.child(shown), "may not specify more than 1 volume type");
        } else {
            found = true;
            check(given, source, &path.child(shown), errors);
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn empty_dir(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    if get(v, "sizeLimit").is_some_and(|limit| quantity(limit).is_negative()) {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn git_repo(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "repository", path, errors);
    descending_path(text(v, "directory"), &path.child("directory"), errors);
}

fn secret(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "secretName", path, errors);
    file_mode(v, "defaultMode", path, errors);
    keys_to_paths(v, path, errors);
}

fn config_map(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "name", path, errors);
    file_mode(v, "defaultMode", path, errors);
    keys_to_paths(v, path, errors);
}

/// A file's permission bits.
pub(super) fn file_mode(v: &Value, field: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let mode = int(v, field);
    if !(0..=0o777).contains(&mode) {
        errors.invalid(
            &path.child(field),
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

pub(super) fn keys_to_paths(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("items");
    for (i, item) in list(v, "items").enumerate() {
        let path = path.index(i);
        required(item, "key", &path, errors);
        required(item, "path", &path, errors);
        local_path(text(item, "path"), &path.child("path"), errors);
        file_mode(item, "mode", &path, errors);
    }
}

fn claim(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required(v, "claimName", path, errors);
}

fn downward_api(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    file_mode(v, "defaultMode", path, errors);
    for file in list(v, "items") {
        downward_file(file, path, errors);
    }
}

/// One file of the downward API. Its errors name the volume, not the file, as upstream's do.
pub(super) fn downward_file(file: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const FIELDS: &[&str] =
        &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    required(file, "path", path, errors);
    local_path(text(file, "path"), &path.child("path"), errors);
    match (get(file, "fieldRef"), get(file, "resourceFieldRef")) {
        (Some(field), other) => {
            env::field_ref(field, FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", why);
            }
        }
        (None, Some(resource)) => env::resource_ref(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    file_mode(file, "mode", path, errors);
}

fn csi(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    sources::csi_driver_name(text(v, "driver"), &path.child("driver"), errors);
    if let Some(secret) = get(v, "nodePublishSecretRef") {
        match text(secret, "name") {
            "" => errors.required(&path.child("nodePublishSecretRef").child("name"), ""),
            name => name_is(name, dns_subdomain, &path.child("name"), errors),
        }
    }
}

fn ephemeral(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    match get(v, "volumeClaimTemplate") {
        None => errors.required(&path.child("volumeClaimTemplate"), ""),
        Some(template) => {
            let path = path.child("volumeClaimTemplate");
            template_metadata(template, &path.child("metadata"), errors);
            let empty = Value::Object(Default::default());
            validate_claim_spec(get(template, "spec").unwrap_or(&empty), &path.child("spec"), errors);
        }
    }
    if !source.pod.is_empty() && !source.name.is_empty() {
        let name = format!("{}-{}", source.pod, source.name);
        if let Some(fault) = dns_subdomain(&name) {
            errors.invalid(&path.child("name"), source.name, &format!("PVC name {name:?}: {fault}"));
        }
    }
}

/// Metadata of a template may hold labels and annotations only.
pub(in super::super) fn template_metadata(template: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(meta) = get(template, "metadata") else { return };
    types::validate_annotations(meta.get("annotations"), &path.child("annotations"), errors);
    types::validate_labels(meta.get("labels"), &path.child("labels"), errors);
    for (field, value) in meta.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "annotations" | "labels") && !same(Some(value), None) {
            errors.forbidden(&path.child(field), "cannot be set");
        }
    }
}

fn image(v: &Value, source: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    if source.is_pod {
        required(v, "reference", path, errors);
    }
    required_one_of(v, "pullPolicy", path, &["Always", "IfNotPresent", "Never"], errors);
}
