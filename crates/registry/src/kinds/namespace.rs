//! Namespaces (kubernetes/kubernetes, `pkg/registry/core/namespace/strategy.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, dns_label, ensure_object, qualified_name};

use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(super) struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        let name = object["metadata"]["name"].clone();
        if name.is_string() {
            ensure_object(ensure_object(object, "metadata"), "labels")["kubernetes.io/metadata.name"] = name;
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let finalizers = ensure_object(object, "spec").as_object_mut().map(|spec| {
            let list = spec.entry("finalizers").or_insert_with(|| json!([]));
            let has = list.as_array().is_some_and(|l| l.iter().any(|f| f == "kubernetes"));
            if !has && let Some(list) = list.as_array_mut() {
                list.push("kubernetes".into());
            }
        });
        debug_assert!(finalizers.is_some());
        object["status"] = json!({"phase": "Active"});
    }

    /// `spec.finalizers` is changed through `finalize` only.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let spec = types::object(ensure_object(new, "spec"));
        match at(old, &["spec", "finalizers"]) {
            Some(finalizers) => drop(spec.insert("finalizers".into(), finalizers.clone())),
            None => drop(spec.remove("finalizers")),
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("spec");
        let path = path.child("finalizers");
        for finalizer in at(object, &["spec", "finalizers"]).and_then(Value::as_array).into_iter().flatten() {
            let finalizer = finalizer.as_str().unwrap_or_default();
            for fault in qualified_name(finalizer) {
                errors.invalid(&path, finalizer, &fault);
            }
            if !finalizer.contains('/')
                && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion")
            {
                let fault = "name is neither a standard finalizer name nor is it fully qualified";
                errors.invalid(&path, finalizer, fault);
            }
        }
    }

    fn validate_update(&self, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    fn validate_name(&self, name: &str) -> Option<String> {
        dns_label(name)
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::NAMESPACE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::namespace_cells(object, now)
    }
}
