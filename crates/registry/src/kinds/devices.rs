//! The kinds of `resource.k8s.io` (kubernetes/kubernetes, `pkg/apis/resource/validation/validation.go`); expressions
//! are compiled elsewhere.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_label, dns_subdomain};

use super::check::*;
use super::pod_spec::resources::is_extended;
use super::pod_spec::scheduling::node_selector;
use super::pod_spec::sources::csi_driver_name;
use super::pod_spec::volumes::template_metadata;
use super::pod_spec::{default_text, each};
use crate::strategy::{Convert, Strategy};
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

fn at_most(of: &Value, field: &str, most: usize, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(of, field) > most {
        errors.too_many(&path.child(field), count(of, field), most);
    }
}

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
    at_most(request, "tolerations", 16, path, errors);
    let tolerations = path.child("tolerations");
    for (i, toleration) in list(request, "tolerations").enumerate() {
        device_toleration(toleration, &tolerations.index(i), errors);
    }
}

fn device_toleration(t: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
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
            faults(types::label_value(value), value, &path.child("value"), errors);
        }
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    one_of(t, "effect", path, &["NoExecute", "NoSchedule", "None"], errors);
}

fn selectors(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    at_most(of, "selectors", 32, path, errors);
    let path = path.child("selectors");
    for (i, selector) in list(of, "selectors").enumerate() {
        let path = path.index(i);
        match get(selector, "cel") {
            None => errors.required(&path.child("cel"), ""),
            Some(cel) if text(cel, "expression").len() > 10 * 1024 => {
                errors.too_long(&path.child("cel").child("expression"), 10 * 1024);
            }
            Some(_) => {}
        }
    }
}

fn request_names(of: &Value, devices: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
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

fn request_name(name: &str, devices: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
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

fn configuration(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("opaque");
    let Some(opaque) = get(of, "opaque") else { return errors.required(&path, "") };
    csi_driver_name(text(opaque, "driver"), &path.child("driver"), errors);
    let path = path.child("parameters");
    match get(opaque, "parameters") {
        None => errors.required(&path, ""),
        Some(Value::Object(map)) if serde_json::to_string(map).is_ok_and(|s| s.len() > 10 * 1024) => {
            errors.too_long(&path, 10 * 1024);
        }
        Some(Value::Object(_)) => {}
        Some(_) => errors.invalid(&path, "<value omitted>", "must be a valid JSON object"),
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

fn attribute_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let (domain, id) = name.split_once('/').map_or((None, name), |(d, id)| (Some(d), id));
    match domain {
        Some("") => errors.required(path, "the domain must not be empty"),
        Some(domain) => csi_driver_name(domain, path, errors),
        None => {}
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if id.is_empty() {
        errors.required(path, "the name must not be empty");
    } else if id.len() > 32 {
        errors.too_long(path, 32);
    } else if id.as_bytes()[0].is_ascii_digit() || !id.bytes().all(legal) {
        errors.invalid(path, id, "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')");
    }
}

fn pool_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > 253 {
        errors.too_long(path, 253);
    }
    for part in name.split('/') {
        name_is(part, dns_subdomain, path, errors);
    }
}

pub(super) struct ResourceClaim;

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

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let (status, before) = (&new["status"], &old["status"]);
        at_most(status, "reservedFor", 256, &STATUS, errors);
        let path = STATUS.child("reservedFor");
        for (i, user) in list(status, "reservedFor").enumerate() {
            let path = path.index(i);
            for field in ["resource", "name", "uid"] {
                required(user, field, &path, errors);
            }
            let uid = text(user, "uid");
            if repeats(list(status, "reservedFor").take(i).map(|u| text(u, "uid")), uid) {
                errors.duplicate(&path, uid);
            }
        }
        let allocation = get(status, "allocation");
        if count(status, "reservedFor") > 0 && allocation.is_none() {
            errors.forbidden(&path, "may not be specified when `allocated` is not set");
        }
        let path = STATUS.child("allocation");
        match (allocation, get(before, "allocation")) {
            (Some(_), Some(_)) => immutable(status, before, "allocation", &STATUS, errors),
            (Some(allocation), None) => {
                let devices = &new["spec"]["devices"];
                let results = path.child("devices");
                let results = results.child("results");
                for (i, result) in list(&allocation["devices"], "results").enumerate() {
                    let path = results.index(i);
                    request_name(text(result, "request"), devices, &path.child("request"), errors);
                    csi_driver_name(text(result, "driver"), &path.child("driver"), errors);
                    pool_name(text(result, "pool"), &path.child("pool"), errors);
                    name_is(text(result, "device"), dns_label, &path.child("device"), errors);
                }
                if let Some(selector) = get(allocation, "nodeSelector") {
                    node_selector(selector, &path.child("nodeSelector"), errors);
                }
            }
            (None, _) => {}
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::RESOURCE_CLAIM
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::resource_claim_cells(object, now)
    }
}

pub(super) struct ResourceClaimTemplate;

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

pub(super) struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        selectors(spec, &SPEC, errors);
        at_most(spec, "config", 32, &SPEC, errors);
        for (i, config) in list(spec, "config").enumerate() {
            configuration(config, &SPEC.child("config").index(i), errors);
        }
        if let Some(name) = spec.get("extendedResourceName").and_then(Value::as_str)
            && !is_extended(name)
        {
            let why = "must be a valid extended resource name";
            errors.invalid(&SPEC.child("extendedResourceName"), name, why);
        }
    }
}

pub(super) struct ResourceSlice;

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

/// `v1beta1`, where a request and a device were written otherwise.
pub(super) struct DevicesV1Beta1;

/// What of a request is below `exactly` in `v1`.
const EXACTLY: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

/// The requests of a claim or of a claim's template, and the devices of a slice.
fn requests(object: &mut Value) -> impl Iterator<Item = &mut serde_json::Map<String, Value>> {
    let path: &[&str] = match object["kind"].as_str() {
        Some("ResourceClaimTemplate") => &["spec", "spec", "devices", "requests"],
        _ => &["spec", "devices", "requests"],
    };
    maps(object, path)
}

fn slice_devices(object: &mut Value) -> impl Iterator<Item = &mut serde_json::Map<String, Value>> {
    let path: &[&str] = if object["kind"] == "ResourceSlice" { &["spec", "devices"] } else { &[] };
    maps(object, path)
}

fn maps<'a>(
    object: &'a mut Value,
    path: &[&str],
) -> impl Iterator<Item = &'a mut serde_json::Map<String, Value>> {
    let list = types::at_mut(object, path).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

impl Convert for DevicesV1Beta1 {
    fn store(&self, object: &mut Value) {
        for request in requests(object) {
            let moved: serde_json::Map<String, Value> =
                EXACTLY.iter().filter_map(|field| request.remove_entry(*field)).collect();
            if !moved.is_empty() {
                request.insert("exactly".into(), Value::Object(moved));
            }
        }
        for device in slice_devices(object) {
            if let Some(Value::Object(basic)) = device.remove("basic") {
                device.extend(basic);
            }
        }
    }

    fn show(&self, object: &mut Value) {
        for request in requests(object) {
            if let Some(Value::Object(exactly)) = request.remove("exactly") {
                request.extend(exactly);
            }
        }
        for device in slice_devices(object) {
            let name = device.remove_entry("name");
            let basic = std::mem::take(device);
            device.extend(name);
            device.insert("basic".into(), Value::Object(basic));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn older_requests_and_devices_come_back_as_they_were() {
        for (old, new) in [
            (
                json!({"kind": "ResourceClaim", "spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "gpu", "count": 2}, {"name": "b", "firstAvailable": []}]}}}),
                json!({"kind": "ResourceClaim", "spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}},
                    {"name": "b", "firstAvailable": []}]}}}),
            ),
            (
                json!({"kind": "ResourceClaimTemplate", "spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "gpu"}]}}}}),
                json!({"kind": "ResourceClaimTemplate", "spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "gpu"}}]}}}}),
            ),
            (
                json!({"kind": "ResourceSlice", "spec": {"devices": [
                    {"name": "a", "basic": {"capacity": {"x": {"value": "1"}}}}]}}),
                json!({"kind": "ResourceSlice", "spec": {"devices": [
                    {"name": "a", "capacity": {"x": {"value": "1"}}}]}}),
            ),
        ] {
            let mut object = old.clone();
            DevicesV1Beta1.store(&mut object);
            assert_eq!(object, new);
            DevicesV1Beta1.show(&mut object);
            assert_eq!(object, old);
        }
    }
}
