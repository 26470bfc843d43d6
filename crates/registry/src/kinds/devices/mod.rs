//! The kinds of `resource.k8s.io` (kubernetes/kubernetes, `pkg/apis/resource/validation/validation.go`).

mod capacity;
mod claim;
mod class;
mod device;
mod slice;
mod status;
mod taint;
mod v1beta1;

use cel::{DeviceSelector, SELECTOR_COST};
use serde_json::Value;
use types::{FieldErrors, Path, dns_subdomain};

use super::check::*;
use super::pod_spec::sources::csi_driver_name;
pub(super) use claim::{ResourceClaim, ResourceClaimTemplate};
pub(super) use class::DeviceClass;
pub(super) use slice::ResourceSlice;
pub(super) use taint::DeviceTaintRule;
pub(super) use v1beta1::DevicesV1Beta1;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

fn at_most(of: &Value, field: &str, most: usize, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(of, field) > most {
        errors.too_many(&path.child(field), count(of, field), most);
    }
}

fn selectors(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    at_most(of, "selectors", 32, path, errors);
    let path = path.child("selectors");
    for (i, selector) in list(of, "selectors").enumerate() {
        let path = path.index(i);
        match get(selector, "cel") {
            None => errors.required(&path.child("cel"), ""),
            Some(cel) => expression(text(cel, "expression"), &path.child("cel").child("expression"), errors),
        }
    }
}

/// An expression that picks devices (`validateCELExpression`).
fn expression(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if text.len() > 10 * 1024 {
        return errors.too_long(path, 10 * 1024);
    }
    match DeviceSelector::compile(text) {
        Err(fault) => errors.invalid(path, text, &fault.to_string()),
        Ok(selector) if selector.max_cost() > SELECTOR_COST => {
            errors.forbidden(path, "too complex, exceeds cost limit");
        }
        Ok(_) => {}
    }
}

fn configuration(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("opaque");
    let Some(opaque) = get(of, "opaque") else { return errors.required(&path, "") };
    csi_driver_name(text(opaque, "driver"), &path.child("driver"), errors);
    let path = path.child("parameters");
    match get(opaque, "parameters") {
        None => errors.required(&path, ""),
        Some(parameters) => json_object(parameters, &path, errors),
    }
}

/// What drivers say or are told in their own words (`validateRawExtension`).
fn json_object(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) if serde_json::to_string(map).is_ok_and(|s| s.len() > 10 * 1024) => {
            errors.too_long(path, 10 * 1024);
        }
        Value::Object(_) => {}
        _ => errors.invalid(path, "<value omitted>", "must be a valid JSON object"),
    }
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
