//! Claims of devices, and templates of them (kubernetes/kubernetes, `pkg/apis/resource/v1/defaults.go`,
//! `pkg/apis/resource/validation/validation.go`, `ValidateResourceClaim`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_label, dns_subdomain};

use super::super::check::*;
use super::super::pod_spec::volumes::template_metadata;
use super::super::pod_spec::{default_text, each};
use super::{SPEC, at_most, attribute_name, configuration, selectors};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// What is filled in where devices are asked for (`pkg/apis/resource/v1/defaults.go`).
fn default_requests(devices: &mut Value) {
    let fill = |request: &mut Value| {
        default_text(request, "allocationMode", "ExactCount");
        if text(request, "allocationMode") == "ExactCount" && int(request, "count") == 0 {
            request["count"] = 1.into();
        }
        each(request, "tolerations").for_each(|t| default_text(t, "operator", "Equal"));
    };
    for request in each(devices, "requests") {
        if let Some(exactly) = types::at_mut(request, &["exactly"]) {
            fill(exactly);
        }
        each(request, "firstAvailable").for_each(fill);
    }
}

fn validate_devices(devices: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in ["requests", "constraints", "config"] {
        at_most(devices, field, 32, path, errors);
    }
    let requests = path.child("requests");
    for (i, request) in list(devices, "requests").enumerate() {
        let path = requests.index(i);
        let name = text(request, "name");
        name_is(name, dns_label, &path.child("name"), errors);
        if repeats(list(devices, "requests").take(i).map(|r| text(r, "name")), name) {
            errors.duplicate(&path, name);
        }
        match (get(request, "exactly"), count(request, "firstAvailable") > 0) {
            (None, false) => {
                errors.required(&path, "exactly one of `exactly` or `firstAvailable` is required");
            }
            (Some(_), true) => errors.invalid(
                &path,
                Value::Null,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ),
            (Some(exactly), false) => asked(exactly, &path.child("exactly"), errors),
            (None, true) => {
                at_most(request, "firstAvailable", 8, &path, errors);
                let path = path.child("firstAvailable");
                for (i, sub) in list(request, "firstAvailable").enumerate() {
                    let path = path.index(i);
                    let name = text(sub, "name");
                    name_is(name, dns_label, &path.child("name"), errors);
                    if repeats(list(request, "firstAvailable").take(i).map(|r| text(r, "name")), name) {
                        errors.duplicate(&path, name);
                    }
                    asked(sub, &path, errors);
                }
            }
        }
    }
    let constraints = path.child("constraints");
    for (i, constraint) in list(devices, "constraints").enumerate() {
        let path = constraints.index(i);
        request_names(constraint, devices, &path, errors);
        let of = |field: &str| constraint.get(field).and_then(Value::as_str);
        match (of("matchAttribute"), of("distinctAttribute")) {
            (Some(name), _) => full_attribute(name, &path.child("matchAttribute"), errors),
            (None, Some(name)) => full_attribute(name, &path.child("distinctAttribute"), errors),
            (None, None) => errors.required(&path, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set"),
        }
    }
    let config = path.child("config");
    for (i, given) in list(devices, "config").enumerate() {
        let path = config.index(i);
        request_names(given, devices, &path, errors);
        configuration(given, &path, errors);
    }
}

fn asked(request: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    required_name(request, "deviceClassName", dns_subdomain, path, errors);
    selectors(request, path, errors);
    let n = int(request, "count");
    match text(request, "allocationMode") {
        "All" if n != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.invalid(&path.child("count"), n, why);
        }
        "ExactCount" if n <= 0 => errors.invalid(&path.child("count"), n, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    let asked = get(request, "capacity").unwrap_or(&Value::Null);
    let amounts = path.child("capacity");
    let amounts = amounts.child("requests");
    for (name, _) in entries(asked, "requests") {
        attribute_name(name, &amounts.key(name), errors);
    }
    at_most(request, "tolerations", 16, path, errors);
    let tolerations = path.child("tolerations");
    for (i, toleration) in list(request, "tolerations").enumerate() {
        super::taint::toleration(toleration, &tolerations.index(i), errors);
    }
}

pub(super) fn request_names(of: &Value, devices: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    at_most(of, "requests", 32, path, errors);
    let path = path.child("requests");
    for (i, name) in texts(of, "requests").enumerate() {
        let path = path.index(i);
        request_name(name, devices, &path, errors);
        if repeats(texts(of, "requests").take(i), name) {
            errors.duplicate(&path, name);
        }
    }
}

pub(super) fn request_name(name: &str, devices: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        return errors.invalid(path, name, NO_REQUEST);
    }
    for part in &parts {
        name_is(part, dns_label, path, errors);
    }
    let found = list(devices, "requests").find(|r| text(r, "name") == parts[0]);
    let known = found.is_some_and(|r| {
        parts.get(1).is_none_or(|sub| list(r, "firstAvailable").any(|s| text(s, "name") == *sub))
    });
    if !known {
        errors.invalid(path, name, NO_REQUEST);
    }
}

/// The name of an attribute or capacity, with its domain.
fn full_attribute(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(path, "name required");
    }
    if !name.contains('/') {
        errors.invalid(path, name, "must include a domain");
    }
    attribute_name(name, path, errors);
}

pub(in super::super) struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        if let Some(devices) = types::at_mut(object, &["spec", "devices"]) {
            default_requests(devices);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_devices(&object["spec"]["devices"], &SPEC.child("devices"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        immutable(new, old, "spec", &Path::new("spec"), errors);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        super::status::forget_devices(new, old);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        super::status::validate(new, old, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::RESOURCE_CLAIM
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::resource_claim_cells(object, now)
    }
}

pub(in super::super) struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(devices) = types::at_mut(object, &["spec", "spec", "devices"]) {
            default_requests(devices);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        template_metadata(&object["spec"], &SPEC.child("metadata"), errors);
        let path = SPEC.child("spec");
        validate_devices(&object["spec"]["spec"]["devices"], &path.child("devices"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if !same_field(new, old, "spec") {
            errors.invalid(&SPEC, new["spec"].clone(), IMMUTABLE);
        }
    }
}
