use jiff::Timestamp;
use serde_json::{Value, json};
use types::{Definitions, FieldErrors, FieldSchema, Path, Shape, at, str_at};

use super::{Custom, follow, lists};
use crate::strategy::Strategy;

/// Errors after which rules in CEL could only say the same again (kubernetes/kubernetes,
/// `apiextensions-apiserver/pkg/registry/customresource/strategy.go`, `hasBlockingErr`).
const BLOCKING: [&str; 5] = [
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];

/// kubernetes/kubernetes, `apiextensions-apiserver/pkg/registry/customresource/strategy.go`.
impl Strategy for Custom {
    fn default(&self, object: &mut Value) {
        if let Some((definitions, field)) = self.shape() {
            definitions.fill(field, object);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if let (true, Value::Object(map)) = (self.has_status, &mut *object) {
            map.remove("status");
        }
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if but_metadata(new).ne(but_metadata(old)) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = json!(generation);
        }
    }

    fn prepare_status_update(&self, new: &mut Value, _old: &Value) {
        Strategy::default(self, new);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        self.compiled().validator.check(object, None, "", errors);
        self.check_scale(object, errors);
        self.check_embedded(object, errors);
        self.check_lists(object, errors);
        self.check_rules(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.compiled().validator.check(new, Some(old), "", errors);
        self.check_scale(new, errors);
        self.check_embedded(new, errors);
        let mut before = FieldErrors::new();
        self.check_lists(old, &mut before);
        if before.is_empty() {
            self.check_lists(new, errors);
        }
        self.check_rules(new, Some(old), errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if let (Some(rules), Some(status)) = (self.compiled().validator.property("status"), new.get("status"))
        {
            rules.check(status, old.get("status"), "status", errors);
        }
        let mut before = FieldErrors::new();
        self.check_lists(old, &mut before);
        if before.is_empty() {
            self.check_lists(new, errors);
        }
        self.check_rules(new, Some(old), errors);
    }

    fn is_selectable(&self, name: &str) -> bool {
        self.selectable.iter().any(|(selectable, _)| **selectable == *name)
    }

    fn selectable_values(&self, object: &Value) -> Vec<(Box<str>, Box<str>)> {
        Custom::selectable_values(self, object)
    }

    /// Generations are counted above: every change but one of metadata counts.
    fn has_generation(&self) -> bool {
        false
    }

    fn column_definitions(&self) -> Vec<Value> {
        self.columns.definitions()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.columns.cells(object, now)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let finalizers = at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
        let bare = finalizers.into_iter().flatten().filter_map(Value::as_str).filter(|f| !f.contains('/'));
        let standard = |f: &&str| !matches!(*f, "foregroundDeletion" | "orphan");
        bare.filter(standard)
            .map(|f| {
                format!(
                    "metadata.finalizers: {f:?}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
                )
            })
            .collect()
    }
}

fn but_metadata(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata")
}

impl Custom {
    /// Upstream: `apiextensions-apiserver/pkg/registry/customresource/validator.go`, `ValidateScaleSpec`,
    /// `ValidateScaleStatus`.
    fn check_scale(&self, object: &Value, errors: &mut FieldErrors) {
        let Some(scale) = &self.scale else { return };
        for path in [&scale.spec_replicas, &scale.status_replicas] {
            let Some(replicas) = follow(object, path) else { continue };
            let field = path.join(".");
            let mut invalid = |why: String| {
                errors.add("FieldValueInvalid", &*field, format!("Invalid value: {replicas}: {why}"));
            };
            match replicas.as_i64() {
                Some(n) if n < 0 => invalid("should be a non-negative integer".into()),
                Some(n) if n > i64::from(i32::MAX) => {
                    invalid(format!("should be less than or equal to {}", i32::MAX));
                }
                _ => {}
            }
        }
    }

    fn check_lists(&self, object: &Value, errors: &mut FieldErrors) {
        if let Some((definitions, field)) = self.shape() {
            lists::check(definitions, field, object, None, errors);
        }
    }

    /// Whole objects inside the object have the metadata that objects have (upstream:
    /// `apiextensions-apiserver/pkg/apiserver/schema/objectmeta/validation.go`).
    fn check_embedded(&self, object: &Value, errors: &mut FieldErrors) {
        if let Some((definitions, field)) = self.shape() {
            embedded(definitions, field, object, None, errors);
        }
    }

    fn check_rules(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let Some(rules) = &self.compiled().rules else { return };
        if errors.iter().any(|e| BLOCKING.contains(&e.reason)) {
            let why = "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            return errors.add("FieldValueInvalid", "<nil>", why);
        }
        rules.check(new, old, errors);
    }
}

fn embedded(
    definitions: &Definitions,
    field: &FieldSchema,
    value: &Value,
    path: Option<&Path<'_>>,
    errors: &mut FieldErrors,
) {
    if let (true, Some(path), true) = (field.embedded, path, value.is_object()) {
        for name in ["apiVersion", "kind"] {
            if str_at(value, &[name]).is_none() {
                errors.required(&path.child(name), "must not be empty");
            }
        }
        let metadata = path.child("metadata");
        types::validate_labels(at(value, &["metadata", "labels"]), &metadata.child("labels"), errors);
        types::validate_annotations(
            at(value, &["metadata", "annotations"]),
            &metadata.child("annotations"),
            errors,
        );
        if let Some(name) = str_at(value, &["metadata", "name"])
            && let Some(fault) = types::path_segment(name)
        {
            errors.invalid(&metadata.child("name"), name, &fault);
        }
    }
    match (value, &field.shape) {
        (_, Shape::Ref(_)) => {}
        (Value::Object(map), _) => {
            for (key, child) in map {
                let Some(schema) = definitions.field(field, key) else { continue };
                let below = path.map_or(Path::new(key), |p| p.child(key));
                embedded(definitions, schema, child, Some(&below), errors);
            }
        }
        (Value::Array(items), Shape::List(schema)) => {
            let root = Path::new("");
            for (i, item) in items.iter().enumerate() {
                embedded(definitions, schema, item, Some(&path.unwrap_or(&root).index(i)), errors);
            }
        }
        _ => {}
    }
}
