//! Path elements: `f:name`, `k:{"name":"web"}`, `v:"a-finalizer"`, as `fieldsV1` writes them.

use serde_json::{Map, Value};

use crate::schema::ListType;

/// A field or a map's key.
pub(super) fn field(name: &str) -> String {
    let mut element = String::with_capacity(name.len() + 2);
    element.push_str("f:");
    element.push_str(name);
    element
}

/// What tells an element of a list from the others; `None` if the element lacks all of its keys.
pub(super) fn item(by: &ListType, value: &Value) -> Option<String> {
    match by {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{value}")),
        ListType::Map(keys) => {
            let mut found = Map::new();
            for key in keys {
                if let Some(value) = value.get(&**key).cloned().or_else(|| default_of(key)) {
                    found.insert(key.to_string(), value);
                }
            }
            (!found.is_empty()).then(|| format!("k:{}", Value::Object(found)))
        }
    }
}

/// Keys that a user may leave out have a default. Of the built-in types' keys that is true of one: the protocol of a
/// container's or Service's port.
fn default_of(key: &str) -> Option<Value> {
    (key == "protocol").then(|| "TCP".into())
}

/// A path as conflicts show it: `.spec.containers[name="web"].image`.
pub(super) fn display(path: &[&str]) -> String {
    let mut text = String::new();
    for element in path {
        match element.split_once(':') {
            Some(("f", name)) => {
                text.push('.');
                text.push_str(name);
            }
            Some(("v", value)) => text.push_str(&format!("[={value}]")),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                text.push_str(&format!("[{}]", keys.join(",")));
            }
            Some(("i", index)) => text.push_str(&format!("[{index}]")),
            _ => text.push_str(element),
        }
    }
    text
}

/// An element in its one canonical spelling; `None` if it is none at all.
pub(super) fn canonical(element: &str) -> Option<String> {
    match element.split_once(':')? {
        ("f", _) => Some(element.to_owned()),
        ("v", value) => Some(format!("v:{}", serde_json::from_str::<Value>(value).ok()?)),
        ("k", keys) => {
            Some(format!("k:{}", Value::Object(serde_json::from_str::<Map<String, Value>>(keys).ok()?)))
        }
        ("i", index) => index.parse::<i64>().ok().map(|index| format!("i:{index}")),
        _ => None,
    }
}
