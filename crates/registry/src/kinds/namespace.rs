//! Namespaces (kubernetes/kubernetes, `pkg/registry/core/namespace/strategy.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{at, dns_label, ensure_object};

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
        if let Some(finalizers) = at(old, &["spec", "finalizers"]) {
            ensure_object(new, "spec")["finalizers"] = finalizers.clone();
        }
    }

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
