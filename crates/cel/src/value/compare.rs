use std::cmp::Ordering;

use super::{List, Map, Opaque, Struct, Value};
use crate::error::{EvalError, Outcome, fail};
use crate::ty::ListKind;

/// Equality between any two values: those of different kinds differ, numbers are compared as numbers.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::List(a), Value::List(b)) => equal_lists(a, b),
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b),
        (Value::Struct(a), Value::Struct(b)) => equal_structs(a, b),
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => equal(a, b),
            _ => false,
        },
        (Value::Opaque(a), Value::Opaque(b)) => equal_opaque(a, b),
        _ => matches!(numbers(a, b), Some(Some(Ordering::Equal))),
    }
}

/// The order of two numbers: `None` if they are none, `Some(None)` if one is not a number at all.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Int(b)) => double_int(*a, *b),
        (Value::Int(a), Value::Double(b)) => double_int(*b, *a).map(Ordering::reverse),
        (Value::Double(a), Value::Uint(b)) => double_uint(*a, *b),
        (Value::Uint(a), Value::Double(b)) => double_uint(*b, *a).map(Ordering::reverse),
        _ => return None,
    })
}

fn double_int(d: f64, i: i64) -> Option<Ordering> {
    if d < i64::MIN as f64 {
        Some(Ordering::Less)
    } else if d > i64::MAX as f64 {
        Some(Ordering::Greater)
    } else {
        d.partial_cmp(&(i as f64))
    }
}

fn double_uint(d: f64, u: u64) -> Option<Ordering> {
    if d < 0.0 {
        Some(Ordering::Less)
    } else if d > u64::MAX as f64 {
        Some(Ordering::Greater)
    } else {
        d.partial_cmp(&(u as f64))
    }
}

fn equal_lists(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let kind = match (a, b) {
        (List::Json(_, ty), _) | (_, List::Json(_, ty)) => &ty.kind,
        _ => &ListKind::Atomic,
    };
    match kind {
        ListKind::Atomic => a.iter().zip(b.iter()).all(|(a, b)| equal(&a, &b)),
        // Without duplicates, equal lengths and one direction suffice; the other is for lists that have some.
        _ => within(a, b) && within(b, a),
    }
}

fn within(a: &List<'_>, b: &List<'_>) -> bool {
    a.iter().all(|x| b.iter().any(|y| equal(&x, &y)))
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>) -> bool {
    a.len() == b.len()
        && a.keys().iter().all(|k| match (a.get(k), b.get(k)) {
            (Some(a), Some(b)) => equal(&a, &b),
            _ => false,
        })
}

fn equal_structs(a: &Struct<'_>, b: &Struct<'_>) -> bool {
    if a.name() != b.name() {
        return false;
    }
    let (fields, others) = (a.entries(), b.entries());
    fields.len() == others.len() && fields.iter().zip(&others).all(|((n, v), (m, w))| n == m && equal(v, w))
}

fn equal_opaque(a: &Opaque<'_>, b: &Opaque<'_>) -> bool {
    match (a, b) {
        (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
        (Opaque::Url(a), Opaque::Url(b)) => a == b,
        (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
        (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
        (Opaque::Semver(a), Opaque::Semver(b)) => a == b,
        (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
        (Opaque::Authz(a), Opaque::Authz(b)) => std::sync::Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// The order of two values that have one.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Outcome<Ordering> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => match numbers(a, b) {
            Some(Some(order)) => order,
            Some(None) => return fail("NaN values cannot be ordered"),
            None => return Err(EvalError::no_such_overload()),
        },
    })
}
