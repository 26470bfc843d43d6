//! When two values are the same to the API, and what differs where they are not.

use serde_json::Value;
use types::{FieldErrors, Path};

use super::{IMMUTABLE, get};

/// Fields whose absence says something other than zero, `false` or nothing would.
const ZERO_MATTERS: &[&str] = &[
    "automountServiceAccountToken",
    "runAsUser",
    "runAsGroup",
    "fsGroup",
    "tolerationSeconds",
    "completions",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "activeDeadlineSeconds",
    "hostUsers",
    "runAsNonRoot",
    "storageClassName",
    "labelSelector",
    "namespaceSelector",
    "podSelector",
    "selector",
    "emptyDir",
];

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.iter().all(|(k, v)| !ZERO_MATTERS.contains(&k.as_str()) && is_zero(v)),
        Value::Bool(true) => false,
    }
}

/// Whether two values are the same to a client that drops fields with nothing in them, as Go's do (`Semantic.DeepEqual`).
pub(in super::super) fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            same_fields(a, b) && b.iter().all(|(k, v)| a.contains_key(k) || same_absent(k, v))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(a), Some(b)) if a == b => true,
        (a, b) => a.is_none_or(is_zero) && b.is_none_or(is_zero),
    }
}

fn same_fields(a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>) -> bool {
    a.iter().all(|(k, v)| match b.get(k) {
        Some(other) => same(Some(v), Some(other)),
        None => same_absent(k, v),
    })
}

fn same_absent(key: &str, value: &Value) -> bool {
    value.is_null() || (is_zero(value) && !ZERO_MATTERS.contains(&key))
}

/// Whether a field is the same in two objects.
pub(in super::super) fn same_field(a: &Value, b: &Value, field: &str) -> bool {
    match (get(a, field), get(b, field)) {
        (Some(x), None) | (None, Some(x)) => same_absent(field, x),
        (a, b) => same(a, b),
    }
}

/// A field may not change.
pub(in super::super) fn immutable(
    new: &Value,
    old: &Value,
    field: &str,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    if !same_field(new, old, field) {
        errors.invalid(&path.child(field), new.get(field).cloned().unwrap_or_default(), IMMUTABLE);
    }
}

/// The lines in which two values differ, each with the way to it.
pub(in super::super) fn diff(old: &Value, new: &Value) -> String {
    let mut out = String::new();
    diff_at(&mut out, "", Some(old), Some(new));
    out
}

fn diff_at(out: &mut String, at: &str, old: Option<&Value>, new: Option<&Value>) {
    use std::fmt::Write;
    if same(old, new) && old.is_some() == new.is_some() {
        return;
    }
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
            for (key, value) in a {
                diff_at(out, &below(key), Some(value), b.get(key));
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                diff_at(out, &below(key), None, Some(value));
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                diff_at(out, &format!("{at}[{i}]"), a.get(i), b.get(i));
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if let Some(value) = value {
                    let _ = writeln!(out, "{sign} {at}: {value}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_the_same_as_absent() {
        for (a, b, want) in [
            (json!({"a": false, "b": []}), json!({}), true),
            (json!({"a": 1}), json!({}), false),
            (json!({"runAsUser": 0}), json!({}), false),
            (json!({"a": {"b": ""}}), json!({"a": {}}), true),
            (json!({"a": [1, 2]}), json!({"a": [2, 1]}), false),
            (json!({"podSelector": {}}), json!({}), false),
        ] {
            assert_eq!(same(Some(&a), Some(&b)), want, "{a} {b}");
            assert_eq!(same(Some(&b), Some(&a)), want, "{b} {a}");
        }
    }
}
