//! Rules for `metadata` (kubernetes/kubernetes, `apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::Value;
use types::{
    Definitions, FieldErrors, Path, at, qualified_name, str_at, validate_annotations, validate_labels,
};

use crate::def::ResourceDef;

const META: Path<'static> = Path::new("metadata");

/// What is wrong with a new object's metadata.
pub fn validate_meta(def: &ResourceDef, object: &Value, errors: &mut FieldErrors) {
    if let Some(base) = str_at(object, &["metadata", "generateName"]) {
        let trial = format!("{}x", base.trim_end_matches('-'));
        if let Some(fault) = def.strategy.validate_name(&trial) {
            errors.invalid(&META.child("generateName"), base, &fault);
        }
    }
    let name = str_at(object, &["metadata", "name"]);
    match name {
        None => errors.required(&META.child("name"), "name or generateName is required"),
        Some(name) => {
            if let Some(fault) = def.strategy.validate_name(name) {
                errors.invalid(&META.child("name"), name, &fault);
            }
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
    if is_of_kubernetes(&def.gvk.group) {
        let path = META.child("finalizers");
        let finalizers = at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
        for (i, finalizer) in finalizers.into_iter().flatten().filter_map(Value::as_str).enumerate() {
            if !finalizer.contains('/')
                && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion")
            {
                let fault = "name is neither a standard finalizer name nor is it fully qualified";
                errors.invalid(&path.index(i), finalizer, fault);
            }
        }
    }
}

/// Whether the group's kinds go by upstream's stricter rules for finalizers (`pkg/apis/core/validation`,
/// `ValidateObjectMeta`); those of extensions do not.
fn is_of_kubernetes(group: &str) -> bool {
    match group.strip_suffix(".k8s.io") {
        None => matches!(group, "" | "apps" | "autoscaling" | "batch" | "policy"),
        Some(rest) => matches!(
            rest,
            "admissionregistration"
                | "certificates"
                | "coordination"
                | "discovery"
                | "events"
                | "flowcontrol.apiserver"
                | "networking"
                | "node"
                | "rbac.authorization"
                | "resource"
                | "scheduling"
                | "storage"
        ),
    }
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
    owners(object, errors);
    let path = META.child("finalizers");
    let finalizers = at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
    for finalizer in finalizers.into_iter().flatten().filter_map(Value::as_str) {
        for fault in qualified_name(finalizer) {
            errors.invalid(&path, finalizer, &fault);
        }
    }
    let has = |name: &str| finalizers.is_some_and(|list| list.iter().any(|f| f == name));
    if has("orphan") && has("foregroundDeletion") {
        let both = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(&path, Value::Array(finalizers.cloned().unwrap_or_default()), both);
    }
}

fn owners(object: &Value, errors: &mut FieldErrors) {
    let Some(owners) = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array) else { return };
    let path = META.child("ownerReferences");
    let (mut controller, mut told): (Option<&str>, bool) = (None, false);
    for (i, owner) in owners.iter().enumerate() {
        let path = path.index(i);
        let text = |field: &str| str_at(owner, &[field]).unwrap_or_default();
        let version = text("apiVersion");
        if version.is_empty() || version.ends_with('/') {
            errors.invalid(&path.child("apiVersion"), version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.invalid(&path.child(field), "", "must not be empty");
            }
        }
        if (version, text("kind")) == ("v1", "Event") {
            errors.invalid(&path, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            if told {
                // Once is enough: each time the whole list is shown.
            } else if let Some(first) = controller {
                told = true;
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text("name")
                );
                errors.invalid(&META.child("ownerReferences"), Value::Array(owners.clone()), &detail);
            } else {
                controller = Some(text("name"));
            }
        }
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
        let before: std::collections::HashSet<String> = set(old).into_iter().collect();
        let added: Vec<String> =
            set(new).iter().filter(|f| !before.contains(*f)).map(|f| format!("{f:?}")).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&META.child("finalizers"), &detail);
        }
    }
    common(new, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Registry;

    #[test]
    fn metadata_by_upstreams_rules() {
        let registry = Registry::builtin();
        let def = registry.find("", "v1", "configmaps").unwrap();
        let faults = |extra: Value| {
            let mut object = json!({"metadata": {"name": "a", "namespace": "b"}});
            types::object(&mut object["metadata"]).extend(extra.as_object().cloned().unwrap_or_default());
            let mut errors = FieldErrors::default();
            validate_meta(def, &object, &mut errors);
            errors.to_string()
        };
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        for (extra, told) in [
            (json!({}), ""),
            (json!({"finalizers": ["orphan", "example.com/x"]}), ""),
            (
                json!({"finalizers": ["mine"]}),
                "metadata.finalizers[0]: Invalid value: \"mine\": name is neither",
            ),
            (json!({"finalizers": ["orphan", "foregroundDeletion"]}), "cannot be both set"),
            (json!({"ownerReferences": [owner("x"), owner("y")]}), "references for x and y"),
            (
                json!({"ownerReferences": [{"apiVersion": "apps/", "kind": "a", "name": "n", "uid": "u"}]}),
                "metadata.ownerReferences[0].apiVersion: Invalid value: \"apps/\": version must not be empty",
            ),
            (
                json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "n", "uid": "u"}]}),
                "/v1, Kind=Event is disallowed from being an owner",
            ),
        ] {
            let all = faults(extra);
            assert!(if told.is_empty() { all == "[]" } else { all.contains(told) }, "{told}: {all}");
        }
    }
}
