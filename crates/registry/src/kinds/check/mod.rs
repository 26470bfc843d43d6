//! The vocabulary of checks that all kinds share. What is fine costs nothing: paths are made on the stack, and text
//! only when there is something to say.

mod addresses;
mod equality;

use serde_json::Value;
use types::{
    FieldErrors, Path, Quantity, dns_label, dns_subdomain, label_value, port_name, qualified_name,
    validate_labels,
};

pub(super) use addresses::{cidr, ip, is_dual_stack, parse_cidr, parse_ip, reachable_ip};
pub(super) use equality::{diff, immutable, same, same_field};

pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// The elements of a list field.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> impl DoubleEndedIterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// How many elements a list, or entries a map, has.
pub(super) fn count(value: &Value, name: &str) -> usize {
    match value.get(name) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    }
}

/// The elements of a list of texts.
pub(super) fn texts<'a>(value: &'a Value, name: &str) -> impl DoubleEndedIterator<Item = &'a str> + use<'a> {
    list(value, name).map(|v| v.as_str().unwrap_or_default())
}

/// The entries of a map field.
pub(super) fn entries<'a>(
    value: &'a Value,
    name: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    value.get(name).and_then(Value::as_object).into_iter().flatten().map(|(k, v)| (k.as_str(), v))
}

/// A field that is there.
pub(super) fn get<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|v| !v.is_null())
}

/// Whether a field is there.
pub(super) fn has(value: &Value, name: &str) -> bool {
    get(value, name).is_some()
}

/// The text of a field; empty without one.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The number in a field; zero without one.
pub(super) fn int(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// Whether a field is `true`.
pub(super) fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// A field as a quantity.
pub(super) fn quantity(value: &Value) -> Quantity {
    value.as_str().and_then(|s| s.parse().ok()).unwrap_or_default()
}

/// An annotation of an object or template.
pub(super) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    types::at(object, &["metadata", "annotations", key]).and_then(Value::as_str)
}

/// The last element of a list, the rest of whom it repeats: whether `item` occurs before `at`.
pub(super) fn repeats<'a>(mut before: impl Iterator<Item = &'a str>, item: &str) -> bool {
    before.any(|other| other == item)
}

/// Notes each of a value's faults.
pub(super) fn faults(
    found: impl IntoIterator<Item = String>,
    value: &str,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    for fault in found {
        errors.invalid(path, value, &fault);
    }
}

/// Text that must be there.
pub(super) fn required(value: &Value, name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if text(value, name).is_empty() {
        errors.required(&path.child(name), "");
    }
}

/// Text that must be there and obey a rule.
pub(super) fn required_name(
    value: &Value,
    name: &str,
    rule: fn(&str) -> Option<String>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    match text(value, name) {
        "" => errors.required(&path.child(name), ""),
        text => faults(rule(text), text, &path.child(name), errors),
    }
}

/// Text that must obey a rule if it is there.
pub(super) fn optional_name(
    value: &Value,
    name: &str,
    rule: fn(&str) -> Option<String>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    match text(value, name) {
        "" => {}
        text => faults(rule(text), text, &path.child(name), errors),
    }
}

/// A name in itself.
pub(super) fn name_is(
    name: &str,
    rule: fn(&str) -> Option<String>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    faults(rule(name), name, path, errors);
}

/// A qualified name such as a label key.
pub(super) fn qualified(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    faults(qualified_name(name), name, path, errors);
}

/// A qualified name in a field, if it is there.
pub(super) fn optional_qualified(value: &Value, name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(text) = value.get(name).and_then(Value::as_str) {
        qualified(text, &path.child(name), errors);
    }
}

/// A field's text, if set, is one of a few.
pub(super) fn one_of(
    value: &Value,
    field: &str,
    path: &Path<'_>,
    allowed: &[&str],
    errors: &mut FieldErrors,
) {
    match value.get(field).and_then(Value::as_str) {
        Some(text) if !allowed.contains(&text) => errors.not_supported(&path.child(field), text, allowed),
        _ => {}
    }
}

/// A field's text must be there and be one of a few.
pub(super) fn required_one_of(
    value: &Value,
    field: &str,
    path: &Path<'_>,
    allowed: &[&str],
    errors: &mut FieldErrors,
) {
    match text(value, field) {
        "" => errors.required(&path.child(field), ""),
        text if !allowed.contains(&text) => errors.not_supported(&path.child(field), text, allowed),
        _ => {}
    }
}

/// A number, if set, is not negative.
pub(super) fn not_negative(value: &Value, field: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if int(value, field) < 0 {
        errors.invalid(&path.child(field), int(value, field), NEGATIVE);
    }
}

/// A number lies in a range.
pub(super) fn in_range(n: i64, least: i64, most: i64, path: &Path<'_>, errors: &mut FieldErrors) {
    if !(least..=most).contains(&n) {
        errors.invalid(path, n, &format!("must be between {least} and {most}, inclusive"));
    }
}

/// A number is a port's.
pub(super) fn port(n: i64, path: &Path<'_>, errors: &mut FieldErrors) {
    in_range(n, 1, 65535, path, errors);
}

/// A number or name of a port; absent counts as zero.
pub(super) fn port_or_name(value: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Some(Value::String(name)) => faults(port_name(name), name, path, errors),
        other => port(other.and_then(Value::as_i64).unwrap_or_default(), path, errors),
    }
}

/// A user's or group's number, if set.
pub(super) fn id(value: &Value, field: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(n) = value.get(field).and_then(Value::as_i64) {
        in_range(n, 0, i64::from(i32::MAX), &path.child(field), errors);
    }
}

/// A path that never goes up.
pub(super) fn no_backsteps(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
}

/// A path below where it begins.
pub(super) fn descending_path(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(text, path, errors);
}

/// A path below where it begins that is not one of the names kept for the system.
pub(super) fn local_path(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    descending_path(text, path, errors);
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        errors.invalid(path, text, "must not start with '..'");
    }
}

/// A label selector, if there is one (`apimachinery/pkg/apis/meta/v1/validation`, `ValidateLabelSelector`).
pub(super) fn label_selector(selector: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(selector) = selector.filter(|s| !s.is_null()) else { return };
    validate_labels(selector.get("matchLabels"), &path.child("matchLabels"), errors);
    let expressions = path.child("matchExpressions");
    for (i, e) in list(selector, "matchExpressions").enumerate() {
        let path = expressions.index(i);
        let values = count(e, "values");
        match text(e, "operator") {
            "In" | "NotIn" if values == 0 => {
                errors
                    .required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                errors.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        qualified(text(e, "key"), &path.child("key"), errors);
        let path = path.child("values");
        for (i, value) in texts(e, "values").enumerate() {
            faults(label_value(value), value, &path.index(i), errors);
        }
    }
}

/// Whether a selector names no condition.
pub(super) fn is_empty_selector(selector: &Value) -> bool {
    count(selector, "matchLabels") + count(selector, "matchExpressions") == 0
}

/// A reference to a Secret in a namespace.
pub(super) fn secret_reference(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    required_name(value, "name", dns_subdomain, path, errors);
    required_name(value, "namespace", dns_label, path, errors);
}

/// What base64 text stands for, if it is base64; line ends are skipped.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).take_while(|b| *b != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}
