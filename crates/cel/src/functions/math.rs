//! Numbers (cel-go, `ext/math.go`).

use std::cmp::Ordering;

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Value, compare};

pub(super) const TABLE: &[Function] = &[
    Function(
        "math.@max",
        Call::Plain(greatest),
        &[
            "math_@max_double (double) double",
            "math_@max_int (int) int",
            "math_@max_uint (uint) uint",
            "math_@max_double_double (double, double) double",
            "math_@max_double_int (double, int) dyn",
            "math_@max_double_uint (double, uint) dyn",
            "math_@max_int_double (int, double) dyn",
            "math_@max_int_int (int, int) int",
            "math_@max_int_uint (int, uint) dyn",
            "math_@max_uint_double (uint, double) dyn",
            "math_@max_uint_int (uint, int) dyn",
            "math_@max_uint_uint (uint, uint) uint",
            "math_@max_list_double (list(double)) double",
            "math_@max_list_int (list(int)) int",
            "math_@max_list_uint (list(uint)) uint",
            "math_@max_list_dyn (list(dyn)) dyn",
        ],
    ),
    Function(
        "math.@min",
        Call::Plain(least),
        &[
            "math_@min_double (double) double",
            "math_@min_int (int) int",
            "math_@min_uint (uint) uint",
            "math_@min_double_double (double, double) double",
            "math_@min_double_int (double, int) dyn",
            "math_@min_double_uint (double, uint) dyn",
            "math_@min_int_double (int, double) dyn",
            "math_@min_int_int (int, int) int",
            "math_@min_int_uint (int, uint) dyn",
            "math_@min_uint_double (uint, double) dyn",
            "math_@min_uint_int (uint, int) dyn",
            "math_@min_uint_uint (uint, uint) uint",
            "math_@min_list_double (list(double)) double",
            "math_@min_list_int (list(int)) int",
            "math_@min_list_uint (list(uint)) uint",
            "math_@min_list_dyn (list(dyn)) dyn",
        ],
    ),
    Function("math.ceil", Call::Plain(ceil), &["math_ceil_double (double) double"]),
    Function("math.floor", Call::Plain(floor), &["math_floor_double (double) double"]),
    Function("math.round", Call::Plain(round), &["math_round_double (double) double"]),
    Function("math.trunc", Call::Plain(trunc), &["math_trunc_double (double) double"]),
    Function("math.isInf", Call::Plain(is_inf), &["math_isInf_double (double) bool"]),
    Function("math.isNaN", Call::Plain(is_nan), &["math_isNaN_double (double) bool"]),
    Function("math.isFinite", Call::Plain(is_finite), &["math_isFinite_double (double) bool"]),
    Function(
        "math.abs",
        Call::Plain(abs),
        &["math_abs_double (double) double", "math_abs_int (int) int", "math_abs_uint (uint) uint"],
    ),
    Function(
        "math.sign",
        Call::Plain(sign),
        &["math_sign_double (double) double", "math_sign_int (int) int", "math_sign_uint (uint) uint"],
    ),
    Function(
        "math.sqrt",
        Call::Plain(sqrt),
        &["math_sqrt_double (double) double", "math_sqrt_int (int) double", "math_sqrt_uint (uint) double"],
    ),
    Function(
        "math.bitAnd",
        Call::Plain(bit_and),
        &["math_bitAnd_int_int (int, int) int", "math_bitAnd_uint_uint (uint, uint) uint"],
    ),
    Function(
        "math.bitOr",
        Call::Plain(bit_or),
        &["math_bitOr_int_int (int, int) int", "math_bitOr_uint_uint (uint, uint) uint"],
    ),
    Function(
        "math.bitXor",
        Call::Plain(bit_xor),
        &["math_bitXor_int_int (int, int) int", "math_bitXor_uint_uint (uint, uint) uint"],
    ),
    Function(
        "math.bitNot",
        Call::Plain(bit_not),
        &["math_bitNot_int_int (int) int", "math_bitNot_uint_uint (uint) uint"],
    ),
    Function(
        "math.bitShiftLeft",
        Call::Plain(shift_left),
        &["math_bitShiftLeft_int_int (int, int) int", "math_bitShiftLeft_uint_int (uint, int) uint"],
    ),
    Function(
        "math.bitShiftRight",
        Call::Plain(shift_right),
        &["math_bitShiftRight_int_int (int, int) int", "math_bitShiftRight_uint_int (uint, int) uint"],
    ),
];

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<Value<'a>> {
    let numeric = |v: &Value<'a>| matches!(v, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    let items: Vec<Value<'a>> = match args {
        [Value::List(list)] => list.iter().collect(),
        _ => args.to_vec(),
    };
    if !items.iter().all(numeric) {
        return Err(EvalError::no_such_overload());
    }
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else {
        return fail(format!("math.@{name}(list) argument must not be empty"));
    };
    for item in items {
        if compare(&item, &best)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn greatest<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    extreme(args, "max", Ordering::Greater)
}

fn least<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    extreme(args, "min", Ordering::Less)
}

fn double<'a>(args: &[Value<'a>], f: fn(f64) -> f64) -> Outcome<Value<'a>> {
    match args {
        [Value::Double(d)] => Ok(Value::Double(f(*d))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn test<'a>(args: &[Value<'a>], f: fn(f64) -> bool) -> Outcome<Value<'a>> {
    match args {
        [Value::Double(d)] => Ok(Value::Bool(f(*d))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn ceil<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    double(args, f64::ceil)
}

fn floor<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    double(args, f64::floor)
}

fn round<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    double(args, f64::round)
}

fn trunc<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    double(args, f64::trunc)
}

fn is_inf<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, f64::is_infinite)
}

fn is_nan<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, f64::is_nan)
}

fn is_finite<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, f64::is_finite)
}

fn abs<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(i)] => match i.checked_abs() {
            Some(i) => Value::Int(i),
            None => return fail("integer overflow"),
        },
        [u @ Value::Uint(_)] => u.clone(),
        [Value::Double(d)] => Value::Double(d.abs()),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn sqrt<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Double(match args {
        [Value::Int(i)] => (*i as f64).sqrt(),
        [Value::Uint(u)] => (*u as f64).sqrt(),
        [Value::Double(d)] => d.sqrt(),
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn sign<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(i)] => Value::Int(i.signum()),
        [Value::Uint(u)] => Value::Uint(u64::from(*u > 0)),
        [Value::Double(d)] if *d == 0.0 || d.is_nan() => Value::Double(*d),
        [Value::Double(d)] => Value::Double(d.signum()),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn bits<'a>(args: &[Value<'a>], int: fn(i64, i64) -> i64, uint: fn(u64, u64) -> u64) -> Outcome<Value<'a>> {
    match args {
        [Value::Int(a), Value::Int(b)] => Ok(Value::Int(int(*a, *b))),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(uint(*a, *b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn bit_and<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    bits(args, |a, b| a & b, |a, b| a & b)
}

fn bit_or<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    bits(args, |a, b| a | b, |a, b| a | b)
}

fn bit_xor<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    bits(args, |a, b| a ^ b, |a, b| a ^ b)
}

fn bit_not<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Int(a)] => Ok(Value::Int(!a)),
        [Value::Uint(a)] => Ok(Value::Uint(!a)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn shift<'a>(args: &[Value<'a>], name: &str, f: fn(u64, u32) -> Option<u64>) -> Outcome<Value<'a>> {
    let by = match args {
        [_, Value::Int(n)] => *n,
        _ => return Err(EvalError::no_such_overload()),
    };
    let Ok(by) = u64::try_from(by) else { return fail(format!("math.{name}() negative offset: {by}")) };
    let shifted = |bits: u64| f(bits, u32::try_from(by).unwrap_or(64)).unwrap_or(0);
    match &args[0] {
        // The sign is a bit like any other.
        Value::Int(i) => Ok(Value::Int(shifted(i.cast_unsigned()).cast_signed())),
        Value::Uint(u) => Ok(Value::Uint(shifted(*u))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn shift_left<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    shift(args, "bitShiftLeft", u64::checked_shl)
}

fn shift_right<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    shift(args, "bitShiftRight", u64::checked_shr)
}
