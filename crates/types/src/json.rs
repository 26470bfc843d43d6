//! Small steps through JSON objects.

use serde_json::{Map, Value};

/// The value at a path of keys.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, key| v.get(key)).filter(|v| !v.is_null())
}

/// The value at a path of keys, to change.
pub fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |v, key| v.get_mut(key)).filter(|v| !v.is_null())
}

/// The text at a path of keys; empty text counts as absent.
pub fn str_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path).and_then(Value::as_str).filter(|s| !s.is_empty())
}

/// The object itself; anything that is no object becomes an empty one.
pub fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The object at `key`, made if it is not there.
pub fn ensure_object<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    let child = object(value).entry(key).or_insert(Value::Null);
    object(child);
    child
}

/// Sets `key` to `to` unless it has a value; null counts as none.
pub fn set_default(value: &mut Value, key: &str, to: impl Into<Value>) {
    let map = object(value);
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), to.into());
    }
}

/// Takes out every null below `value`, as Go's decoding does with absent fields; list elements stay.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// How many lists and objects may lie within each other. Every object is read again by parsers that go 128 levels deep,
/// inside lists and watch events, and is dropped and written by recursion: a deeper one would be lost, or worse.
pub const MOST_DEPTH: usize = 120;

/// How many lists and objects lie within each other; nothing for a scalar.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
