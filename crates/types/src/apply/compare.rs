//! How one state differs from another (structured-merge-diff, `typed/compare.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element;
use super::set::{FieldSet, Node, place};
use super::{Relation, Shapes};
use crate::schema::{FieldSchema, ListType};

/// What makes one state of an object another.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// Fields that are new or have a new value.
    pub changed: FieldSet,
    /// Fields that are no longer there.
    pub removed: FieldSet,
}

impl Difference {
    /// Whether the two states are the same.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The difference at one place: what was changed there and what was removed.
#[derive(Default)]
struct At {
    changed: Option<Node>,
    removed: Option<Node>,
}

/// Differences below a place.
#[derive(Default)]
struct Below {
    changed: Node,
    removed: Node,
}

impl Below {
    fn add(&mut self, key: impl Fn() -> String, at: At) {
        if let Some(node) = at.changed {
            self.changed.insert(key(), Value::Object(node));
        }
        if let Some(node) = at.removed {
            self.removed.insert(key(), Value::Object(node));
        }
    }
}

impl<'a> Shapes<'a> {
    /// How `new` differs from `old`.
    pub fn compare(&self, old: &Value, new: &Value) -> Difference {
        let at = self.compare_at(self.root, Some(old), Some(new), false);
        Difference {
            changed: FieldSet(at.changed.unwrap_or_default()),
            removed: FieldSet(at.removed.unwrap_or_default()),
        }
    }

    /// `named`: the place is a field that a type names. Such fields are not owned as such, only by their parts: in upstream's
    /// Go types most of them are always there.
    fn compare_at(
        &self,
        field: &'a FieldSchema,
        old: Option<&Value>,
        new: Option<&Value>,
        named: bool,
    ) -> At {
        if old == new {
            return At::default();
        }
        let Some(sample) = new.or(old) else { return At::default() };
        let relation = self.relation(field, sample);
        let alike = old.is_none_or(|old| std::mem::discriminant(old) == std::mem::discriminant(sample));
        let below = match relation {
            Relation::Leaf => None,
            _ if !alike || (is_nothing(old) && is_nothing(new)) => None,
            Relation::Map { .. } => Some(self.compare_maps(field, old, new)),
            Relation::List { items, by } => Some(self.compare_lists(items, by, old, new)),
        };
        let Some(below) = below else {
            let leaf = Some(Node::new());
            return match new {
                Some(_) => At { changed: leaf, removed: None },
                None => At { changed: None, removed: leaf },
            };
        };
        // Fields of types are left to their parts, and so are lists that a type names and maps' absence.
        let by_parts = named && matches!(relation, Relation::Map { named: true });
        At {
            changed: place(below.changed, old.is_none() && !by_parts),
            removed: place(below.removed, new.is_none() && !by_parts),
        }
    }

    fn compare_maps(&self, field: &'a FieldSchema, old: Option<&Value>, new: Option<&Value>) -> Below {
        let empty = Map::new();
        let old = old.and_then(Value::as_object).unwrap_or(&empty);
        let new = new.and_then(Value::as_object).unwrap_or(&empty);
        let mut below = Below::default();
        for (key, value) in new {
            let named = self.is_named(field, key);
            let at = self.compare_at(self.child(field, key), old.get(key), Some(value), named);
            below.add(|| element::field(key), at);
        }
        for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            let named = self.is_named(field, key);
            let at = self.compare_at(self.child(field, key), Some(value), None, named);
            below.add(|| element::field(key), at);
        }
        below
    }

    fn compare_lists(
        &self,
        items: &'a FieldSchema,
        by: &ListType,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Below {
        let (old, new) = (by_key(by, old), by_key(by, new));
        let mut below = Below::default();
        for (key, values) in &new {
            let at = match (old.get(key).map(Vec::as_slice), values.as_slice()) {
                (None, [value]) => self.compare_at(items, None, Some(value), false),
                (Some([before]), [value]) => self.compare_at(items, Some(before), Some(value), false),
                // Several elements with one key are one value.
                (Some(before), values) if before == values => At::default(),
                _ => At { changed: Some(Node::new()), removed: None },
            };
            below.add(|| key.clone(), at);
        }
        for (key, values) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            let at = match values.as_slice() {
                [value] => self.compare_at(items, Some(value), None, false),
                _ => At { changed: None, removed: Some(Node::new()) },
            };
            below.add(|| key.clone(), at);
        }
        below
    }
}

/// Elements by what tells them apart; those that cannot be told are left out.
fn by_key<'v>(by: &ListType, list: Option<&'v Value>) -> BTreeMap<String, Vec<&'v Value>> {
    let mut keyed: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for value in list.and_then(Value::as_array).into_iter().flatten() {
        if let Some(key) = element::item(by, value) {
            keyed.entry(key).or_default().push(value);
        }
    }
    keyed
}

/// Whether there is no value, or one without parts.
fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}
