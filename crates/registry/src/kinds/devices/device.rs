//! One device of a slice (kubernetes/kubernetes, `pkg/apis/resource/validation/validation.go`, `validateDevice`).

use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain};

use super::super::check::*;
use super::super::pod_spec::scheduling::node_selector;
use super::{at_most, attribute_name, capacity, taint};

/// How many attributes and capacities there may be, and how long an attribute's value.
const MOST: usize = 32;
const LONGEST: usize = 64;

pub(super) fn validate(device: &Value, own_nodes: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let total = count(device, "attributes") + count(device, "capacity");
    if total > MOST {
        let why = "the total number of attributes and capacities must not exceed 32";
        errors.invalid(path, total, why);
    }
    let attributes = path.child("attributes");
    for (name, value) in entries(device, "attributes") {
        let path = attributes.key(name);
        attribute_name(name, &path, errors);
        attribute(value, &path, errors);
    }
    let shared = flag(device, "allowMultipleAllocations");
    let capacities = path.child("capacity");
    for (name, value) in entries(device, "capacity") {
        let path = capacities.key(name);
        attribute_name(name, &path, errors);
        capacity::validate(value, shared, &path, errors);
    }
    at_most(device, "taints", 16, path, errors);
    let taints = path.child("taints");
    for (i, one) in list(device, "taints").enumerate() {
        taint::validate(one, &taints.index(i), errors);
    }
    at_most(device, "consumesCounters", 2, path, errors);
    let consumes = path.child("consumesCounters");
    for (i, used) in list(device, "consumesCounters").enumerate() {
        let path = consumes.index(i);
        let set = text(used, "counterSet");
        required_name(used, "counterSet", dns_label, &path, errors);
        capacity::counters(used, 32, &path, errors);
        if repeats(list(device, "consumesCounters").take(i).map(|u| text(u, "counterSet")), set) {
            errors.duplicate(&path, set);
        }
    }
    nodes(device, own_nodes, path, errors);
    binding(device, path, errors);
}

fn attribute(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let kinds = ["bool", "int", "string", "version"];
    match kinds.iter().filter(|kind| has(value, kind)).count() {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(path, value.clone(), "exactly one value must be specified"),
    }
    for field in ["string", "version"] {
        let path = path.child(field);
        if field == "version" && has(value, field) && !cel::is_semver(text(value, field)) {
            let why = "must be a string compatible with semver.org spec 2.0.0";
            errors.invalid(&path, text(value, field), why);
        }
        if text(value, field).len() > LONGEST {
            errors.too_long(&path, LONGEST);
        }
    }
}

/// Where a device can be used, which it says itself only if its slice does not.
fn nodes(device: &Value, own: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    const NONE: &str = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if !own {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| has(device, field)) {
            errors.invalid(path, Value::Null, NONE);
        }
        return;
    }
    let mut set = Vec::new();
    match device.get("nodeName").and_then(Value::as_str) {
        None => {}
        Some("") => errors.invalid(&path.child("nodeName"), "", "must not be empty"),
        Some(name) => {
            set.push("`nodeName`");
            name_is(name, dns_subdomain, &path.child("nodeName"), errors);
        }
    }
    if let Some(selector) = get(device, "nodeSelector") {
        set.push("`nodeSelector`");
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
    match device.get("allNodes").and_then(Value::as_bool) {
        Some(true) => set.push("`allNodes`"),
        Some(false) => errors.invalid(&path.child("allNodes"), false, "must be either unset or set to true"),
        None => {}
    }
    match set.len() {
        0 => errors.required(path, ONE),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", set.join(", ")), ONE),
    }
}

/// The conditions by which a device becomes ready, or never will (`validateDeviceBindingParameters`).
pub(super) fn binding(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const GOOD: &str = "bindingConditions";
    const BAD: &str = "bindingFailureConditions";
    for field in [GOOD, BAD] {
        at_most(of, field, 4, path, errors);
        let path = path.child(field);
        for (i, name) in texts(of, field).enumerate() {
            qualified(name, &path.index(i), errors);
            if repeats(texts(of, field).take(i), name) {
                errors.duplicate(&path.index(i), name);
            }
            if field == BAD && repeats(texts(of, GOOD), name) {
                let why = "bindingFailureConditions must not overlap with bindingConditions";
                errors.invalid(&path.index(i), name, why);
            }
        }
    }
    let shown = |field: &str| of.get(field).cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    match (count(of, GOOD), count(of, BAD)) {
        (0, 1..) => {
            let why = "bindingConditions are required to use bindingFailureConditions";
            errors.invalid(&path.child(GOOD), shown(GOOD), why);
        }
        (1.., 0) => {
            let why = "bindingFailureConditions are required to use bindingConditions";
            errors.invalid(&path.child(BAD), shown(BAD), why);
        }
        _ => {}
    }
}
