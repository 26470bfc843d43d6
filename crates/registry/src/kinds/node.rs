//! Nodes, and the small cluster-wide kinds that go with them.

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, ensure_object, set_default};

use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(super) struct Node;

impl Strategy for Node {
    /// A node registers itself with its status (`pkg/registry/core/node/strategy.go`).
    fn prepare_create(&self, _object: &mut Value) {}

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field(&self, object: &Value, _name: &str) -> String {
        (object["spec"]["unschedulable"] == true).to_string()
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::NODE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::node_cells(object, now)
    }
}

pub(super) struct Lease;

impl Strategy for Lease {
    fn create_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::LEASE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::lease_cells(object, now)
    }
}

pub(super) struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn columns(&self) -> &'static [Column] {
        table::RUNTIME_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::runtime_class_cells(object, now)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        set_default(object, "preemptionPolicy", "PreemptLowerPriority");
        ensure_object(object, "metadata");
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        for field in ["value", "preemptionPolicy"] {
            if new[field] != old[field] {
                errors.forbidden(&Path::new(field), "may not be changed in an update.");
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::PRIORITY_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::priority_class_cells(object, now)
    }
}
