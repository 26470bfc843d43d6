//! Server-side apply: who owns which field, and what applying a configuration does to an object.
//!
//! The rules are those of structured-merge-diff (kubernetes-sigs/structured-merge-diff, `merge/update.go`,
//! `typed/`) and of the managers around it (kubernetes/kubernetes, `apimachinery/pkg/util/managedfields/internal`):
//!
//! * [`FieldSet`] is a set of paths, kept in the very form `fieldsV1` has on the wire, so that most writes move sets
//!   about without ever parsing a path.
//! * [`Shapes`] walks values along their schema: what a configuration names, what differs between two states,
//!   what a merge gives, what is left when fields are taken away.
//! * [`Managers`] is an object's `managedFields`: [`Managers::update`] after a plain write, [`Managers::apply`] for
//!   a configuration.

mod atomics;
mod compare;
mod element;
mod managers;
mod merge;
mod owned;
mod remove;
mod set;

pub use compare::Difference;
pub use managers::{Applied, ApplyError, Conflict, Manager, Managers, Operation};
pub use owned::ListFault;
pub use set::FieldSet;

use std::sync::LazyLock;

use crate::schema::{Definitions, FieldSchema, ListType, Shape};

/// A kind's shape, and the types it refers to.
#[derive(Clone, Copy)]
pub struct Shapes<'a> {
    /// All types.
    pub definitions: &'a Definitions,
    /// The kind's own.
    pub root: &'a FieldSchema,
}

/// How a field merges.
enum Relation<'a> {
    /// As one value.
    Leaf,
    /// By key; the function `child` of [`Shapes`] tells the values' schemas. `named` is true of a type's own fields.
    Map { named: bool },
    /// As a list whose elements are told apart.
    List { items: &'a FieldSchema, by: &'a ListType },
}

/// The schema of what no schema describes.
static UNTYPED: LazyLock<FieldSchema> = LazyLock::new(FieldSchema::default);

impl<'a> Shapes<'a> {
    /// How values of a shape merge; `sample` decides where there is no schema.
    fn relation(&self, field: &'a FieldSchema, sample: &serde_json::Value) -> Relation<'a> {
        let resolved = self.definitions.resolve(field);
        if field.atomic || resolved.atomic {
            return Relation::Leaf;
        }
        match &resolved.shape {
            Shape::Object(_) if sample.is_object() => Relation::Map { named: true },
            Shape::Map(_) | Shape::Any if sample.is_object() => Relation::Map { named: false },
            Shape::List(items) if sample.is_array() => {
                let by =
                    if field.list_type == ListType::Atomic { &resolved.list_type } else { &field.list_type };
                if *by == ListType::Atomic { Relation::Leaf } else { Relation::List { items, by } }
            }
            _ => Relation::Leaf,
        }
    }

    /// The schema of the value under `key` of a value of shape `of`.
    fn child(&self, of: &'a FieldSchema, key: &str) -> &'a FieldSchema {
        self.definitions.field(of, key).unwrap_or(&UNTYPED)
    }

    /// Whether `key` is a field that the type `of` names.
    fn is_named(&self, of: &'a FieldSchema, key: &str) -> bool {
        matches!(self.definitions.resolve(of).shape, Shape::Object(_))
            && self.definitions.field(of, key).is_some()
    }
}

#[cfg(test)]
mod tests;
