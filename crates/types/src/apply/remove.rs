//! What is left of an object without some of its fields (structured-merge-diff, `typed/remove.go`).

use serde_json::Value;

use super::element;
use super::set::{self, FieldSet, Node, place};
use super::{Relation, Shapes};
use crate::schema::FieldSchema;

impl<'a> Shapes<'a> {
    /// Takes the fields of a set out of `object`. What is empty afterwards goes too.
    pub(super) fn remove(&self, object: &mut Value, fields: &FieldSet) {
        self.remove_below(self.root, object, &fields.0);
    }

    /// Tells whether anything is left.
    fn remove_below(&self, field: &'a FieldSchema, value: &mut Value, fields: &Node) -> bool {
        if set::children(fields).next().is_none() {
            return true;
        }
        // Whether an element stays, with `fields` below it.
        let stays = |schema: &'a FieldSchema, value: &mut Value, name: &str| match set::below(fields, name) {
            None => true,
            Some(node) if set::is_member(node) => false,
            Some(node) => self.remove_below(schema, value, node),
        };
        match self.relation(field, value) {
            Relation::Leaf => true,
            Relation::Map { .. } => {
                let Value::Object(map) = value else { return true };
                map.retain(|key, child| stays(self.child(field, key), child, &element::field(key)));
                !map.is_empty()
            }
            Relation::List { items, by } => {
                let Value::Array(list) = value else { return true };
                list.retain_mut(|item| match element::item(by, item) {
                    Some(name) => stays(items, item, &name),
                    None => true,
                });
                !list.is_empty()
            }
        }
    }

    /// The set with every field that a type names and that has members below it as a member itself.
    pub(super) fn with_named_parents(&self, fields: &FieldSet) -> FieldSet {
        FieldSet(self.parents_below(Some(self.root), &fields.0))
    }

    fn parents_below(&self, field: Option<&'a FieldSchema>, node: &Node) -> Node {
        let mut out = Node::new();
        for (name, below) in set::children(node) {
            let (child, named) = match (name.split_once(':'), field) {
                (Some(("f", key)), Some(field)) => (Some(self.child(field, key)), self.is_named(field, key)),
                (_, Some(field)) => (self.definitions.items(field), false),
                (_, None) => (None, false),
            };
            let member = set::is_member(below) || named;
            if let Some(place) = place(self.parents_below(child, below), member) {
                out.insert(name.clone(), Value::Object(place));
            }
        }
        out
    }
}
