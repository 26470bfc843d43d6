//! Operators, and the few functions that are about every type.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::ty::{ListKind, Type};
use crate::value::{Duration, Key, List, Map, Struct, Value, compare, equal, list_index};

pub(super) const TABLE: &[Function] = &[
    Function("_&&_", Call::BuiltIn, &["logical_and (bool, bool) bool"]),
    Function("_||_", Call::BuiltIn, &["logical_or (bool, bool) bool"]),
    Function("_?_:_", Call::BuiltIn, &["conditional (bool, A, A) A"]),
    Function("@not_strictly_false", Call::BuiltIn, &["not_strictly_false (bool) bool"]),
    Function("!_", Call::Plain(not), &["logical_not (bool) bool"]),
    Function("-_", Call::Plain(negate), &["negate_int64 (int) int", "negate_double (double) double"]),
    Function("_==_", Call::Plain(equals), &["equals (A, A) bool"]),
    Function("_!=_", Call::Plain(differs), &["not_equals (A, A) bool"]),
    Function(
        "_+_",
        Call::Plain(add),
        &[
            "add_bytes (bytes, bytes) bytes",
            "add_double (double, double) double",
            "add_duration_duration (duration, duration) duration",
            "add_duration_timestamp (duration, timestamp) timestamp",
            "add_timestamp_duration (timestamp, duration) timestamp",
            "add_int64 (int, int) int",
            "add_list (list(A), list(A)) list(A)",
            "add_string (string, string) string",
            "add_uint64 (uint, uint) uint",
        ],
    ),
    Function(
        "_-_",
        Call::Plain(subtract),
        &[
            "subtract_double (double, double) double",
            "subtract_duration_duration (duration, duration) duration",
            "subtract_int64 (int, int) int",
            "subtract_timestamp_duration (timestamp, duration) timestamp",
            "subtract_timestamp_timestamp (timestamp, timestamp) duration",
            "subtract_uint64 (uint, uint) uint",
        ],
    ),
    Function(
        "_*_",
        Call::Plain(multiply),
        &[
            "multiply_double (double, double) double",
            "multiply_int64 (int, int) int",
            "multiply_uint64 (uint, uint) uint",
        ],
    ),
    Function(
        "_/_",
        Call::Plain(divide),
        &[
            "divide_double (double, double) double",
            "divide_int64 (int, int) int",
            "divide_uint64 (uint, uint) uint",
        ],
    ),
    Function("_%_", Call::Plain(modulo), &["modulo_int64 (int, int) int", "modulo_uint64 (uint, uint) uint"]),
    Function(
        "_<_",
        Call::Plain(less),
        &[
            "less_bool (bool, bool) bool",
            "less_int64 (int, int) bool",
            "less_uint64 (uint, uint) bool",
            "less_double (double, double) bool",
            "less_string (string, string) bool",
            "less_bytes (bytes, bytes) bool",
            "less_timestamp (timestamp, timestamp) bool",
            "less_duration (duration, duration) bool",
            "less_int64_uint64 (int, uint) bool",
            "less_int64_double (int, double) bool",
            "less_uint64_int64 (uint, int) bool",
            "less_uint64_double (uint, double) bool",
            "less_double_int64 (double, int) bool",
            "less_double_uint64 (double, uint) bool",
        ],
    ),
    Function(
        "_<=_",
        Call::Plain(less_equals),
        &[
            "less_equals_bool (bool, bool) bool",
            "less_equals_int64 (int, int) bool",
            "less_equals_uint64 (uint, uint) bool",
            "less_equals_double (double, double) bool",
            "less_equals_string (string, string) bool",
            "less_equals_bytes (bytes, bytes) bool",
            "less_equals_timestamp (timestamp, timestamp) bool",
            "less_equals_duration (duration, duration) bool",
            "less_equals_int64_uint64 (int, uint) bool",
            "less_equals_int64_double (int, double) bool",
            "less_equals_uint64_int64 (uint, int) bool",
            "less_equals_uint64_double (uint, double) bool",
            "less_equals_double_int64 (double, int) bool",
            "less_equals_double_uint64 (double, uint) bool",
        ],
    ),
    Function(
        "_>_",
        Call::Plain(greater),
        &[
            "greater_bool (bool, bool) bool",
            "greater_int64 (int, int) bool",
            "greater_uint64 (uint, uint) bool",
            "greater_double (double, double) bool",
            "greater_string (string, string) bool",
            "greater_bytes (bytes, bytes) bool",
            "greater_timestamp (timestamp, timestamp) bool",
            "greater_duration (duration, duration) bool",
            "greater_int64_uint64 (int, uint) bool",
            "greater_int64_double (int, double) bool",
            "greater_uint64_int64 (uint, int) bool",
            "greater_uint64_double (uint, double) bool",
            "greater_double_int64 (double, int) bool",
            "greater_double_uint64 (double, uint) bool",
        ],
    ),
    Function(
        "_>=_",
        Call::Plain(greater_equals),
        &[
            "greater_equals_bool (bool, bool) bool",
            "greater_equals_int64 (int, int) bool",
            "greater_equals_uint64 (uint, uint) bool",
            "greater_equals_double (double, double) bool",
            "greater_equals_string (string, string) bool",
            "greater_equals_bytes (bytes, bytes) bool",
            "greater_equals_timestamp (timestamp, timestamp) bool",
            "greater_equals_duration (duration, duration) bool",
            "greater_equals_int64_uint64 (int, uint) bool",
            "greater_equals_int64_double (int, double) bool",
            "greater_equals_uint64_int64 (uint, int) bool",
            "greater_equals_uint64_double (uint, double) bool",
            "greater_equals_double_int64 (double, int) bool",
            "greater_equals_double_uint64 (double, uint) bool",
        ],
    ),
    Function("@in", Call::Plain(contains), &["in_list (A, list(A)) bool", "in_map (A, map(A, B)) bool"]),
    Function(
        "_[_]",
        Call::Plain(index),
        &[
            "index_list (list(A), int) A",
            "index_map (map(A, B), A) B",
            "optional_list_index_value (optional(list(A)), int) optional(A)",
            "optional_map_index_value (optional(map(A, B)), A) optional(B)",
        ],
    ),
    Function(
        "_[?_]",
        Call::Plain(optional_index),
        &[
            "list_optindex_optional_int (list(A), int) optional(A)",
            "optional_list_optindex_optional_int (optional(list(A)), int) optional(A)",
            "map_optindex_optional_value (map(A, B), A) optional(B)",
            "optional_map_optindex_optional_value (optional(map(A, B)), A) optional(B)",
        ],
    ),
    Function("_?._", Call::BuiltIn, &["select_optional_field (dyn, string) optional(A)"]),
    Function(
        "size",
        Call::Plain(size),
        &[
            "size_bytes (bytes) int",
            "bytes_size bytes.() int",
            "size_list (list(A)) int",
            "list_size list(A).() int",
            "size_map (map(A, B)) int",
            "map_size map(A, B).() int",
            "size_string (string) int",
            "string_size string.() int",
        ],
    ),
    Function("type", Call::Plain(type_of), &["type (A) type(A)"]),
    Function("dyn", Call::Plain(to_dyn), &["to_dyn (A) dyn"]),
    Function(
        "cel.@mapInsert",
        Call::Plain(map_insert),
        &[
            "@mapInsert_map_map (map(A, B), map(A, B)) map(A, B)",
            "@mapInsert_map_key_value (map(A, B), A, B) map(A, B)",
        ],
    ),
];

fn not<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(!b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn overflow<T>(value: Option<T>, fault: &'static str) -> Outcome<T> {
    value.ok_or_else(|| EvalError::failed(fault))
}

const INT: &str = "integer overflow";
const UINT: &str = "unsigned integer overflow";

fn negate<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(i)] => Value::Int(overflow(i.checked_neg(), INT)?),
        [Value::Double(d)] => Value::Double(-d),
        [Value::Duration(d)] => Value::Duration(d.negate()?),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn equals<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [a, b] => Ok(Value::Bool(equal(a, b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn differs<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [a, b] => Ok(Value::Bool(!equal(a, b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn add<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(overflow(a.checked_add(*b), INT)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(overflow(a.checked_add(*b), UINT)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a + b),
        [Value::String(a), Value::String(b)] => {
            let mut text = String::with_capacity(a.len() + b.len());
            text.push_str(a);
            text.push_str(b);
            Value::text(text)
        }
        [Value::Bytes(a), Value::Bytes(b)] => Value::Bytes(a.iter().chain(b.iter()).copied().collect()),
        [Value::List(a), Value::List(b)] => Value::list(add_lists(a, b)),
        [Value::Duration(a), Value::Duration(b)] => Value::Duration(a.add(*b)?),
        [Value::Duration(d), Value::Timestamp(t)] | [Value::Timestamp(t), Value::Duration(d)] => {
            Value::Timestamp(t.add(*d)?)
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

/// Concatenation; lists that are sets or maps by their schema become a union (apiserver,
/// `pkg/cel/common/values.go`).
fn add_lists<'a>(a: &List<'a>, b: &List<'a>) -> Vec<Value<'a>> {
    let mut items: Vec<_> = a.iter().collect();
    let kind = match a {
        List::Json(_, ty) => &ty.kind,
        List::Owned(_) => &ListKind::Atomic,
    };
    if *kind == ListKind::Atomic {
        items.extend(b.iter());
        return items;
    }
    for item in b.iter() {
        let same = |other: &Value<'a>| match kind {
            ListKind::Atomic => false,
            ListKind::Set => equal(other, &item),
            ListKind::Map(keys) => keys.iter().all(|k| match (field_of(other, k), field_of(&item, k)) {
                (Some(a), Some(b)) => equal(&a, &b),
                (None, None) => true,
                _ => false,
            }),
        };
        match items.iter().position(same) {
            Some(at) if matches!(kind, ListKind::Map(_)) => items[at] = item,
            Some(_) => {}
            None => items.push(item),
        }
    }
    items
}

fn field_of<'a>(value: &Value<'a>, json: &str) -> Option<Value<'a>> {
    match value {
        Value::Struct(Struct::Json(_, ty)) => {
            let (name, _) = ty.fields().iter().find(|(_, f)| f.json == json)?;
            match value {
                Value::Struct(s) => s.field(name),
                _ => None,
            }
        }
        Value::Struct(s) => s.field(json),
        Value::Map(m) => m.get(&Key::String(crate::value::Str::Shared(json.into()))),
        _ => None,
    }
}

fn subtract<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(overflow(a.checked_sub(*b), INT)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(overflow(a.checked_sub(*b), UINT)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a - b),
        [Value::Duration(a), Value::Duration(b)] => Value::Duration(a.sub(*b)?),
        [Value::Timestamp(t), Value::Duration(d)] => {
            Value::Timestamp(t.add(Duration(overflow(d.0.checked_neg(), "timestamp overflow")?))?)
        }
        [Value::Timestamp(a), Value::Timestamp(b)] => Value::Duration(a.since(*b)?),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn multiply<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(overflow(a.checked_mul(*b), INT)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(overflow(a.checked_mul(*b), UINT)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a * b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn divide<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return fail("division by zero"),
        [Value::Int(a), Value::Int(b)] => Value::Int(overflow(a.checked_div(*b), INT)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a / b),
        [Value::Double(a), Value::Double(b)] => Value::Double(a / b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn modulo<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return fail("modulus by zero"),
        [Value::Int(a), Value::Int(b)] => Value::Int(overflow(a.checked_rem(*b), INT)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a % b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<Value<'a>> {
    match args {
        [a, b] => Ok(Value::Bool(holds(compare(a, b)?))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn less<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    ordered(args, Ordering::is_ge)
}

fn contains<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Bool(match args {
        [x, Value::List(list)] => list.iter().any(|item| equal(x, &item)),
        [key, Value::Map(map)] => key.key().is_some_and(|key| map.contains(&key)),
        [Value::String(name), Value::Struct(object)] => object.field(name).is_some(),
        _ => return Err(EvalError::no_such_overload()),
    }))
}

/// What is at an index or key; the error says what is missing.
pub(crate) fn at<'a>(container: &Value<'a>, index: &Value<'a>) -> Outcome<Value<'a>> {
    match container {
        Value::List(list) => {
            let i = list_index(index)?;
            let found = usize::try_from(i).ok().and_then(|i| list.get(i));
            found.ok_or_else(|| EvalError::failed(format!("index out of bounds: {i}")))
        }
        Value::Map(map) => {
            let found = index.key().and_then(|key| map.get(&key));
            found.ok_or_else(|| missing(index))
        }
        Value::Struct(object) => match index {
            Value::String(name) => object.field(name).ok_or_else(|| missing(index)),
            _ => Err(EvalError::no_such_overload()),
        },
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => optional_at(inner, index),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn missing(key: &Value<'_>) -> EvalError {
    let shown = match key {
        Value::String(s) => s.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Double(d) => crate::value::double_text(*d),
        other => format!("{other:?}"),
    };
    EvalError::failed(format!("no such key: {shown}"))
}

/// The same as an optional: what is missing is absent rather than an error.
pub(crate) fn optional_at<'a>(container: &Value<'a>, index: &Value<'a>) -> Outcome<Value<'a>> {
    match container {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return optional_at(inner, index),
        Value::List(list) => {
            let i = usize::try_from(list_index(index)?);
            return Ok(i.ok().and_then(|i| list.get(i)).map_or(Value::Optional(None), Value::some));
        }
        Value::Map(map) => {
            let found = index.key().and_then(|key| map.get(&key));
            return Ok(found.map_or(Value::Optional(None), Value::some));
        }
        Value::Struct(object) => {
            if let Value::String(name) = index {
                return Ok(object.field(name).map_or(Value::Optional(None), Value::some));
            }
        }
        _ => {}
    }
    Err(EvalError::no_such_overload())
}

fn index<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [container, index] => at(container, index),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn optional_index<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [container, index] => optional_at(container, index),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let size = match args {
        [v @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => v.size(),
        [Value::Struct(object)] => Some(object.entries().len()),
        _ => None,
    };
    size.map(|n| Value::Int(n as i64)).ok_or_else(EvalError::no_such_overload)
}

fn type_of<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [value] => Ok(Value::Type(value.type_of())),
        _ => Ok(Value::Type(Type::Dyn)),
    }
}

fn to_dyn<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    args.first().cloned().ok_or_else(EvalError::no_such_overload)
}

fn map_insert<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let Some(Value::Map(map)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let mut entries = match map {
        Map::Owned(entries) | Map::Open(entries) => (**entries).clone(),
        Map::Json(..) => map.keys().into_iter().filter_map(|k| Some((k.clone(), map.get(&k)?))).collect(),
    };
    let mut insert = |key: Key<'a>, value: Value<'a>| {
        let shown = Value::from(key.clone());
        match entries.insert(key, value) {
            None => Ok(()),
            Some(_) => {
                let text = missing(&shown).to_string();
                fail(format!(
                    "insert failed: key {} already exists",
                    text.trim_start_matches("no such key: ")
                ))
            }
        }
    };
    match &args[1..] {
        [Value::Map(more)] => {
            for key in more.keys() {
                if let Some(value) = more.get(&key) {
                    insert(key, value)?;
                }
            }
        }
        [key, value] => insert(key.key().ok_or_else(EvalError::no_such_overload)?, value.clone())?,
        _ => return Err(EvalError::no_such_overload()),
    }
    Ok(Value::Map(Map::Owned(Arc::new(entries))))
}
