//! Slices: the devices that a driver offers (kubernetes/kubernetes,
//! `pkg/apis/resource/validation/validation.go`, `ValidateResourceSlice`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, dns_label, dns_subdomain};

use super::super::check::*;
use super::super::pod_spec::each;
use super::super::pod_spec::scheduling::node_selector;
use super::super::pod_spec::sources::csi_driver_name;
use super::{SPEC, at_most, capacity, device, pool_name};
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn prepare_create(&self, object: &mut Value) {
        drop_disabled(object);
        let born = object["metadata"]["creationTimestamp"].clone();
        for device in devices(object) {
            each(device, "taints").for_each(|taint| super::taint::stamp(taint, &born));
        }
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        drop_disabled(new);
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
            device::validate(device, flag(spec, "perDeviceNodeSelection"), &path, errors);
        }
        let sets = SPEC.child("sharedCounters");
        at_most(spec, "sharedCounters", 8, &SPEC, errors);
        for (i, set) in list(spec, "sharedCounters").enumerate() {
            let path = sets.index(i);
            let name = text(set, "name");
            required_name(set, "name", dns_label, &path, errors);
            capacity::counters(set, 32, &path, errors);
            if repeats(list(spec, "sharedCounters").take(i).map(|s| text(s, "name")), name) {
                errors.duplicate(&path, name);
            }
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

fn devices(slice: &mut Value) -> impl Iterator<Item = &mut Value> {
    let devices = types::at_mut(slice, &["spec", "devices"]).and_then(Value::as_array_mut);
    devices.into_iter().flatten()
}

/// What belongs to features that are off in this version (upstream: `dropDisabledFields`).
fn drop_disabled(slice: &mut Value) {
    for device in devices(slice) {
        if let Some(device) = device.as_object_mut() {
            device.remove("nodeAllocatableResourceMappings");
        }
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in attributes.into_iter().flat_map(|map| map.values_mut()) {
            if let Some(attribute) = attribute.as_object_mut() {
                attribute
                    .retain(|name, _| !matches!(name.as_str(), "bools" | "ints" | "strings" | "versions"));
            }
        }
    }
}
