//! Which schemas are structural (kubernetes/kubernetes, `apiextensions-apiserver/pkg/apiserver/schema/validation.go`,
//! `complete.go`): each field's shape is said once, outside of logic.

use serde_json::{Map, Value};
use types::{FieldErrors, Path, at, str_at};

use crate::custom::pattern;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

const LOGIC: [&str; 3] = ["anyOf", "allOf", "oneOf"];

/// Says what keeps a schema from being structural.
pub(super) fn check(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut found = FieldErrors::new();
    invariants(schema, Level::Root, path, &mut found);
    complete(schema, schema, path, path, &mut found);
    let mut sorted: Vec<_> = found.iter().collect();
    sorted.sort_by_key(|e| format!("{}: {}", e.field, e.message));
    for error in sorted {
        errors.add(error.reason, error.field.clone(), error.message.clone());
    }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn invariants(schema: &Value, level: Level, path: &Path<'_>, errors: &mut FieldErrors) {
    let kind = str_at(schema, &["type"]).unwrap_or_default();
    let (embedded, open, int_or_string) = (
        flag(schema, "x-kubernetes-embedded-resource"),
        flag(schema, "x-kubernetes-preserve-unknown-fields"),
        flag(schema, "x-kubernetes-int-or-string"),
    );
    match at(schema, &["items"]) {
        None if kind == "array" => errors.required(&path.child("items"), "must be specified"),
        Some(items) if items.is_object() => {
            invariants(items, Level::Item, &path.child("items"), errors);
        }
        _ => {}
    }
    let below = path.child("properties");
    for (name, schema) in properties(schema) {
        invariants(schema, Level::Field, &below.key(name), errors);
    }
    let additional = at(schema, &["additionalProperties"]);
    if let Some(additional) = additional {
        if level == Level::Root {
            errors.forbidden(&path.child("additionalProperties"), "must not be used at the root");
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &path.child("additionalProperties"), errors);
        }
    }
    if int_or_string && open {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), true, why);
    }
    if int_or_string && embedded {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.invalid(&path.child("x-kubernetes-embedded-resource"), true, why);
    }
    let skip_any = is_int_or_string(list(schema, "anyOf"));
    let skip_first =
        list(schema, "allOf").first().is_some_and(|first| is_int_or_string(list(first, "anyOf")));
    values(schema, skip_any, skip_first, path, errors);
    let place = path.child("type");
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() {
            errors.required(&place, why);
        } else {
            errors.invalid(&place, kind, why);
        }
    } else if kind.is_empty() && !int_or_string && !open {
        errors.required(
            &place,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embedded && additional.is_some() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.child("additionalProperties"), why);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.invalid(&place, kind, "must be object at the root");
    }
    if level == Level::Root || embedded {
        for name in ["kind", "apiVersion"] {
            if let Some(schema) = schema.get("properties").and_then(|p| p.get(name))
                && str_at(schema, &["type"]) != Some("string")
            {
                let kind = schema["type"].as_str().unwrap_or_default();
                errors.invalid(&below.key(name).child("type"), kind, "must be string");
            }
        }
    }
    if let Some(metadata) = schema.get("properties").and_then(|p| p.get("metadata")) {
        metadata_invariants(metadata, level == Level::Root, embedded, &below.key("metadata"), errors);
    }
    if embedded && !open && properties(schema).next().is_none() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&path.child("properties"), why);
    }
}

fn metadata_invariants(
    schema: &Value,
    root: bool,
    embedded: bool,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let kind = str_at(schema, &["type"]).unwrap_or_default();
    if (root || embedded) && kind != "object" {
        errors.invalid(&path.child("type"), kind, "must be object");
    }
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let allowed = |(key, value): (&String, &Value)| match key.as_str() {
        "type" | "default" => true,
        "properties" => properties(schema).all(|(name, _)| matches!(name.as_str(), "name" | "generateName")),
        _ => empty(value),
    };
    if root && !schema.as_object().is_some_and(|map| map.iter().all(allowed)) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(path, why);
    }
}

/// The one place where types may stand inside of logic.
fn is_int_or_string(any_of: &[Value]) -> bool {
    let only = |schema: &Value, kind: &str| {
        schema.as_object().is_some_and(|map: &Map<String, Value>| {
            map.len() == 1 && map.get("type").is_some_and(|t| t == kind)
        })
    };
    matches!(any_of, [a, b] if only(a, "integer") && only(b, "string"))
}

/// The logic of one level.
fn values(schema: &Value, skip_any: bool, skip_first: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    for key in LOGIC {
        if key == "anyOf" && skip_any {
            continue;
        }
        let place = path.child(key);
        for (i, nested) in list(schema, key).iter().enumerate() {
            nested_values(nested, key == "allOf" && skip_first && i == 0, &place.index(i), errors);
        }
    }
    if let Some(not) = at(schema, &["not"]) {
        nested_values(not, false, &path.child("not"), errors);
    }
    if let Some(text) = str_at(schema, &["pattern"])
        && let Err(why) = pattern::compile(text)
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.child("pattern"), text, &why);
    }
}

/// A schema inside of logic: it may narrow values, and say nothing else.
fn nested_values(schema: &Value, skip_any: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    values(schema, skip_any, false, path, errors);
    if let Some(items) = at(schema, &["items"]).filter(|i| i.is_object()) {
        nested_values(items, false, &path.child("items"), errors);
    }
    let below = path.child("properties");
    for (name, schema) in properties(schema) {
        nested_values(schema, false, &below.key(name), errors);
    }
    let given = |key: &str| match schema.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    for (key, why) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("externalDocs", "must be undefined to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let present = match key {
            "additionalProperties" | "default" => schema.get(key).is_some_and(|v| !v.is_null()),
            _ => given(key),
        };
        if present {
            errors.forbidden(&path.child(key), why);
        }
    }
    if schema.get("properties").is_some_and(|p| p.get("metadata").is_some()) {
        errors.forbidden(&below.key("metadata"), "must not be specified in a nested context");
    }
}

/// Every field that the root's logic speaks of must be specified outside of it.
fn complete(
    logic: &Value,
    schema: &Value,
    schema_path: &Path<'_>,
    logic_path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    for key in ["not", "allOf", "anyOf", "oneOf"] {
        let place = logic_path.child(key);
        match logic.get(key) {
            Some(nested @ Value::Object(_)) => nested_complete(nested, schema, schema_path, &place, errors),
            Some(Value::Array(all)) => {
                for (i, nested) in all.iter().enumerate() {
                    nested_complete(nested, schema, schema_path, &place.index(i), errors);
                }
            }
            _ => {}
        }
    }
}

fn nested_complete(
    logic: &Value,
    schema: &Value,
    schema_path: &Path<'_>,
    logic_path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    complete(logic, schema, schema_path, logic_path, errors);
    let mut below =
        |name: &Value, known: Option<&Value>, place: &Path<'_>, logic_place: &Path<'_>| match known {
            Some(known) => nested_complete(name, known, place, logic_place, errors),
            None => errors.required(place, &format!("because it is defined in {logic_place}")),
        };
    if let Some(items) = at(logic, &["items"]).filter(|i| i.is_object()) {
        let known = at(schema, &["items"]).filter(|i| i.is_object());
        below(items, known, &schema_path.child("items"), &logic_path.child("items"));
    }
    let (fields, logic_fields) = (schema_path.child("properties"), logic_path.child("properties"));
    for (name, nested) in properties(logic) {
        let known = schema.get("properties").and_then(|p| p.get(name));
        below(nested, known, &fields.key(name), &logic_fields.key(name));
    }
}
