use serde_json::Value;
use types::{FieldErrors, Path, at, str_at};

use super::{defaults, structural};
use crate::custom::rules;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// What may stand at the root beside a status subresource, as upstream lists it (`allowedFieldsAtRootSchema`).
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// Upstream: `validateCustomResourceDefinitionValidation`. `path` leads to what holds `openAPIV3Schema`. A schema that
/// has not changed stays as it is.
pub(super) fn check(
    schema: &Value,
    old: Option<&Value>,
    has_status: bool,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let place = path.child("openAPIV3Schema");
    if has_status {
        check_root(schema, path, &place, errors);
    }
    if schema["nullable"] == true {
        errors.forbidden(&path.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root");
    }
    let mut found = FieldErrors::new();
    structural::check(schema, &place, &mut found);
    if found.is_empty() {
        defaults::check(schema, &place, &mut found);
    }
    let sound = found.is_empty();
    check_level(schema, Place { root: true, in_meta: false, no_defaults: None }, &place, &mut found);
    if sound {
        rules::check_schema(schema, old, &place.to_string(), &mut found);
    }
    if old != Some(schema) {
        errors.extend(found);
    }
}

fn check_root(schema: &Value, path: &Path<'_>, place: &Path<'_>, errors: &mut FieldErrors) {
    for (key, value) in schema.as_object().into_iter().flatten() {
        let zero = matches!(value, Value::Null | Value::Bool(false)) || *value == "" || *value == 0;
        if zero {
            continue;
        }
        if key == "type" {
            if value != "object" {
                let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                errors.invalid(&path.child("openAPIV3Schema.type"), value.clone(), why);
                return;
            }
        } else if !AT_ROOT.iter().any(|(name, _)| name == key) {
            let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            let why = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            errors.invalid(place, schema.clone(), &why);
            return;
        }
    }
}

/// Where in the schema a level is.
#[derive(Clone, Copy)]
struct Place {
    root: bool,
    /// Inside of `metadata`, `apiVersion` or `kind`.
    in_meta: bool,
    /// Why defaults are forbidden, if they are.
    no_defaults: Option<&'static str>,
}

/// Upstream: `ValidateCustomResourceDefinitionOpenAPISchema` and `specStandardValidatorV3.validate`.
fn check_level(schema: &Value, at_place: Place, path: &Path<'_>, errors: &mut FieldErrors) {
    let below = Place { root: false, ..at_place };
    let kind = str_at(schema, &["type"]).unwrap_or_default();
    let has = |key: &str| at(schema, &[key]).is_some();
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &TYPES);
    }
    if has("default")
        && let Some(why) = at_place.no_defaults
    {
        errors.forbidden(&path.child("default"), &format!("must not be set {why}"));
    }
    for (key, why) in [
        ("id", "id is not supported"),
        ("additionalItems", "additionalItems is not supported"),
        ("patternProperties", "patternProperties is not supported"),
        ("definitions", "definitions is not supported"),
        ("dependencies", "dependencies is not supported"),
        ("$ref", "$ref is not supported"),
    ] {
        let there = match at(schema, &[key]) {
            None => false,
            Some(Value::String(text)) => !text.is_empty() || key == "$ref",
            Some(Value::Object(map)) => !map.is_empty() || matches!(key, "dependencies" | "additionalItems"),
            Some(_) => true,
        };
        if there {
            errors.forbidden(&path.child(key), why);
        }
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.forbidden(&path.child("type"), why);
    }
    if schema["items"].as_array().is_some_and(|l| !l.is_empty()) {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if at_place.in_meta && schema["x-kubernetes-embedded-resource"] == true {
        let why = "must not be used inside of resource meta";
        errors.forbidden(&path.child("x-kubernetes-embedded-resource"), why);
    }
    if schema["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), why);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    if let Some(additional) = at(schema, &["additionalProperties"]) {
        if properties.is_some_and(|p| !p.is_empty()) && *additional != true {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.forbidden(&path.child("additionalProperties"), why);
        }
        let why = "inside additionalProperties applying to object metadata";
        let below = Place { no_defaults: if below.in_meta { Some(why) } else { below.no_defaults }, ..below };
        if additional.is_object() {
            check_level(additional, below, &path.child("additionalProperties"), errors);
        }
    }
    let list = path.child("properties");
    let is_object = at_place.root || schema["x-kubernetes-embedded-resource"] == true;
    for (name, field) in properties.into_iter().flatten() {
        let mut below = below;
        if let ("metadata" | "kind" | "apiVersion", true) = (name.as_str(), is_object) {
            below.in_meta = true;
            if at_place.root {
                below.no_defaults = Some(match name.as_str() {
                    "metadata" => "in top-level metadata",
                    "kind" => "in top-level kind",
                    _ => "in top-level apiVersion",
                });
            }
        }
        check_level(field, below, &list.key(name), errors);
    }
    if let Some(not) = at(schema, &["not"]) {
        check_level(not, below, &path.child("not"), errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        let place = path.child(key);
        for (i, nested) in schema[key].as_array().into_iter().flatten().enumerate() {
            check_level(nested, below, &place.index(i), errors);
        }
    }
    if let Some(items) = at(schema, &["items"]).filter(|i| i.is_object()) {
        check_level(items, below, &path.child("items"), errors);
    }
    check_extensions(schema, kind, path, errors);
}

fn check_extensions(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let wrong_type = |errors: &mut FieldErrors, why: &str| {
        if kind.is_empty() {
            errors.required(&path.child("type"), why);
        } else {
            errors.invalid(&path.child("type"), kind, why);
        }
    };
    if schema.get("x-kubernetes-preserve-unknown-fields").is_some_and(|v| *v == false) {
        let place = path.child("x-kubernetes-preserve-unknown-fields");
        errors.invalid(&place, false, "must be true or undefined");
    }
    if let Some(map_type) = at(schema, &["x-kubernetes-map-type"]) {
        if kind != "object" {
            wrong_type(errors, "must be object if x-kubernetes-map-type is specified");
        }
        if *map_type != "atomic" && *map_type != "granular" {
            errors.not_supported(
                &path.child("x-kubernetes-map-type"),
                map_type.clone(),
                &["atomic", "granular"],
            );
        }
    }
    let list_type = str_at(schema, &["x-kubernetes-list-type"]);
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let place = path.child("x-kubernetes-list-type");
    if list_type.is_some() && kind != "array" {
        wrong_type(errors, "must be array if x-kubernetes-list-type is specified");
    } else if list_type == Some("set") {
        check_set_items(&schema["items"], &path.child("items"), errors);
    }
    if let Some(other) = list_type.filter(|t| !matches!(*t, "atomic" | "set" | "map")) {
        errors.not_supported(&place, other, &["atomic", "set", "map"]);
    }
    if !keys.is_empty() && list_type != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.required(&place, why),
            Some(other) => errors.invalid(&place, other, why),
        }
    }
    if list_type == Some("map") {
        check_map_items(schema, keys, path, errors);
    }
    if let Some(list_type @ ("set" | "map")) = list_type {
        check_keys(&schema["items"], list_type, keys, &path.child("items"), errors);
    }
}

fn check_set_items(items: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    match str_at(items, &["type"]) {
        Some("array") => {
            if let Some(other) = str_at(items, &["x-kubernetes-list-type"]).filter(|t| *t != "atomic") {
                errors.invalid(&path.child("x-kubernetes-list-type"), other, why);
            }
        }
        Some("object") if items["x-kubernetes-map-type"] != "atomic" => {
            errors.invalid(&path.child("x-kubernetes-map-type"), items["x-kubernetes-map-type"].clone(), why);
        }
        _ => {}
    }
}

fn check_map_items(schema: &Value, keys: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    let place = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.required(&place, "must not be empty if x-kubernetes-list-type is map");
    }
    let items_path = path.child("items");
    let Some(items) = at(schema, &["items"]) else {
        return errors.required(&items_path, "must have a schema if x-kubernetes-list-type is map");
    };
    if !items.is_object() {
        let why = "must only have a single schema if x-kubernetes-list-type is map";
        return errors.invalid(&items_path, items.clone(), why);
    }
    let kind = str_at(items, &["type"]).unwrap_or_default();
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.invalid(&items_path.child("type"), kind, why);
    }
    let properties = items_path.child("properties");
    for (i, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match items.get("properties").and_then(|p| p.get(name)) {
            Some(field) if matches!(str_at(field, &["type"]), Some("array" | "object")) => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.invalid(&properties.key(name).child("type"), kind, why);
            }
            Some(_) => {}
            None => errors.invalid(&place, keys.to_vec(), "entries must all be names of item properties"),
        }
        if keys[..i].contains(key) {
            errors.invalid(&place, keys.to_vec(), "must not contain duplicate entries");
        }
    }
}

/// Upstream: `validateMapListKeysMapSet`.
fn check_keys(items: &Value, list_type: &str, keys: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    if items["nullable"] == true {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.forbidden(&path.child("nullable"), &why);
    }
    if list_type != "map" {
        return;
    }
    let properties = path.child("properties");
    for name in keys.iter().filter_map(Value::as_str) {
        let Some(field) = items.get("properties").and_then(|p| p.get(name)) else { continue };
        let place = properties.key(name);
        let required = items["required"].as_array().is_some_and(|r| r.iter().any(|n| n == name));
        if !required && at(field, &["default"]).is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&place.child("default"), why);
        }
        if field["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&place.child("nullable"), why);
        }
    }
}
