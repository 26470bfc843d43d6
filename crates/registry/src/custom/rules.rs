//! Rules that a schema states in CEL (`x-kubernetes-validations`). This is where their engine is joined on: [`compile`]
//! is asked for the rules of each version's schema when a definition is registered, and [`check_schema`] when a
//! definition is written.

use std::sync::Arc;

use serde_json::Value;
use types::FieldErrors;

/// The readied rules of one schema.
pub trait SchemaRules: Send + Sync {
    /// Says which rules an object breaks; `old` is what it was before, for rules about changes.
    fn check(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors);
}

/// The rules that stand in a schema. None are known yet: whatever they say, they refuse nothing.
pub(super) fn compile(_schema: &Value) -> Option<Arc<dyn SchemaRules>> {
    None
}

/// What is wrong with the rules that stand in a schema: syntax, types and costs. `old` is the schema as it was, whose
/// rules are not checked again; `path` leads to the schema.
pub(super) fn check_schema(_schema: &Value, _old: Option<&Value>, _path: &str, _errors: &mut FieldErrors) {}
