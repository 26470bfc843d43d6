use serde_json::Value;

use super::{Relation, Shapes};
use crate::schema::FieldSchema;

impl<'a> Shapes<'a> {
    /// The paths at which a configuration names lists, maps or structures that merge as one value only
    /// (kubernetes/kubernetes, `apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`, `findAtomics`).
    pub fn atomics(&self, config: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.atomics_at(self.root, config, "", &mut found);
        found
    }

    fn atomics_at(&self, field: &'a FieldSchema, value: &Value, path: &str, found: &mut Vec<String>) {
        match (self.relation(field, value), value) {
            (Relation::Leaf, Value::Object(_) | Value::Array(_)) => found.push(path.to_owned()),
            (Relation::Map { .. }, Value::Object(map)) => {
                for (key, value) in map {
                    self.atomics_at(self.child(field, key), value, &format!("{path}.{key}"), found);
                }
            }
            (Relation::List { items, .. }, Value::Array(list)) => {
                for (i, value) in list.iter().enumerate() {
                    self.atomics_at(items, value, &format!("{path}[{i}]"), found);
                }
            }
            _ => {}
        }
    }
}
