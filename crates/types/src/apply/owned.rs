//! What a configuration names (structured-merge-diff, `typed/tofieldset.go`).

use serde_json::Value;

use super::element;
use super::set::{FieldSet, Node, place};
use super::{Relation, Shapes};
use crate::schema::FieldSchema;

/// Two elements of a list that cannot be told apart, or one that cannot be told at all.
#[derive(Clone, Debug, PartialEq)]
pub struct ListFault {
    /// The list, as `.spec.ports`.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl<'a> Shapes<'a> {
    /// The fields that `object` has. Lists whose elements cannot be told apart are faults.
    pub(super) fn owned(&self, object: &Value, faults: &mut Vec<ListFault>) -> FieldSet {
        FieldSet(self.owned_below(self.root, object, &mut Vec::new(), faults).unwrap_or_default())
    }

    /// What lies below a place that holds `value`; `None` if the place is a leaf.
    fn owned_below(
        &self,
        field: &'a FieldSchema,
        value: &Value,
        path: &mut Vec<String>,
        faults: &mut Vec<ListFault>,
    ) -> Option<Node> {
        let mut below = Node::new();
        match self.relation(field, value) {
            Relation::Leaf => return None,
            Relation::Map { named } => {
                for (key, child) in value.as_object().into_iter().flatten() {
                    let schema = self.child(field, key);
                    path.push(element::field(key));
                    let fields = self.owned_below(schema, child, path, faults);
                    // A type's field is not owned as such if it has parts; a map's key is.
                    let own = fields.is_none()
                        || !(named && self.is_named(field, key))
                        || child.as_object().is_some_and(serde_json::Map::is_empty);
                    if let (Some(node), Some(name)) = (place(fields.unwrap_or_default(), own), path.pop()) {
                        below.insert(name, Value::Object(node));
                    }
                }
            }
            Relation::List { items, by } => {
                for item in value.as_array().into_iter().flatten() {
                    let Some(name) = element::item(by, item) else {
                        faults
                            .push(self.fault(path, "an element lacks the keys that tell it from the others"));
                        continue;
                    };
                    if below.contains_key(&name) {
                        let why = format!("duplicate entries for key {}", element::display(&[&name]));
                        faults.push(self.fault(path, &why));
                        continue;
                    }
                    path.push(name);
                    let fields = self.owned_below(items, item, path, faults);
                    if let (Some(node), Some(name)) = (place(fields.unwrap_or_default(), true), path.pop()) {
                        below.insert(name, Value::Object(node));
                    }
                }
            }
        }
        Some(below)
    }

    fn fault(&self, path: &[String], why: &str) -> ListFault {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        ListFault { path: element::display(&path), why: why.to_owned() }
    }
}
