//! The rules of CustomResourceDefinitions themselves (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`,
//! `apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go`).

mod approval;
mod conversion;
mod defaults;
mod openapi;
mod spec;
mod structural;
mod version;

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, ensure_object, object, set_default, str_at};

use super::formats;
use crate::strategy::Strategy;

/// The finalizer behind which a definition waits until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

const SPEC: Path<'static> = Path::new("spec");

/// The strategy of definitions.
pub(crate) struct Definition;

impl Strategy for Definition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        let kind = str_at(spec, &["names", "kind"]).unwrap_or_default().to_owned();
        if spec["names"].is_object() && !kind.is_empty() {
            for (key, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
                if str_at(spec, &["names", key]).is_none() {
                    spec["names"][key] = value.into();
                }
            }
        }
        if spec["conversion"].is_null() {
            spec["conversion"] = json!({"strategy": "None"});
        }
        if let Some(service) = types::at_mut(spec, &["conversion", "webhook", "clientConfig", "service"]) {
            set_default(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"acceptedNames": {"kind": "", "plural": ""}, "storedVersions": []});
        store_version(object);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        store_version(new);
    }

    fn prepare_delete(&self, object: &mut Value, now: &str) {
        let metadata = ensure_object(object, "metadata");
        let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
        if !metadata["deletionTimestamp"].is_null() || finalizers.iter().any(|f| f == CLEANUP) {
            return;
        }
        finalizers.push(CLEANUP.into());
        metadata["finalizers"] = finalizers.into();
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(object, "Terminating", true, "InstanceDeletionPending", message, now);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let expected = format!(
            "{}.{}",
            str_at(object, &["spec", "names", "plural"]).unwrap_or_default(),
            str_at(object, &["spec", "group"]).unwrap_or_default()
        );
        let name = str_at(object, &["metadata", "name"]).unwrap_or_default();
        if name != expected {
            let meta = Path::new("metadata");
            errors.invalid(&meta.child("name"), name, "must be spec.names.plural+\".\"+spec.group");
        }
        spec::check(&object["spec"], None, errors);
        check_status(object, errors);
        approval::check(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        spec::check(&new["spec"], Some(&old["spec"]), errors);
        let mut fixed: Vec<&[&str]> = vec![&["group"], &["names", "plural"]];
        if is_true(old, "Established") {
            fixed.splice(0..0, [&["scope"][..], &["names", "kind"]]);
        }
        for path in fixed {
            let (now, before) = (at(&new["spec"], path), at(&old["spec"], path));
            if now != before {
                let names = SPEC.child(path[0]);
                let place = path.get(1).map_or(names, |last| names.child(last));
                errors.immutable(&place, now.unwrap_or(&Value::Null));
            }
        }
        check_status(new, errors);
        approval::check(new, Some(old), errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        let status = Path::new("status");
        spec::check_names(&new["status"]["acceptedNames"], &status.child("acceptedNames"), errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        for version in object["spec"]["versions"].as_array().into_iter().flatten() {
            unknown_formats(&version["schema"]["openAPIV3Schema"], &mut unknown);
        }
        unknown.into_iter().map(|format| format!("unrecognized format {format:?}")).collect()
    }

    fn column_definitions(&self) -> Vec<Value> {
        let column = |name: &str, kind: &str, format: &str| json!({"name": name, "type": kind, "format": format, "description": "", "priority": 0});
        vec![column("Name", "string", "name"), column("Created At", "date", "")]
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
    }
}

/// Notes the version that objects are stored in from now on.
fn store_version(crd: &mut Value) {
    let versions = crd["spec"]["versions"].as_array();
    let storage = versions.into_iter().flatten().find(|v| v["storage"] == true);
    let Some(name) = storage.and_then(|v| v["name"].as_str()).map(str::to_owned) else { return };
    let status = ensure_object(crd, "status");
    let mut stored = status["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.iter().any(|v| *v == name) {
        stored.push(name.into());
        status["storedVersions"] = stored.into();
    }
}

/// Sets a condition of an object; its time changes with its status only. Gives whether anything changed.
pub fn set_condition(
    crd: &mut Value,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: &str,
) -> bool {
    let status = if status { "True" } else { "False" };
    let conditions = object(ensure_object(crd, "status")).entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(list) = conditions else { return false };
    let found = list.iter_mut().find(|c| c["type"] == kind);
    let since = match &found {
        Some(old) if old["status"] == status => old["lastTransitionTime"].as_str().unwrap_or(now).to_owned(),
        _ => now.to_owned(),
    };
    let condition = json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    match found {
        Some(old) if *old == condition => return false,
        Some(old) => *old = condition,
        None => list.push(condition),
    }
    true
}

/// Whether a condition of a definition is true.
pub fn is_true(crd: &Value, kind: &str) -> bool {
    let conditions = at(crd, &["status", "conditions"]).and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

fn check_status(crd: &Value, errors: &mut FieldErrors) {
    let status = Path::new("status");
    spec::check_names(&crd["status"]["acceptedNames"], &status.child("acceptedNames"), errors);
    let path = status.child("storedVersions");
    let stored = crd["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    let versions = || crd["spec"]["versions"].as_array().into_iter().flatten();
    if stored.is_empty() {
        return errors.invalid(&path, stored, "must have at least one stored version");
    }
    for version in versions().filter(|v| v["storage"] == true) {
        if !stored.contains(&version["name"]) {
            let name = version["name"].as_str().unwrap_or_default();
            errors.invalid(&path, stored.clone(), &format!("must have the storage version {name}"));
        }
    }
    for (i, name) in stored.iter().enumerate() {
        if !versions().any(|v| v["name"] == *name) {
            let text = name.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {text} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {text} and removes {text} from status.storedVersions"
            );
            errors.invalid(&path.index(i), text, &why);
        }
    }
}

fn unknown_formats(schema: &Value, unknown: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(format) = map.get("format").and_then(Value::as_str)
                && !format.is_empty()
                && !formats::is_known(format)
                && !unknown.iter().any(|f| f == format)
            {
                unknown.push(format.to_owned());
            }
            let below = |key: &str| !matches!(key, "default" | "enum" | "example");
            map.iter().filter(|(key, _)| below(key)).for_each(|(_, v)| unknown_formats(v, unknown));
        }
        Value::Array(items) => items.iter().for_each(|v| unknown_formats(v, unknown)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
