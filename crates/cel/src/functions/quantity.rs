//! Amounts such as `1.5Gi` (apiserver, `pkg/cel/library/quantity.go`), and the comparisons they share with versions.

use std::cmp::Ordering;
use std::sync::Arc;

use types::Quantity;

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Opaque, Value};

pub(super) const TABLE: &[Function] = &[
    Function("quantity", Call::Plain(quantity), &["string_to_quantity (string) kubernetes.Quantity"]),
    Function("isQuantity", Call::Plain(is_quantity), &["is_quantity_string (string) bool"]),
    Function("sign", Call::Plain(sign), &["quantity_sign kubernetes.Quantity.() int"]),
    Function("asInteger", Call::Plain(as_integer), &["quantity_get_int kubernetes.Quantity.() int"]),
    Function("isInteger", Call::Plain(is_integer), &["quantity_is_integer kubernetes.Quantity.() bool"]),
    Function(
        "asApproximateFloat",
        Call::Plain(as_float),
        &["quantity_get_float kubernetes.Quantity.() double"],
    ),
    Function(
        "add",
        Call::Plain(add),
        &[
            "quantity_add kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity",
            "quantity_add_int kubernetes.Quantity.(int) kubernetes.Quantity",
        ],
    ),
    Function(
        "sub",
        Call::Plain(sub),
        &[
            "quantity_sub kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity",
            "quantity_sub_int kubernetes.Quantity.(int) kubernetes.Quantity",
        ],
    ),
    Function(
        "isGreaterThan",
        Call::Plain(is_greater),
        &[
            "quantity_is_greater_than kubernetes.Quantity.(kubernetes.Quantity) bool",
            "semver_is_greater_than kubernetes.Semver.(kubernetes.Semver) bool",
        ],
    ),
    Function(
        "isLessThan",
        Call::Plain(is_less),
        &[
            "quantity_is_less_than kubernetes.Quantity.(kubernetes.Quantity) bool",
            "semver_is_less_than kubernetes.Semver.(kubernetes.Semver) bool",
        ],
    ),
    Function(
        "compareTo",
        Call::Plain(compare_to),
        &[
            "quantity_compare_to kubernetes.Quantity.(kubernetes.Quantity) int",
            "semver_compare_to kubernetes.Semver.(kubernetes.Semver) int",
        ],
    ),
];

fn made<'a>(q: Quantity) -> Value<'a> {
    Value::Opaque(Opaque::Quantity(Arc::new(q)))
}

fn quantity<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => match s.parse() {
            Ok(q) => Ok(made(q)),
            Err(e) => fail(types::QuantityError::to_string(&e)),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_quantity<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::Bool(s.parse::<Quantity>().is_ok())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn one(args: &[Value<'_>]) -> Outcome<Quantity> {
    match args {
        [Value::Opaque(Opaque::Quantity(q))] => Ok(**q),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn sign<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let q = one(args)?;
    Ok(Value::Int(if q.is_zero() {
        0
    } else if q.is_negative() {
        -1
    } else {
        1
    }))
}

fn is_integer<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Bool(one(args)?.is_whole()))
}

fn as_integer<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let q = one(args)?;
    if q.is_whole() { Ok(Value::Int(q.units())) } else { fail("cannot convert value to integer") }
}

fn as_float<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Double(one(args)?.as_f64()))
}

fn two(args: &[Value<'_>]) -> Outcome<(Quantity, Quantity)> {
    match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => Ok((**a, **b)),
        [Value::Opaque(Opaque::Quantity(a)), Value::Int(b)] => Ok((**a, Quantity::from_units(*b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn add<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (a, b) = two(args)?;
    Ok(made(a + b))
}

fn sub<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (a, b) = two(args)?;
    Ok(made(a - b))
}

fn order(args: &[Value<'_>]) -> Outcome<Ordering> {
    match args {
        [Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))] => Ok(a.cmp(b)),
        [_, Value::Int(_)] => Err(EvalError::no_such_overload()),
        _ => two(args).map(|(a, b)| a.cmp(&b)),
    }
}

fn is_greater<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Bool(order(args)?.is_gt()))
}

fn is_less<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Bool(order(args)?.is_lt()))
}

fn compare_to<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Int(order(args)? as i64))
}
