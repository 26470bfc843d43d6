use serde::Deserialize;
use serde_json::Value;

/// Why a JSON patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// The document is no patch.
    #[error("{0}")]
    Malformed(String),
    /// More operations than the server takes.
    #[error("The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// A pointer leads nowhere.
    #[error(
        "the server rejected our request due to an error in our request: {op} operation does not apply: doc is missing path: {path:?}: missing value"
    )]
    Missing {
        /// The operation.
        op: &'static str,
        /// The pointer.
        path: String,
    },
    /// A `test` operation found another value.
    #[error(
        "the server rejected our request due to an error in our request: testing value {0} failed: test failed"
    )]
    TestFailed(String),
}

/// Upstream's limit (`apiserver/pkg/endpoints/handlers/patch.go`, `maxJSONPatchOperations`).
const MOST_OPERATIONS: usize = 10_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add {
        path: String,
        value: Value,
    },
    Remove {
        path: String,
    },
    Replace {
        path: String,
        value: Value,
    },
    Move {
        from: String,
        path: String,
    },
    Copy {
        from: String,
        path: String,
    },
    Test {
        path: String,
        #[serde(default)]
        value: Value,
    },
}

/// A list of changes (RFC 6902).
#[derive(Clone, Debug)]
pub struct JsonPatch(Vec<Operation>);

impl JsonPatch {
    /// Reads a patch document.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonPatchError> {
        let operations: Vec<Operation> =
            serde_json::from_slice(bytes).map_err(|e| JsonPatchError::Malformed(e.to_string()))?;
        if operations.len() > MOST_OPERATIONS {
            return Err(JsonPatchError::TooMany(operations.len()));
        }
        Ok(Self(operations))
    }

    /// Applies every operation in order; after an error the document is half changed and must be thrown away.
    pub fn apply(&self, doc: &mut Value) -> Result<(), JsonPatchError> {
        self.0.iter().try_for_each(|operation| apply(doc, operation))
    }
}

fn apply(doc: &mut Value, operation: &Operation) -> Result<(), JsonPatchError> {
    match operation {
        Operation::Add { path, value } => add(doc, "add", path, value.clone()),
        Operation::Remove { path } => remove(doc, "remove", path).map(drop),
        Operation::Replace { path, value } => {
            let slot = doc.pointer_mut(path).ok_or_else(|| missing("replace", path))?;
            *slot = value.clone();
            Ok(())
        }
        Operation::Move { from, path } => {
            let value = remove(doc, "move", from)?;
            add(doc, "move", path, value)
        }
        Operation::Copy { from, path } => {
            let value = doc.pointer(from).cloned().ok_or_else(|| missing("copy", from))?;
            add(doc, "copy", path, value)
        }
        Operation::Test { path, value } => {
            let holds = doc.pointer(path).unwrap_or(&Value::Null) == value;
            holds.then_some(()).ok_or_else(|| JsonPatchError::TestFailed(path.clone()))
        }
    }
}

fn missing(op: &'static str, path: &str) -> JsonPatchError {
    JsonPatchError::Missing { op, path: path.to_owned() }
}

/// The container that a pointer's last step is taken in, and that step.
fn parent<'a>(
    doc: &'a mut Value,
    op: &'static str,
    path: &str,
) -> Result<(&'a mut Value, String), JsonPatchError> {
    let (front, last) = path.rsplit_once('/').ok_or_else(|| missing(op, path))?;
    let container = doc.pointer_mut(front).ok_or_else(|| missing(op, path))?;
    Ok((container, last.replace("~1", "/").replace("~0", "~")))
}

fn add(doc: &mut Value, op: &'static str, path: &str, value: Value) -> Result<(), JsonPatchError> {
    if path.is_empty() {
        *doc = value;
        return Ok(());
    }
    let (container, key) = parent(doc, op, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => match key.parse::<usize>() {
            Ok(i) if i <= list.len() => list.insert(i, value),
            _ => return Err(missing(op, path)),
        },
        _ => return Err(missing(op, path)),
    }
    Ok(())
}

fn remove(doc: &mut Value, op: &'static str, path: &str) -> Result<Value, JsonPatchError> {
    let (container, key) = parent(doc, op, path)?;
    let removed = match container {
        Value::Object(map) => map.remove(&key),
        Value::Array(list) => key.parse::<usize>().ok().filter(|&i| i < list.len()).map(|i| list.remove(i)),
        _ => None,
    };
    removed.ok_or_else(|| missing(op, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(mut doc: Value, patch: Value) -> Result<Value, JsonPatchError> {
        JsonPatch::parse(patch.to_string().as_bytes())?.apply(&mut doc)?;
        Ok(doc)
    }

    #[test]
    fn every_operation() {
        let doc = json!({"a": {"b/c": 1}, "list": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/a/b~1c", "value": 1},
            {"op": "add", "path": "/list/1", "value": 9},
            {"op": "add", "path": "/list/-", "value": 10},
            {"op": "remove", "path": "/list/0"},
            {"op": "replace", "path": "/a/b~1c", "value": 2},
            {"op": "copy", "from": "/list", "path": "/copy"},
            {"op": "move", "from": "/a", "path": "/z"},
        ]);
        let want = json!({"list": [9, 2, 10], "copy": [9, 2, 10], "z": {"b/c": 2}});
        assert_eq!(patched(doc, patch), Ok(want));
    }

    #[test]
    fn refuses_what_does_not_apply() {
        let doc = json!({"a": 1});
        assert!(patched(doc.clone(), json!([{"op": "remove", "path": "/x"}])).is_err());
        assert!(patched(doc.clone(), json!([{"op": "replace", "path": "/x", "value": 1}])).is_err());
        assert!(patched(doc.clone(), json!([{"op": "add", "path": "/x/y", "value": 1}])).is_err());
        assert!(matches!(
            patched(doc.clone(), json!([{"op": "test", "path": "/a", "value": 2}])),
            Err(JsonPatchError::TestFailed(_))
        ));
        assert!(matches!(patched(doc, json!([{"op": "fly"}])), Err(JsonPatchError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,80}", path in "(/[a-z0-9~-]{0,3}){0,3}") {
            let _ = JsonPatch::parse(text.as_bytes());
            for op in ["add", "remove", "replace", "test"] {
                let _ = patched(json!({"a": [1, {"b": 2}]}), json!([{"op": op, "path": path, "value": 1}]));
            }
        }
    }
}
