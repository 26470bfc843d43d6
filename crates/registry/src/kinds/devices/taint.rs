//! Taints of devices, what tolerates them, and rules that lay them upon devices (kubernetes/kubernetes,
//! `pkg/apis/resource/validation/validation.go`, `ValidateDeviceTaintRule`).

use serde_json::Value;
use types::{FieldErrors, Path, dns_label, label_value};

use super::super::check::*;
use super::super::pod_spec::sources::csi_driver_name;
use super::{SPEC, STATUS, at_most, pool_name};
use crate::strategy::Strategy;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// When the taint came, if nobody says; the present moment is when its object is made.
pub(super) fn stamp(taint: &mut Value, born: &Value) {
    if let Value::Object(taint) = taint
        && !born.is_null()
    {
        taint.entry("timeAdded").or_insert_with(|| born.clone());
    }
}

pub(super) fn validate(taint: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    qualified(text(taint, "key"), &path.child("key"), errors);
    let value = text(taint, "value");
    faults(label_value(value), value, &path.child("value"), errors);
    required_one_of(taint, "effect", path, EFFECTS, errors);
}

pub(super) fn toleration(t: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let key = text(t, "key");
    if !key.is_empty() {
        qualified(key, &path.child("key"), errors);
    }
    match text(t, "operator") {
        "Exists" if !text(t, "value").is_empty() => {
            let why = "must be empty for operator `Exists`";
            errors.invalid(&path.child("value"), text(t, "value"), why);
        }
        "Exists" => {}
        "Equal" => {
            let value = text(t, "value");
            faults(label_value(value), value, &path.child("value"), errors);
        }
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    one_of(t, "effect", path, EFFECTS, errors);
}

pub(in super::super) struct DeviceTaintRule;

impl Strategy for DeviceTaintRule {
    fn prepare_create(&self, object: &mut Value) {
        let born = object["metadata"]["creationTimestamp"].clone();
        if let Some(taint) = types::at_mut(object, &["spec", "taint"]) {
            stamp(taint, &born);
        }
        if let Value::Object(map) = object {
            map.remove("status");
        }
    }

    /// Another taint came when the rule was changed, of which nobody tells the time here: who looks at it counts from
    /// when it was first seen.
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        if let Some(selector) = get(spec, "deviceSelector") {
            let path = SPEC.child("deviceSelector");
            let given = |field: &str| selector.get(field).and_then(Value::as_str);
            if let Some(driver) = given("driver") {
                csi_driver_name(driver, &path.child("driver"), errors);
            }
            if let Some(pool) = given("pool") {
                pool_name(pool, &path.child("pool"), errors);
            }
            if let Some(device) = given("device") {
                name_is(device, dns_label, &path.child("device"), errors);
            }
        }
        validate(&spec["taint"], &SPEC.child("taint"), errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        at_most(&new["status"], "conditions", 8, &STATUS, errors);
    }
}
