//! The kinds of `storage.k8s.io` (kubernetes/kubernetes, `pkg/apis/storage/validation/validation.go`,
//! `pkg/apis/storage/v1/defaults.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_subdomain, ensure_object, qualified_name, set_default};

use super::check::*;
use super::pod_spec::sources::csi_driver_name;
use super::storage::validate_volume_spec;
use super::storage_warnings;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

fn validate_parameters(object: &Value, may_be_empty: bool, errors: &mut FieldErrors) {
    let path = Path::new("parameters");
    if count(object, "parameters") > 512 {
        return errors.too_long(&path, 512);
    }
    let mut size = 0;
    for (key, value) in entries(object, "parameters") {
        if key.is_empty() {
            errors.invalid(&path, "", "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > 256 * 1024 {
        errors.too_long(&path, 256 * 1024);
    }
    if !may_be_empty && count(object, "parameters") == 0 {
        errors.required(&path, "must contain at least one key/value pair");
    }
}

fn forbid_changes(new: &Value, old: &Value, fields: &[&str], errors: &mut FieldErrors) {
    for field in fields {
        if !same_field(new, old, field) {
            errors.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
        }
    }
}

pub(super) struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        set_default(object, "reclaimPolicy", "Delete");
        set_default(object, "volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("provisioner");
        match text(object, "provisioner") {
            "" => errors.required(&path, ""),
            name => faults(qualified_name(&name.to_lowercase()), name, &path, errors),
        }
        validate_parameters(object, true, errors);
        let policy = text(object, "reclaimPolicy");
        if !matches!(policy, "" | "Delete" | "Retain") {
            errors.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let mode = text(object, "volumeBindingMode");
        if !matches!(mode, "Immediate" | "WaitForFirstConsumer") {
            errors.not_supported(
                &Path::new("volumeBindingMode"),
                mode,
                &["Immediate", "WaitForFirstConsumer"],
            );
        }
        topologies(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        forbid_changes(new, old, &["parameters", "provisioner", "reclaimPolicy"], errors);
        if new["volumeBindingMode"] != old["volumeBindingMode"] {
            errors.immutable(&Path::new("volumeBindingMode"), &new["volumeBindingMode"]);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        storage_warnings::class(object)
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

fn topologies(object: &Value, errors: &mut FieldErrors) {
    let path = Path::new("allowedTopologies");
    for (i, term) in list(object, "allowedTopologies").enumerate() {
        let path = path.index(i);
        let path = path.child("matchLabelExpressions");
        for (j, e) in list(term, "matchLabelExpressions").enumerate() {
            let here = path.index(j);
            let values = here.child("values");
            if count(e, "values") == 0 {
                errors.required(&values, "");
            }
            for (k, value) in texts(e, "values").enumerate() {
                if repeats(texts(e, "values").take(k), value) {
                    errors.duplicate(&values.index(k), value);
                }
            }
            qualified(text(e, "key"), &here.child("key"), errors);
            let before = list(term, "matchLabelExpressions").take(j).map(|e| text(e, "key"));
            if repeats(before, text(e, "key")) {
                errors.duplicate(&here.child("key"), text(e, "key"));
            }
        }
        let mut before = list(object, "allowedTopologies").take(i);
        if before.any(|other| same(Some(other), Some(term))) {
            errors.duplicate(&path, "");
        }
    }
}

pub(super) struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"attached": false});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        let spec = &object["spec"];
        csi_driver_name(text(spec, "attacher"), &SPEC.child("attacher"), errors);
        let path = SPEC.child("source");
        let source = &spec["source"];
        let name = source.get("persistentVolumeName").and_then(Value::as_str);
        match (get(source, "inlineVolumeSpec"), name) {
            (None, None) => errors.required(&path, ONE),
            (Some(_), Some(_)) => errors.forbidden(&path, ONE),
            (None, Some("")) => errors
                .required(&path.child("persistentVolumeName"), "must specify non empty persistentVolumeName"),
            (None, Some(name)) => {
                name_is(name, dns_subdomain, &path.child("persistentVolumeName"), errors);
            }
            (Some(inline), None) => {
                validate_volume_spec(inline, "", true, &path.child("inlineVolumeSpec"), errors);
            }
        }
        name_is(text(spec, "nodeName"), dns_subdomain, &SPEC.child("nodeName"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if !same_field(new, old, "spec") {
            errors.invalid(&SPEC, new["spec"].clone(), IMMUTABLE);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::VOLUME_ATTACHMENT
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::volume_attachment_cells(object, now)
    }
}

pub(super) struct CsiDriver;

impl Strategy for CsiDriver {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            set_default(spec, field, false);
        }
        set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if count(spec, "volumeLifecycleModes") == 0 {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        csi_driver_name(text(&object["metadata"], "name"), &Path::new("name"), errors);
        let spec = &object["spec"];
        one_of(spec, "fsGroupPolicy", &SPEC, &["File", "None", "ReadWriteOnceWithFSType"], errors);
        let path = SPEC.child("tokenRequests");
        for (i, request) in list(spec, "tokenRequests").enumerate() {
            let path = path.index(i);
            let audience = text(request, "audience");
            if repeats(list(spec, "tokenRequests").take(i).map(|r| text(r, "audience")), audience) {
                errors.duplicate(&path.child("audience"), audience);
            }
            let Some(seconds) = request.get("expirationSeconds").and_then(Value::as_i64) else { continue };
            let path = path.child("expirationSeconds");
            if seconds < 600 {
                errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
            }
        }
        let path = SPEC.child("volumeLifecycleModes");
        for mode in texts(spec, "volumeLifecycleModes") {
            if !["Ephemeral", "Persistent"].contains(&mode) {
                errors.not_supported(&path, mode, &["Ephemeral", "Persistent"]);
            }
        }
        let period = spec.get("nodeAllocatableUpdatePeriodSeconds").and_then(Value::as_i64);
        if let Some(seconds) = period.filter(|s| *s < 10) {
            let why = "must be greater than or equal to 10 seconds";
            errors.invalid(&SPEC.child("nodeAllocatableUpdatePeriodSeconds"), seconds, why);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if new["spec"]["attachRequired"] != old["spec"]["attachRequired"] {
            errors.immutable(&SPEC.child("attachedRequired"), &new["spec"]["attachRequired"]);
        }
        immutable(&new["spec"], &old["spec"], "volumeLifecycleModes", &SPEC, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::CSI_DRIVER
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::csi_driver_cells(object, now)
    }
}

pub(super) struct CsiNode;

impl Strategy for CsiNode {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let path = SPEC.child("drivers");
        for (i, driver) in list(spec, "drivers").enumerate() {
            let path = path.index(i);
            let name = text(driver, "name");
            csi_driver_name(name, &path.child("name"), errors);
            let id = text(driver, "nodeID");
            if id.is_empty() {
                errors.required(&path.child("nodeID"), "");
            } else if id.len() > 192 {
                errors.invalid(&path.child("nodeID"), id, "must be 192 characters or less");
            }
            if let Some(allocatable) = get(driver, "allocatable") {
                not_negative(allocatable, "count", &path.child("allocatable"), errors);
            }
            let path_of_keys = path.child("topologyKeys");
            for (k, key) in texts(driver, "topologyKeys").enumerate() {
                if key.is_empty() {
                    errors.required(&path_of_keys, "");
                } else {
                    qualified(key, &path_of_keys, errors);
                }
                if repeats(texts(driver, "topologyKeys").take(k), key) {
                    errors.duplicate(&path_of_keys, key);
                }
            }
            if repeats(list(spec, "drivers").take(i).map(|d| text(d, "name")), name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        for before in list(&old["spec"], "drivers") {
            let named = |d: &&Value| text(d, "name") == text(before, "name");
            // How much fits on the node may be learned anew.
            let differs =
                |d: &&Value| ["nodeID", "topologyKeys"].iter().any(|field| !same_field(d, before, field));
            for driver in list(&new["spec"], "drivers").filter(named).filter(differs) {
                errors.invalid(&Path::new("CSINodeDriver"), driver.clone(), IMMUTABLE);
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::CSI_NODE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::csi_node_cells(object, now)
    }
}

pub(super) struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        label_selector(get(object, "nodeTopology"), &Path::new("nodeTopology"), errors);
        let class = text(object, "storageClassName");
        name_is(class, dns_subdomain, &Path::new("storageClassName"), errors);
        for field in ["capacity", "maximumVolumeSize"] {
            if let Some(size) = get(object, field).filter(|s| quantity(s).is_negative()) {
                errors.invalid(&Path::new(field), size.clone(), NEGATIVE);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        for field in ["nodeTopology", "storageClassName"] {
            if !same_field(new, old, field) {
                errors.immutable(&Path::new(field), &new[field]);
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::CSI_STORAGE_CAPACITY
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::csi_storage_capacity_cells(object, now)
    }
}

pub(super) struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        csi_driver_name(text(object, "driverName"), &Path::new("driverName"), errors);
        validate_parameters(object, false, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        forbid_changes(new, old, &["driverName", "parameters"], errors);
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::VOLUME_ATTRIBUTES_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::volume_attributes_class_cells(object, now)
    }
}
