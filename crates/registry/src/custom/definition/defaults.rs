use serde_json::Value;
use types::{Definitions, FieldErrors, Path, at};

use crate::custom::schema;
use crate::custom::validator::Validator;

/// Defaults must be values that the schema takes and keeps (kubernetes/kubernetes,
/// `apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go`).
pub(super) fn check(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(default) = at(schema, &["default"]) {
        let place = path.child("default");
        let definitions = Definitions::default();
        let mut pruned = default.clone();
        definitions.prune(&schema::field(schema, &definitions), &mut pruned, &mut Vec::new());
        if pruned != *default {
            errors.invalid(&place, default.clone(), "must not have unknown fields");
        }
        Validator::new(schema).check(default, None, &place.to_string(), errors);
    }
    if let Some(items) = at(schema, &["items"]).filter(|i| i.is_object()) {
        check(items, &path.child("items"), errors);
    }
    let below = path.child("properties");
    for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check(schema, &below.key(name), errors);
    }
}
