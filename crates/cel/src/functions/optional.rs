//! Values that may be absent (cel-go, `cel/library.go`, `optionalLib`).

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{List, Value};

pub(super) const TABLE: &[Function] = &[
    Function("optional.of", Call::Plain(of), &["optional_of (A) optional(A)"]),
    Function(
        "optional.ofNonZeroValue",
        Call::Plain(of_non_zero),
        &["optional_ofNonZeroValue (A) optional(A)"],
    ),
    Function("optional.none", Call::Plain(none), &["optional_none () optional(A)"]),
    Function("hasValue", Call::Plain(has_value), &["optional_hasValue optional(A).() bool"]),
    Function("value", Call::Plain(value), &["optional_value optional(A).() A"]),
    Function("or", Call::BuiltIn, &["optional_or_optional optional(A).(optional(A)) optional(A)"]),
    Function("orValue", Call::BuiltIn, &["optional_orValue_value optional(A).(A) A"]),
    Function("optional.unwrap", Call::Plain(unwrap), &["optional_unwrap (list(optional(A))) list(A)"]),
    Function("unwrapOpt", Call::Plain(unwrap), &["optional_unwrapOpt list(optional(A)).() list(A)"]),
];

fn of<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    args.first().map(|v| Value::some(v.clone())).ok_or_else(EvalError::no_such_overload)
}

/// Whether a value is what a field of its type has when nothing is said.
pub(crate) fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(b) => !b,
        Value::Int(i) => *i == 0,
        Value::Uint(u) => *u == 0,
        Value::Double(d) => *d == 0.0,
        Value::String(s) => s.is_empty(),
        Value::Bytes(b) => b.is_empty(),
        Value::List(l) => l.is_empty(),
        Value::Map(m) => m.is_empty(),
        Value::Struct(s) => s.entries().is_empty(),
        Value::Duration(d) => d.0 == 0,
        _ => false,
    }
}

fn of_non_zero<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [value] if is_zero(value) => Ok(Value::Optional(None)),
        _ => of(args),
    }
}

fn none<'a>(_: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Optional(None))
}

fn has_value<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn value<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Optional(Some(inner))] => Ok((**inner).clone()),
        [Value::Optional(None)] => fail("optional.none() dereference"),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn unwrap<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let mut items = Vec::new();
    for item in List::iter(list) {
        match item {
            Value::Optional(Some(inner)) => items.push((*inner).clone()),
            Value::Optional(None) => {}
            _ => return Err(EvalError::no_such_overload()),
        }
    }
    Ok(Value::list(items))
}
