//! Lists as a whole (apiserver, `pkg/cel/library/lists.go`).

use std::cmp::Ordering;

use super::operators::TABLE as OPERATORS;
use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::ty::Type;
use crate::value::{Duration, List, Value, compare, equal};

pub(super) const TABLE: &[Function] = &[
    Function(
        "isSorted",
        Call::Plain(is_sorted),
        &[
            "list_int_is_sorted_bool list(int).() bool",
            "list_uint_is_sorted_bool list(uint).() bool",
            "list_double_is_sorted_bool list(double).() bool",
            "list_bool_is_sorted_bool list(bool).() bool",
            "list_duration_is_sorted_bool list(duration).() bool",
            "list_timestamp_is_sorted_bool list(timestamp).() bool",
            "list_string_is_sorted_bool list(string).() bool",
            "list_bytes_is_sorted_bool list(bytes).() bool",
        ],
    ),
    Function(
        "sum",
        Call::Plain(sum),
        &[
            "list_int_sum_int list(int).() int",
            "list_uint_sum_uint list(uint).() uint",
            "list_double_sum_double list(double).() double",
            "list_duration_sum_duration list(duration).() duration",
        ],
    ),
    Function(
        "max",
        Call::Plain(max),
        &[
            "list_int_max_int list(int).() int",
            "list_uint_max_uint list(uint).() uint",
            "list_double_max_double list(double).() double",
            "list_bool_max_bool list(bool).() bool",
            "list_duration_max_duration list(duration).() duration",
            "list_timestamp_max_timestamp list(timestamp).() timestamp",
            "list_string_max_string list(string).() string",
            "list_bytes_max_bytes list(bytes).() bytes",
        ],
    ),
    Function(
        "min",
        Call::Plain(min),
        &[
            "list_int_min_int list(int).() int",
            "list_uint_min_uint list(uint).() uint",
            "list_double_min_double list(double).() double",
            "list_bool_min_bool list(bool).() bool",
            "list_duration_min_duration list(duration).() duration",
            "list_timestamp_min_timestamp list(timestamp).() timestamp",
            "list_string_min_string list(string).() string",
            "list_bytes_min_bytes list(bytes).() bytes",
        ],
    ),
];

fn is_sorted<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let mut previous: Option<Value<'a>> = None;
    for item in list.iter() {
        if let Some(previous) = &previous
            && compare(previous, &item)? == Ordering::Greater
        {
            return Ok(Value::Bool(false));
        }
        previous = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let Some(mut total) = list.get(0) else {
        let items = match list {
            List::Json(_, ty) => &ty.items.ty,
            List::Owned(_) => &Type::Int,
        };
        return Ok(match items {
            Type::Double => Value::Double(0.0),
            Type::Uint => Value::Uint(0),
            Type::Duration => Value::Duration(Duration(0)),
            _ => Value::Int(0),
        });
    };
    if !matches!(total, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)) {
        return Err(EvalError::no_such_overload());
    }
    let add = OPERATORS.iter().find_map(|f| match f {
        Function("_+_", Call::Plain(add), _) => Some(*add),
        _ => None,
    });
    let add = add.ok_or_else(EvalError::no_such_overload)?;
    for item in list.iter().skip(1) {
        total = add(&[total, item])?;
    }
    Ok(total)
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<Value<'a>> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let Some(mut best) = list.get(0) else { return fail(format!("{name} called on empty list")) };
    for item in list.iter().skip(1) {
        if compare(&item, &best)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn max<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    extreme(args, "max", Ordering::Greater)
}

fn min<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    extreme(args, "min", Ordering::Less)
}

pub(super) fn index_of<'a>(list: &List<'a>, item: &Value<'a>) -> Value<'a> {
    Value::Int(list.iter().position(|x| equal(&x, item)).map_or(-1, |i| i as i64))
}

pub(super) fn last_index_of<'a>(list: &List<'a>, item: &Value<'a>) -> Value<'a> {
    let found = (0..list.len()).rev().find(|i| list.get(*i).is_some_and(|x| equal(&x, item)));
    Value::Int(found.map_or(-1, |i| i as i64))
}
