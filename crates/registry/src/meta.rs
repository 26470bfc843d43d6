//! Rules for `metadata` (kubernetes/kubernetes, `apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::Value;
use types::{
    Definitions, FieldErrors, Path, at, qualified_name, str_at, validate_annotations, validate_labels,
};

use crate::def::ResourceDef;

const META: Path<'static> = Path::new("metadata");

/// What is wrong with a new object's metadata.
pub fn validate_meta(def: &ResourceDef, object: &Value, errors: &mut FieldErrors) {
    let name = str_at(object, &["metadata", "name"]);
    match name {
        None => errors.required(&META.child("name"), "name or generateName is required"),
        Some(name) => {
            if let Some(fault) = def.strategy.validate_name(name) {
                errors.invalid(&META.child("name"), name, &fault);
            }
        }
    }
    if let Some(base) = str_at(object, &["metadata", "generateName"]) {
        let trial = format!("{}x", base.trim_end_matches('-'));
        if let Some(fault) = def.strategy.validate_name(&trial) {
            errors.invalid(&META.child("generateName"), base, &fault);
        }
    }
    let namespace = str_at(object, &["metadata", "namespace"]);
    match namespace {
        Some(_) if !def.namespaced => {
            errors.forbidden(&META.child("namespace"), "not allowed on this type");
        }
        None if def.namespaced => errors.required(&META.child("namespace"), ""),
        Some(namespace) => {
            if let Some(fault) = types::dns_label(namespace) {
                errors.invalid(&META.child("namespace"), namespace, &fault);
            }
        }
        None => {}
    }
    common(object, errors);
}

/// What is wrong with the conditions in a status that are of the common type. Clients cannot read one without its time
/// (kubernetes/kubernetes, `apimachinery/pkg/apis/meta/v1/validation/validation.go`, `ValidateConditions`).
pub fn validate_conditions(
    definitions: &Definitions,
    def: &ResourceDef,
    object: &Value,
    errors: &mut FieldErrors,
) {
    let status = def.schema.and_then(|schema| definitions.field(&definitions.get(schema).field, "status"));
    let field = status.and_then(|status| definitions.field(status, "conditions"));
    if !field.is_some_and(|f| definitions.lists(f, "io.k8s.apimachinery.pkg.apis.meta.v1.Condition")) {
        return;
    }
    let status = Path::new("status");
    let path = status.child("conditions");
    let conditions = at(object, &["status", "conditions"]).and_then(Value::as_array);
    for (i, condition) in conditions.into_iter().flatten().enumerate() {
        for field in ["type", "status", "lastTransitionTime"] {
            if str_at(condition, &[field]).is_none() {
                errors.required(&path.index(i).child(field), "");
            }
        }
    }
}

fn common(object: &Value, errors: &mut FieldErrors) {
    validate_labels(at(object, &["metadata", "labels"]), &META.child("labels"), errors);
    validate_annotations(at(object, &["metadata", "annotations"]), &META.child("annotations"), errors);
    let finalizers = at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
    for finalizer in finalizers.into_iter().flatten().filter_map(Value::as_str) {
        for fault in qualified_name(finalizer) {
            errors.invalid(&META.child("finalizers"), finalizer, &fault);
        }
    }
    let owners = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    let path = META.child("ownerReferences");
    let mut controllers = 0;
    for (i, owner) in owners.into_iter().flatten().enumerate() {
        let path = path.index(i);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if str_at(owner, &[field]).is_none() {
                errors.invalid(&path.child(field), "", &format!("{field} must not be empty"));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        errors.invalid(&path, Value::Null, "Only one reference can have Controller set to true");
    }
}

/// What is wrong with a changed object's metadata.
pub fn validate_meta_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (new, old) = (&new["metadata"][field], &old["metadata"][field]);
        if new != old {
            errors.immutable(&META.child(field), new);
        }
    }
    if !old["metadata"]["deletionTimestamp"].is_null() {
        let set = |object: &Value| -> Vec<String> {
            let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let before = set(old);
        let added: Vec<String> = set(new).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.forbidden(&META.child("finalizers"), &detail);
        }
    }
    common(new, errors);
}
