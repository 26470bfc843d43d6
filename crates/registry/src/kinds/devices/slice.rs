//! Slices: the devices that a driver offers (kubernetes/kubernetes,
//! `pkg/apis/resource/validation/validation.go`, `ValidateResourceSlice`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain};

use super::super::check::*;
use super::super::pod_spec::scheduling::node_selector;
use super::super::pod_spec::sources::csi_driver_name;
use super::super::pod_spec::{default_text, each};
use super::{SPEC, at_most, attribute_name, pool_name};
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        each(spec, "devices").for_each(|device| {
            each(device, "taints").for_each(|taint| default_text(taint, "effect", "NoSchedule"));
        });
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        const ONE: &str =
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        let spec = &object["spec"];
        csi_driver_name(text(spec, "driver"), &SPEC.child("driver"), errors);
        let path = SPEC.child("pool");
        let pool = &spec["pool"];
        pool_name(text(pool, "name"), &path.child("name"), errors);
        if int(pool, "resourceSliceCount") <= 0 {
            let n = int(pool, "resourceSliceCount");
            errors.invalid(&path.child("resourceSliceCount"), n, "must be greater than zero");
        }
        if int(pool, "generation") < 0 {
            let why = "must be greater than or equal to zero";
            errors.invalid(&path.child("generation"), int(pool, "generation"), why);
        }
        let mut set = Vec::new();
        match spec.get("nodeName").and_then(Value::as_str) {
            None => {}
            Some("") => errors.invalid(
                &SPEC.child("nodeName"),
                "",
                "must be either unset or set to a non-empty string",
            ),
            Some(name) => {
                set.push("`nodeName`");
                name_is(name, dns_subdomain, &SPEC.child("nodeName"), errors);
            }
        }
        if let Some(selector) = get(spec, "nodeSelector") {
            set.push("`nodeSelector`");
            let path = SPEC.child("nodeSelector");
            node_selector(selector, &path, errors);
            if count(selector, "nodeSelectorTerms") != 1 {
                let why = "must have exactly one node selector term";
                let terms = selector.get("nodeSelectorTerms").cloned().unwrap_or_default();
                errors.invalid(&path.child("nodeSelectorTerms"), terms, why);
            }
        }
        for (field, shown) in
            [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
        {
            match spec.get(field).and_then(Value::as_bool) {
                Some(true) => set.push(shown),
                Some(false) => {
                    let why = "must be either unset or set to true";
                    errors.invalid(&SPEC.child(field), false, why);
                }
                None => {}
            }
        }
        match set.len() {
            0 => errors.required(&SPEC, ONE),
            1 => {}
            _ => {
                let why = format!("{ONE}, but multiple fields are set");
                errors.invalid(&SPEC, format!("{{{}}}", set.join(", ")), &why);
            }
        }
        if has(spec, "sharedCounters") && has(spec, "devices") {
            let why = "only one of `sharedCounters` or `devices` is allowed";
            errors.invalid(&SPEC, "", why);
        }
        let special = list(spec, "devices").any(|d| count(d, "taints") + count(d, "consumesCounters") > 0);
        at_most(spec, "devices", if special { 64 } else { 128 }, &SPEC, errors);
        let path = SPEC.child("devices");
        for (i, device) in list(spec, "devices").enumerate() {
            let path = path.index(i);
            let name = text(device, "name");
            name_is(name, dns_label, &path.child("name"), errors);
            if repeats(list(spec, "devices").take(i).map(|d| text(d, "name")), name) {
                errors.duplicate(&path, name);
            }
            validate_device(device, &path, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        let (spec, before) = (&new["spec"], &old["spec"]);
        immutable(&spec["pool"], &before["pool"], "name", &SPEC.child("pool"), errors);
        immutable(spec, before, "driver", &SPEC, errors);
        immutable(spec, before, "nodeName", &SPEC, errors);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn columns(&self) -> &'static [Column] {
        table::RESOURCE_SLICE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::resource_slice_cells(object, now)
    }
}

fn validate_device(device: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let total = count(device, "attributes") + count(device, "capacity");
    if total > 32 {
        let why = "the total number of attributes and capacities must not exceed 32";
        errors.invalid(path, total, why);
    }
    let attributes = path.child("attributes");
    for (name, value) in entries(device, "attributes") {
        let path = attributes.key(name);
        attribute_name(name, &path, errors);
        let kinds = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
        match kinds.iter().filter(|k| has(value, k)).count() {
            0 => errors.invalid(&path, "", "exactly one value must be specified"),
            1 => {}
            _ => errors.invalid(&path, value.clone(), "exactly one value must be specified"),
        }
        for field in ["string", "version"] {
            if text(value, field).len() > 64 {
                errors.too_long(&path.child(field), 64);
            }
        }
    }
    let capacity = path.child("capacity");
    for (name, _) in entries(device, "capacity") {
        attribute_name(name, &capacity.key(name), errors);
    }
    let taints = path.child("taints");
    at_most(device, "taints", 16, path, errors);
    for (i, taint) in list(device, "taints").enumerate() {
        let path = taints.index(i);
        qualified(text(taint, "key"), &path.child("key"), errors);
        let value = text(taint, "value");
        faults(types::label_value(value), value, &path.child("value"), errors);
        required_one_of(taint, "effect", &path, &["NoExecute", "NoSchedule", "None"], errors);
    }
}
