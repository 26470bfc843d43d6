//! Volumes, claims and classes.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, ensure_object, set_default};

use super::container::{list, one_of};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn validate_access_modes(object: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("accessModes");
    if list(&object["spec"], "accessModes").next().is_none() {
        errors.required(&path, "at least 1 access mode is required");
    }
    for mode in
        list(&object["spec"], "accessModes").filter_map(Value::as_str).filter(|m| !ACCESS_MODES.contains(m))
    {
        errors.not_supported(&path, mode, &ACCESS_MODES);
    }
}

pub(super) struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
        set_default(spec, "volumeMode", "Filesystem");
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_access_modes(object, errors);
        if at(object, &["spec", "capacity", "storage"]).is_none() {
            errors.required(&SPEC.child("capacity"), "");
        }
        one_of(
            &object["spec"],
            "persistentVolumeReclaimPolicy",
            &SPEC,
            &["Delete", "Recycle", "Retain"],
            errors,
        );
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::PERSISTENT_VOLUME
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::persistent_volume_cells(object, now)
    }
}

pub(super) struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        set_default(ensure_object(object, "spec"), "volumeMode", "Filesystem");
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_access_modes(object, errors);
        if at(object, &["spec", "resources", "requests", "storage"]).is_none() {
            errors.required(&SPEC.child("resources").key("storage"), "");
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::PERSISTENT_VOLUME_CLAIM
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::persistent_volume_claim_cells(object, now)
    }
}

pub(super) struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        set_default(object, "reclaimPolicy", "Delete");
        set_default(object, "volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        if types::str_at(object, &["provisioner"]).is_none() {
            errors.required(&Path::new("provisioner"), "");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
            if new[field] != old[field] {
                errors.forbidden(&Path::new(field), "updates to this field are forbidden.");
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::STORAGE_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::storage_class_cells(object, now)
    }
}
