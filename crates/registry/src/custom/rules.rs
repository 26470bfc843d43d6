//! Rules that a schema states in CEL (`x-kubernetes-validations`): `compile.rs` readies them, `evaluate.rs` holds objects
//! against them, `schema.rs` checks the rules themselves when a definition is written (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/schema/cel`).

mod compile;
mod evaluate;
mod field_path;
mod schema;

use std::sync::Arc;

use serde_json::Value;
use types::FieldErrors;

pub(super) use schema::check_schema;

/// The readied rules of one schema.
pub trait SchemaRules: Send + Sync {
    /// Says which rules an object breaks; `old` is what it was before, for rules about changes.
    fn check(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors);
}

/// The rules that stand in a schema.
pub(super) fn compile(schema: &Value) -> Option<Arc<dyn SchemaRules>> {
    let node = compile::Node::of(schema, "selfType", true)?;
    Some(Arc::new(node))
}

#[cfg(test)]
mod tests;
