//! What an object and a configuration give together (structured-merge-diff, `typed/merge.go`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::element;
use super::{Relation, Shapes};
use crate::schema::{FieldSchema, ListType};

impl<'a> Shapes<'a> {
    /// `live` with everything that `config` names.
    pub fn merge(&self, live: &Value, config: &Value) -> Value {
        self.merge_at(self.root, Some(live), config)
    }

    fn merge_at(&self, field: &'a FieldSchema, live: Option<&Value>, config: &Value) -> Value {
        let Some(live) = live else { return config.clone() };
        match (self.relation(field, config), live, config) {
            (Relation::Map { .. }, Value::Object(live), Value::Object(config)) => {
                let mut merged = live.clone();
                for (key, value) in config {
                    let child = self.merge_at(self.child(field, key), live.get(key), value);
                    merged.insert(key.clone(), child);
                }
                Value::Object(merged)
            }
            (Relation::List { items, by }, Value::Array(live), Value::Array(config)) => {
                Value::Array(self.merge_lists(items, by, live, config))
            }
            _ => config.clone(),
        }
    }

    /// Walks both lists at once. Shared elements come in the configuration's order; elements that only one side has
    /// keep their place relative to that side's shared ones, the object's before the configuration's.
    fn merge_lists(
        &self,
        items: &'a FieldSchema,
        by: &ListType,
        live: &[Value],
        config: &[Value],
    ) -> Vec<Value> {
        let keyed = |list: &[Value]| -> Vec<String> {
            list.iter().map(|item| element::item(by, item).unwrap_or_default()).collect()
        };
        let (live_keys, config_keys) = (keyed(live), keyed(config));
        let mut in_live: HashMap<&str, &Value> = HashMap::with_capacity(live.len());
        for (key, value) in live_keys.iter().zip(live) {
            in_live.entry(key).or_insert(value);
        }
        let in_config: HashSet<&str> = config_keys.iter().map(String::as_str).collect();
        let mut shared = config_keys.iter().filter(|key| in_live.contains_key(key.as_str())).peekable();
        let mut merged = Vec::with_capacity(live.len().max(config.len()));
        let mut done: HashSet<&str> = HashSet::new();
        let (mut l, mut c) = (0, 0);
        while l < live.len() || c < config.len() {
            let mut take_config = c < config.len();
            if l < live.len() {
                let key = live_keys[l].as_str();
                if c < config.len() && key == config_keys[c] {
                    l += 1;
                } else if !in_config.contains(key) {
                    merged.push(live[l].clone());
                    l += 1;
                    take_config = false;
                } else if done.contains(key) {
                    l += 1;
                    take_config = false;
                } else if shared.peek().is_some_and(|next| *next != key) {
                    // It will come where the configuration has it.
                    l += 1;
                    take_config = false;
                }
            }
            if take_config {
                let key = config_keys[c].as_str();
                merged.push(self.merge_at(items, in_live.get(key).copied(), &config[c]));
                done.insert(key);
                if shared.peek().is_some_and(|next| *next == key) {
                    shared.next();
                }
                c += 1;
            }
        }
        merged
    }
}
