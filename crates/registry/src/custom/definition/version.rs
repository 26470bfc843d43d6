use serde_json::Value;
use types::{FieldErrors, Path, at, str_at};

use crate::custom::jsonpath::JsonPath;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// Upstream: `MaxSelectableFields`.
const MOST_SELECTABLE: usize = 8;

/// Upstream: `validateDeprecationWarning`.
pub(super) fn check_deprecation(version: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    let mut invalid = |why: &str| errors.invalid(&path.child("deprecationWarning"), warning, why);
    if version["deprecated"] != true {
        return invalid("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        invalid("must be <= 256 characters long");
    }
    if warning.is_empty() {
        invalid("must not be an empty string");
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        );
        invalid(&why);
    }
}

/// Upstream: `ValidateCustomResourceDefinitionSubresources`.
pub(super) fn check_subresources(subresources: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(scale) = at(subresources, &["scale"]) else { return };
    for (field, shown, root) in [
        ("specReplicasPath", "scale.specReplicasPath", ".spec."),
        ("statusReplicasPath", "scale.statusReplicasPath", ".status."),
    ] {
        match str_at(scale, &[field]) {
            None => errors.required(&path.child(shown), ""),
            Some(text) if !text.starts_with('.') => {
                errors.invalid(&path.child(shown), text, "must be a simple json path starting with .");
            }
            Some(text) if !text.starts_with(root) => {
                let why = format!("should be a json path under {}", root.trim_end_matches('.'));
                errors.invalid(&path.child(shown), text, &why);
            }
            Some(_) => {}
        }
    }
    if let Some(text) = str_at(scale, &["labelSelectorPath"]) {
        let place = path.child("scale.labelSelectorPath");
        if !text.starts_with('.') {
            errors.invalid(&place, text, "must be a simple json path starting with .");
        } else if !text.starts_with(".spec.") && !text.starts_with(".status.") {
            errors.invalid(&place, text, "should be a json path under either .spec or .status");
        }
    }
}

/// Upstream: `ValidateCustomResourceColumnDefinition`.
pub(super) fn check_columns(columns: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, column) in columns.as_array().into_iter().flatten().enumerate() {
        let path = path.index(i);
        if str_at(column, &["name"]).is_none() {
            errors.required(&path.child("name"), "");
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        match str_at(column, &["type"]) {
            None => errors.required(&path.child("type"), &types),
            Some(text) if !COLUMN_TYPES.contains(&text) => errors.invalid(&path.child("type"), text, &types),
            Some(_) => {}
        }
        if let Some(format) = str_at(column, &["format"]).filter(|f| !COLUMN_FORMATS.contains(f)) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.invalid(&path.child("format"), format, &why);
        }
        let place = path.child("JSONPath");
        match str_at(column, &["jsonPath"]) {
            None => errors.required(&place, ""),
            Some(text) if !text.starts_with('.') => {
                errors.invalid(&place, text, "must be a simple json path starting with .");
            }
            Some(text) if JsonPath::parse(text).is_none() => {
                errors.invalid(&place, text, "must be a json path in the dot notation");
            }
            Some(_) => {}
        }
    }
}

/// Upstream: `ValidateCustomResourceSelectableFields`.
pub(super) fn check_selectable(
    fields: &Value,
    schema: Option<&Value>,
    old: Option<&Value>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, field) in fields.as_array().into_iter().flatten().enumerate() {
        let place = path.index(i);
        let place = place.child("jsonPath");
        let Some(text) = str_at(field, &["jsonPath"]) else {
            errors.required(&place, "");
            continue;
        };
        let Some(found) = find(schema, text) else {
            errors.invalid(&place, text, "is an invalid path: does not refer to a valid field");
            continue;
        };
        if text == ".metadata" || text.starts_with(".metadata.") {
            errors.invalid(&place, text, "must not point to fields in metadata");
        }
        if !matches!(str_at(found, &["type"]), Some("string" | "boolean" | "integer")) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&place, text, why);
        }
        if seen.contains(&text) {
            errors.duplicate(&place, text);
        } else {
            seen.push(text);
        }
    }
    let unchanged = old.is_some_and(|old| old == fields);
    if seen.len() > MOST_SELECTABLE && !unchanged {
        errors.too_many(path, seen.len(), MOST_SELECTABLE);
    }
}

/// The schema that a simple path leads to.
fn find<'a>(schema: Option<&'a Value>, path: &str) -> Option<&'a Value> {
    path.strip_prefix('.')?.split('.').try_fold(schema?, |schema, name| schema.get("properties")?.get(name))
}
