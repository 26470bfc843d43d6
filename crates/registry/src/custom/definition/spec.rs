use serde_json::Value;
use types::{FieldErrors, Path, at, dns_subdomain, dns1035_label, str_at};

use super::{SPEC, conversion, openapi, version};

/// Upstream: `validateCustomResourceDefinitionSpec`. What all versions have in common is reported at the top, as
/// upstream's internal version has it there.
pub(super) fn check(spec: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let group = SPEC.child("group");
    match str_at(spec, &["group"]) {
        None => errors.required(&group, ""),
        Some(name) => match dns_subdomain(name) {
            Some(fault) => errors.invalid(&group, name, &fault),
            None if !name.contains('.') => {
                errors.invalid(&group, name, "should be a domain with at least one dot");
            }
            None => {}
        },
    }
    let scope = SPEC.child("scope");
    match str_at(spec, &["scope"]) {
        None => errors.required(&scope, ""),
        Some("Cluster" | "Namespaced") => {}
        Some(other) => errors.not_supported(&scope, other, &["Cluster", "Namespaced"]),
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let path = SPEC.child("versions");
    check_versions(versions, old, &path, errors);
    let name = |v: &Value| v["name"].as_str().unwrap_or_default().to_owned();
    if (1..versions.len()).any(|i| versions[..i].iter().any(|v| name(v) == name(&versions[i]))) {
        errors.invalid(&path, versions.to_vec(), "must contain unique version names");
    }
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        errors.invalid(&path, versions.to_vec(), "must have exactly one version marked as storage version");
    }
    let names = SPEC.child("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if str_at(spec, &["names", field]).is_none() {
            errors.required(&names.child(field), "");
        }
    }
    check_names(&spec["names"], &names, errors);
    check_common(spec, versions, old, errors);
    if spec["preserveUnknownFields"] == true && old.is_none_or(|old| old["preserveUnknownFields"] != true) {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&SPEC.child("preserveUnknownFields"), true, why);
    }
    let before = old.map(|old| &old["conversion"]);
    conversion::check(&spec["conversion"], before, &SPEC.child("conversion"), errors);
}

/// A part of every version that is the same in all of them.
fn common<'a>(versions: &'a [Value], key: &str) -> Option<&'a Value> {
    let first = versions.first()?.get(key).filter(|v| !v.is_null())?;
    versions.iter().all(|v| v.get(key) == Some(first)).then_some(first)
}

fn old_schema<'a>(old: Option<&'a Value>, version: &str) -> Option<&'a Value> {
    let versions = old?["versions"].as_array()?;
    at(versions.iter().find(|v| v["name"] == version)?, &["schema", "openAPIV3Schema"])
}

fn check_versions(versions: &[Value], old: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    let own = |key| common(versions, key).is_none();
    let has_status = |v: &Value| at(v, &["subresources", "status"]).is_some();
    for (i, one) in versions.iter().enumerate() {
        let path = path.index(i);
        let name = one["name"].as_str().unwrap_or_default();
        if let Some(fault) = dns1035_label(name) {
            errors.invalid(&path.child("name"), name, &fault);
        }
        version::check_deprecation(one, &path, errors);
        let schema = at(one, &["schema", "openAPIV3Schema"]);
        if schema.is_none() {
            let place = path.child("schema");
            errors.required(&place.child("openAPIV3Schema"), "");
        }
        if own("schema")
            && let Some(schema) = schema
        {
            let before = old_schema(old, name);
            openapi::check(schema, before, has_status(one), &path.child("schema"), errors);
        }
        if own("subresources") {
            version::check_subresources(&one["subresources"], &path.child("subresources"), errors);
        }
        if own("additionalPrinterColumns") {
            let place = path.child("additionalPrinterColumns");
            version::check_columns(&one["additionalPrinterColumns"], &place, errors);
        }
        if own("selectableFields") {
            let before = old_selectable(old, name);
            let place = path.child("selectableFields");
            version::check_selectable(&one["selectableFields"], schema, before, &place, errors);
        }
    }
}

fn old_selectable<'a>(old: Option<&'a Value>, version: &str) -> Option<&'a Value> {
    let versions = old?["versions"].as_array()?;
    at(versions.iter().find(|v| v["name"] == version)?, &["selectableFields"])
}

fn check_common(spec: &Value, versions: &[Value], old: Option<&Value>, errors: &mut FieldErrors) {
    let first = versions.first().and_then(|v| v["name"].as_str()).unwrap_or_default();
    let schema = common(versions, "schema").and_then(|s| at(s, &["openAPIV3Schema"]));
    if let Some(schema) = schema {
        let has_status = spec["versions"]
            .as_array()
            .is_some_and(|l| l.iter().any(|v| at(v, &["subresources", "status"]).is_some()));
        openapi::check(schema, old_schema(old, first), has_status, &SPEC.child("validation"), errors);
    }
    if let Some(subresources) = common(versions, "subresources") {
        version::check_subresources(subresources, &SPEC.child("subresources"), errors);
    }
    if let Some(columns) = common(versions, "additionalPrinterColumns") {
        version::check_columns(columns, &SPEC.child("additionalPrinterColumns"), errors);
    }
    if let Some(fields) = common(versions, "selectableFields") {
        let schema = versions.first().and_then(|v| at(v, &["schema", "openAPIV3Schema"]));
        let before = old_selectable(old, first);
        version::check_selectable(fields, schema, before, &SPEC.child("selectableFields"), errors);
    }
}

/// Upstream: `ValidateCustomResourceDefinitionNames`.
pub(super) fn check_names(names: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in ["plural", "singular"] {
        if let Some(name) = str_at(names, &[field])
            && let Some(fault) = dns1035_label(name)
        {
            errors.invalid(&path.child(field), name, &fault);
        }
    }
    for field in ["kind", "listKind"] {
        if let Some(name) = str_at(names, &[field])
            && let Some(fault) = dns1035_label(&name.to_lowercase())
        {
            let why = format!("may have mixed case, but should otherwise match: {fault}");
            errors.invalid(&path.child(field), name, &why);
        }
    }
    for field in ["shortNames", "categories"] {
        if field == "categories"
            && let Some(kind) = str_at(names, &["kind"])
            && str_at(names, &["listKind"]) == Some(kind)
        {
            errors.invalid(&path.child("listKind"), kind, "kind and listKind may not be the same");
        }
        for (i, name) in names[field].as_array().into_iter().flatten().enumerate() {
            let name = name.as_str().unwrap_or_default();
            if let Some(fault) = dns1035_label(name) {
                let list = path.child(field);
                errors.invalid(&list.index(i), name, &fault);
            }
        }
    }
}
