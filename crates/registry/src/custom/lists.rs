//! Lists that are sets or maps hold each element once (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go`).

use std::collections::HashMap;

use serde_json::{Map, Value};
use types::{Definitions, FieldErrors, FieldSchema, ListType, Path, Shape};

/// Reports elements that are there twice.
pub(super) fn check(
    definitions: &Definitions,
    field: &FieldSchema,
    value: &Value,
    path: Option<&Path<'_>>,
    errors: &mut FieldErrors,
) {
    match (value, &field.shape) {
        // The common types see to their own lists.
        (_, Shape::Ref(_)) => {}
        (Value::Object(map), _) => {
            for (key, child) in map {
                let Some(schema) = definitions.field(field, key) else { continue };
                let below = match (path, &field.shape) {
                    (Some(path), Shape::Map(_)) => path.key(key),
                    (Some(path), _) => path.child(key),
                    (None, _) => Path::new(key),
                };
                check(definitions, schema, child, Some(&below), errors);
            }
        }
        (Value::Array(items), Shape::List(schema)) => {
            let root = Path::new("");
            let path = path.unwrap_or(&root);
            match &field.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for i in repeated(items.iter()) {
                        errors.duplicate(&path.index(i), items[i].clone());
                    }
                }
                ListType::Map(keys) => check_map(keys, items, path, errors),
            }
            for (i, item) in items.iter().enumerate() {
                check(definitions, schema, item, Some(&path.index(i)), errors);
            }
        }
        _ => {}
    }
}

fn check_map(keys: &[Box<str>], items: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(i) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        let why = "must be an object for an array of list-type map";
        return errors.invalid(&path.index(i), items[i].clone(), why);
    }
    let key_of = |item: &Value| -> Value {
        let found = keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())));
        Value::Object(found.collect::<Map<_, _>>())
    };
    let names: Vec<Value> = items.iter().map(key_of).collect();
    for i in repeated(names.iter()) {
        errors.duplicate(&path.index(i), names[i].clone());
    }
}

/// Where values stand the second time.
fn repeated<'a>(values: impl ExactSizeIterator<Item = &'a Value>) -> Vec<usize> {
    if values.len() < 2 {
        return Vec::new();
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(values.len());
    let mut twice = Vec::new();
    for (i, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            twice.push(i);
        }
    }
    twice
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::custom::schema;

    #[test]
    fn finds_what_is_there_twice() {
        let schema = json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        }});
        let value = json!({"set": ["x", "y", "x", "x"], "map": [{"a": "1"}, {"a": "2"}, {"a": "1"}]});
        let definitions = Definitions::default();
        let mut errors = FieldErrors::new();
        check(&definitions, &schema::field(&schema, &definitions), &value, None, &mut errors);
        assert_eq!(
            errors.to_string(),
            "[map[2]: Duplicate value: {\"a\":\"1\"}, set[2]: Duplicate value: \"x\"]"
        );
    }
}
