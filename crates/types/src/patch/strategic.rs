//! Strategic merge patch (kubernetes/kubernetes, `apimachinery/pkg/util/strategicpatch/patch.go`).

use serde_json::{Map, Value};

use crate::schema::{Definitions, FieldSchema, Shape};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    /// `$patch` has a value that is no directive.
    #[error("unknown patch type: {0}")]
    UnknownDirective(String),
    /// An element of a merged list lacks the list's key.
    #[error("map: {element} does not contain declared merge key: {key}")]
    MissingMergeKey {
        /// The list's merge key.
        key: String,
        /// The element, as JSON.
        element: String,
    },
    /// A list patch does not consist of objects where the schema says so.
    #[error("cannot merge lists of mixed kinds in field {0}")]
    MixedList(String),
    /// A directive's value has the wrong type.
    #[error("invalid value of directive {0}")]
    BadDirective(String),
}

/// Merges `patch` into `target`, whose type is `schema`.
///
/// Where the schema is silent (custom resources, unknown fields) objects merge and lists are replaced.
pub fn strategic_merge(
    definitions: &Definitions,
    schema: &FieldSchema,
    target: &mut Value,
    patch: Value,
) -> Result<(), StrategicError> {
    let Value::Object(patch) = patch else {
        *target = patch;
        return Ok(());
    };
    merge_object(definitions, Some(schema), target, patch)
}

fn merge_object(
    definitions: &Definitions,
    schema: Option<&FieldSchema>,
    target: &mut Value,
    mut patch: Map<String, Value>,
) -> Result<(), StrategicError> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "replace" => {
                *target = Value::Object(patch);
                return Ok(());
            }
            "delete" => {
                *target = Value::Object(Map::new());
                return Ok(());
            }
            "merge" => {}
            _ => return Err(StrategicError::UnknownDirective(directive)),
        },
        Some(other) => return Err(StrategicError::UnknownDirective(other.to_string())),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return Ok(()) };

    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        let keys = keys.as_array().ok_or_else(|| StrategicError::BadDirective(RETAIN_KEYS.into()))?;
        map.retain(|key, _| keys.iter().any(|k| k.as_str() == Some(key)));
    }
    let mut orders: Vec<(String, Value)> = Vec::new();
    let mut plain: Vec<(String, Value)> = Vec::new();
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_PRIMITIVES) {
            let gone = value.as_array().ok_or_else(|| StrategicError::BadDirective(key.clone()))?;
            if let Some(Value::Array(list)) = map.get_mut(field) {
                list.retain(|item| !gone.contains(item));
            }
        } else if let Some(field) = key.strip_prefix(ELEMENT_ORDER) {
            orders.push((field.to_owned(), value));
        } else {
            plain.push((key, value));
        }
    }
    for (key, value) in plain {
        let field = schema.and_then(|s| definitions.field(s, &key));
        match value {
            Value::Null => {
                map.remove(&key);
            }
            Value::Object(child) => {
                let slot = map.entry(key).or_insert(Value::Null);
                merge_object(definitions, field, slot, child)?;
            }
            Value::Array(items) if field.is_some_and(|f| f.patch_merge) => {
                let slot = map.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(definitions, field, &key, slot, items)?;
            }
            Value::Array(mut items) => {
                // A replaced list may still open with the directive that says so.
                items.retain(|item| item.get(DIRECTIVE).is_none());
                map.insert(key, Value::Array(items));
            }
            scalar => {
                map.insert(key, scalar);
            }
        }
    }
    for (key, order) in orders {
        let merge_key =
            schema.and_then(|s| definitions.field(s, &key)).and_then(|f| f.patch_merge_key.as_deref());
        let order =
            order.as_array().ok_or_else(|| StrategicError::BadDirective(format!("{ELEMENT_ORDER}{key}")))?;
        if let Some(Value::Array(list)) = map.get_mut(&key) {
            reorder(list, order, merge_key);
        }
    }
    Ok(())
}

fn merge_list(
    definitions: &Definitions,
    field: Option<&FieldSchema>,
    name: &str,
    target: &mut Value,
    items: Vec<Value>,
) -> Result<(), StrategicError> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(list) = target else { return Ok(()) };
    let Some(key) = field.and_then(|f| f.patch_merge_key.as_deref()) else {
        // A set of scalars: the union, in order.
        for item in items {
            if !list.contains(&item) {
                list.push(item);
            }
        }
        return Ok(());
    };
    let element = field.and_then(|f| match &definitions.resolve(f).shape {
        Shape::List(items) => Some(items.as_ref()),
        _ => None,
    });
    let replaces = |item: &Value| {
        item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") && item.get(key).is_none()
    };
    if items.iter().any(replaces) {
        *list = items.into_iter().filter(|item| !replaces(item)).collect();
        return Ok(());
    }
    for item in items {
        let Value::Object(mut item) = item else { return Err(StrategicError::MixedList(name.to_owned())) };
        let Some(id) = item.get(key).cloned() else {
            return Err(StrategicError::MissingMergeKey {
                key: key.to_owned(),
                element: Value::Object(item).to_string(),
            });
        };
        let at = list.iter().position(|existing| existing.get(key) == Some(&id));
        if item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
            list.retain(|existing| existing.get(key) != Some(&id));
            continue;
        }
        if item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") {
            item.remove(DIRECTIVE);
            match at {
                Some(at) => list[at] = Value::Object(item),
                None => list.push(Value::Object(item)),
            }
            continue;
        }
        let at = at.unwrap_or_else(|| {
            list.push(Value::Object(Map::new()));
            list.len() - 1
        });
        merge_object(definitions, element, &mut list[at], item)?;
    }
    Ok(())
}

/// Brings the elements that `order` names into that order. Elements it does not name keep their place behind
/// the element they followed.
fn reorder(list: &mut Vec<Value>, order: &[Value], merge_key: Option<&str>) {
    let place = |item: &Value| {
        let id = |v: &Value| merge_key.map_or_else(|| Some(v.clone()), |k| v.get(k).cloned());
        let id = id(item);
        order.iter().position(|o| merge_key.map_or_else(|| Some(o.clone()), |k| o.get(k).cloned()) == id)
    };
    let mut anchored: Vec<(usize, Value)> = Vec::with_capacity(list.len());
    let mut anchor = 0;
    for item in list.drain(..) {
        if let Some(at) = place(&item) {
            anchor = at + 1;
        }
        anchored.push((anchor, item));
    }
    anchored.sort_by_key(|(at, _)| *at);
    list.extend(anchored.into_iter().map(|(_, item)| item));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn definitions() -> Definitions {
        Definitions::from_openapi(&json!({
            "Pod": {"type": "object", "properties": {
                "containers": {"type": "array", "x-kubernetes-patch-strategy": "merge",
                    "x-kubernetes-patch-merge-key": "name", "items": {"$ref": "Container"}},
                "finalizers": {"type": "array", "x-kubernetes-patch-strategy": "merge", "items": {"type": "string"}},
                "args": {"type": "array", "items": {"type": "string"}},
                "strategy": {"type": "object", "x-kubernetes-patch-strategy": "retainKeys", "properties": {
                    "type": {"type": "string"}, "rolling": {"type": "object", "properties": {"n": {"type": "integer"}}}}},
            }},
            "Container": {"type": "object", "properties": {
                "name": {"type": "string"}, "image": {"type": "string"},
                "env": {"type": "array", "x-kubernetes-patch-strategy": "merge",
                    "x-kubernetes-patch-merge-key": "name", "items": {"type": "object", "properties": {
                        "name": {"type": "string"}, "value": {"type": "string"}}}},
            }},
        }))
    }

    fn merged(mut target: Value, patch: Value) -> Result<Value, StrategicError> {
        let definitions = definitions();
        let schema = &definitions.get(definitions.find("Pod").unwrap()).field;
        strategic_merge(&definitions, schema, &mut target, patch)?;
        Ok(target)
    }

    #[test]
    fn merges_lists_by_key() {
        let pod = json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]});
        let patch = json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]});
        let want = json!({"containers": [
            {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b"}, {"name": "c"}]});
        assert_eq!(merged(pod, patch), Ok(want));
    }

    #[test]
    fn follows_directives() {
        let pod = || {
            json!({"containers": [{"name": "a"}, {"name": "b"}], "finalizers": ["x", "y"], "args": ["1"],
            "strategy": {"type": "Rolling", "rolling": {"n": 1}}})
        };
        let got = |patch| merged(pod(), patch).unwrap();
        assert_eq!(
            got(json!({"containers": [{"name": "a", "$patch": "delete"}]}))["containers"],
            json!([{"name": "b"}])
        );
        assert_eq!(
            got(json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}))["containers"],
            json!([{"name": "z"}])
        );
        assert_eq!(got(json!({"finalizers": ["y", "z"]}))["finalizers"], json!(["x", "y", "z"]));
        assert_eq!(got(json!({"$deleteFromPrimitiveList/finalizers": ["x"]}))["finalizers"], json!(["y"]));
        assert_eq!(got(json!({"args": ["2"]}))["args"], json!(["2"]));
        assert_eq!(got(json!({"args": null})).get("args"), None);
        assert_eq!(
            got(json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}))["strategy"],
            json!({"type": "Recreate"})
        );
        assert_eq!(
            got(json!({"strategy": {"$patch": "replace", "type": "X"}}))["strategy"],
            json!({"type": "X"})
        );
        assert_eq!(
            got(
                json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]})
            )["containers"],
            json!([{"name": "c"}, {"name": "b"}, {"name": "a"}])
        );
    }

    #[test]
    fn refuses_nonsense() {
        assert!(matches!(
            merged(json!({}), json!({"$patch": "fly"})),
            Err(StrategicError::UnknownDirective(_))
        ));
        assert!(matches!(
            merged(json!({}), json!({"containers": [{"image": "x"}]})),
            Err(StrategicError::MissingMergeKey { .. })
        ));
        assert!(matches!(merged(json!({}), json!({"containers": ["x"]})), Err(StrategicError::MixedList(_))));
    }

    fn pod() -> impl Strategy<Value = Value> {
        let env = proptest::collection::btree_map("[X-Z]", "[0-9]", 0..3)
            .prop_map(|m| m.into_iter().map(|(n, v)| json!({"name": n, "value": v})).collect::<Vec<_>>());
        let containers = proptest::collection::btree_map("[a-d]", ("[1-3]", env), 0..4).prop_map(|m| {
            m.into_iter().map(|(n, (i, e))| json!({"name": n, "image": i, "env": e})).collect::<Vec<_>>()
        });
        (containers, proptest::collection::vec("[a-c]", 0..3))
            .prop_map(|(c, a)| json!({"containers": c, "args": a}))
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(a in pod(), b in pod()) {
            let once = merged(a, b.clone()).unwrap();
            prop_assert_eq!(merged(once.clone(), b).unwrap(), once);
        }
    }
}
