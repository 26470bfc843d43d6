use std::io;

use serde::Deserialize;
use serde_json::Value;

use crate::json::{MOST_DEPTH, depth};

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
    /// The document would become deeper than anything can read.
    #[error("a JSON patch may not nest lists and objects more than {MOST_DEPTH} levels deep")]
    TooDeep,
    /// Copies of copies would fill the memory.
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {MOST_COPIED}"
    )]
    TooMuchCopied(u64),
}

/// Upstream's limit (`apiserver/pkg/endpoints/handlers/patch.go`, `maxJSONPatchOperations`).
const MOST_OPERATIONS: usize = 10_000;

/// Upstream's limit in bytes (`apiserver/pkg/server/config.go`, `JSONPatchMaxCopyBytes`).
const MOST_COPIED: u64 = 3 * 1024 * 1024;

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
        let mut growth = Growth { depth: depth(doc), copied: 0 };
        self.0.iter().try_for_each(|operation| apply(doc, operation, &mut growth))
    }
}

/// What keeps a small patch from making a huge document.
struct Growth {
    /// The document is at most so deep.
    depth: usize,
    /// Bytes copied within the document.
    copied: u64,
}

impl Growth {
    /// A value of this depth is going to `path`.
    fn put(&mut self, path: &str, levels: usize) -> Result<(), JsonPatchError> {
        self.depth = self.depth.max(steps(path) + levels);
        if self.depth > MOST_DEPTH { Err(JsonPatchError::TooDeep) } else { Ok(()) }
    }

    /// What is at `from` is going to `path`.
    fn carry(&mut self, doc: &Value, from: &str, path: &str) -> Result<(), JsonPatchError> {
        let added = steps(path).saturating_sub(steps(from));
        if self.depth + added <= MOST_DEPTH {
            self.depth += added;
            return Ok(());
        }
        // The bound only grows. Look how deep the document really is, and how deep this makes it.
        self.depth = depth(doc);
        self.put(path, doc.pointer(from).map_or(0, depth))
    }

    fn copy(&mut self, value: &Value) -> Result<(), JsonPatchError> {
        let mut count = Count(0);
        // Counting cannot fail.
        let _ = serde_json::to_writer(&mut count, value);
        self.copied += count.0;
        if self.copied > MOST_COPIED { Err(JsonPatchError::TooMuchCopied(self.copied)) } else { Ok(()) }
    }
}

/// Counts what is written.
struct Count(u64);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn steps(pointer: &str) -> usize {
    pointer.matches('/').count()
}

fn apply(doc: &mut Value, operation: &Operation, growth: &mut Growth) -> Result<(), JsonPatchError> {
    match operation {
        Operation::Add { path, value } => {
            growth.put(path, depth(value))?;
            add(doc, "add", path, value.clone())
        }
        Operation::Remove { path } => remove(doc, "remove", path).map(drop),
        Operation::Replace { path, value } => {
            growth.put(path, depth(value))?;
            let slot = doc.pointer_mut(path).ok_or_else(|| missing("replace", path))?;
            *slot = value.clone();
            Ok(())
        }
        Operation::Move { from, path } => {
            growth.carry(doc, from, path)?;
            let value = remove(doc, "move", from)?;
            add(doc, "move", path, value)
        }
        Operation::Copy { from, path } => {
            growth.carry(doc, from, path)?;
            let value = doc.pointer(from).ok_or_else(|| missing("copy", from))?;
            growth.copy(value)?;
            let value = value.clone();
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

    #[test]
    fn small_patches_make_no_huge_documents() {
        // Each round wraps everything once more.
        let wrap = [
            json!({"op": "add", "path": "/n", "value": {}}),
            json!({"op": "move", "from": "/m", "path": "/n/c"}),
            json!({"op": "move", "from": "/n", "path": "/m"}),
        ];
        let rounds = |n: usize| Value::Array(wrap.iter().cycle().take(3 * n).cloned().collect());
        assert!(patched(json!({"m": 1}), rounds(100)).is_ok());
        assert_eq!(patched(json!({"m": 1}), rounds(3000)), Err(JsonPatchError::TooDeep));
        let deep = "/a".repeat(MOST_DEPTH);
        let mut doc = json!({});
        for n in 1..MOST_DEPTH {
            doc = patched(doc, json!([{"op": "add", "path": "/a".repeat(n), "value": {}}])).unwrap();
        }
        assert_eq!(depth(&doc), MOST_DEPTH);
        let more = json!([{"op": "add", "path": deep, "value": {}}]);
        assert_eq!(patched(doc.clone(), more), Err(JsonPatchError::TooDeep));
        let flat = json!([{"op": "copy", "from": "/a/a", "path": "/b"}]);
        assert!(patched(doc.clone(), flat).is_ok(), "only what gets too deep is refused");
        let shallow =
            json!([{"op": "add", "path": "/x", "value": 1}, {"op": "move", "from": "/x", "path": "/a/a/x"}]);
        assert!(patched(doc, shallow).is_ok());

        // Each copy doubles the document.
        let double: Vec<Value> =
            (0..40).map(|n| json!({"op": "copy", "from": "", "path": format!("/c{n}")})).collect();
        let result = patched(json!({"text": "x".repeat(1000)}), Value::Array(double));
        assert!(matches!(result, Err(JsonPatchError::TooMuchCopied(_))), "{result:?}");
    }

    /// Few names, so that pointers often lead somewhere.
    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab~/]", inner, 0..3).prop_map(|m| json!(m)),
            ]
        })
    }

    fn operation() -> impl Strategy<Value = Value> {
        let path = || "(/(a|b|~0|~1|0|1|-)){0,4}";
        let op = proptest::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]);
        (op, path(), path(), tree())
            .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
    }

    proptest! {
        #[test]
        fn random_patches_apply_or_say_why(doc in tree(), operations in proptest::collection::vec(operation(), 0..12)) {
            // Each alone, so that one that fails does not shield those that follow.
            let mut now = doc;
            for operation in operations {
                let before = now.clone();
                match patched(now.clone(), json!([operation])) {
                    Ok(after) => {
                        let path = operation["path"].as_str().unwrap();
                        if matches!(operation["op"].as_str(), Some("add" | "replace")) && !path.ends_with('-') {
                            prop_assert_eq!(after.pointer(path), Some(&operation["value"]));
                        }
                        if operation["op"] == "test" {
                            prop_assert_eq!(&after, &before);
                        }
                        prop_assert!(depth(&after) <= MOST_DEPTH);
                        now = after;
                    }
                    Err(error) => prop_assert!(!error.to_string().is_empty()),
                }
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,80}", path in "(/[a-z0-9~-]{0,3}){0,3}") {
            let _ = JsonPatch::parse(text.as_bytes());
            for op in ["add", "remove", "replace", "test"] {
                let _ = patched(json!({"a": [1, {"b": 2}]}), json!([{"op": op, "path": path, "value": 1}]));
            }
        }
    }
}
