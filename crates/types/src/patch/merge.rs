use serde_json::{Map, Value};

/// Applies a JSON merge patch (RFC 7386): null deletes, objects merge, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge_patch(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_rfcs_cases() {
        for (mut target, patch, want) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!(["a"]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        ] {
            merge_patch(&mut target, patch);
            assert_eq!(target, want);
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 20, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| json!(m))
        })
    }

    fn diff(from: &Value, to: &Value) -> Value {
        let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
        let mut patch = Map::new();
        for key in a.keys().filter(|k| !b.contains_key(*k)) {
            patch.insert(key.clone(), Value::Null);
        }
        for (key, value) in b.iter().filter(|(k, v)| a.get(*k) != Some(v)) {
            patch.insert(key.clone(), a.get(key).map_or_else(|| value.clone(), |old| diff(old, value)));
        }
        Value::Object(patch)
    }

    proptest! {
        #[test]
        fn a_diff_restores_the_object(a in tree(), b in tree()) {
            let mut patched = a.clone();
            merge_patch(&mut patched, diff(&a, &b));
            prop_assert_eq!(patched, b);
        }
    }
}
