//! Conversions between the basic types (cel-go, `common/types/*.go`, `ConvertToType`).

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Duration, Opaque, Timestamp, Value, double_text};

pub(super) const TABLE: &[Function] = &[
    Function("bool", Call::Plain(to_bool), &["bool_to_bool (bool) bool", "string_to_bool (string) bool"]),
    Function(
        "bytes",
        Call::Plain(to_bytes),
        &["bytes_to_bytes (bytes) bytes", "string_to_bytes (string) bytes"],
    ),
    Function(
        "double",
        Call::Plain(to_double),
        &[
            "double_to_double (double) double",
            "int64_to_double (int) double",
            "string_to_double (string) double",
            "uint64_to_double (uint) double",
        ],
    ),
    Function(
        "duration",
        Call::Plain(to_duration),
        &[
            "duration_to_duration (duration) duration",
            "int64_to_duration (int) duration",
            "string_to_duration (string) duration",
        ],
    ),
    Function(
        "int",
        Call::Plain(to_int),
        &[
            "int64_to_int64 (int) int",
            "double_to_int64 (double) int",
            "duration_to_int64 (duration) int",
            "string_to_int64 (string) int",
            "timestamp_to_int64 (timestamp) int",
            "uint64_to_int64 (uint) int",
        ],
    ),
    Function(
        "string",
        Call::Plain(to_string),
        &[
            "string_to_string (string) string",
            "bool_to_string (bool) string",
            "bytes_to_string (bytes) string",
            "double_to_string (double) string",
            "duration_to_string (duration) string",
            "int64_to_string (int) string",
            "timestamp_to_string (timestamp) string",
            "uint64_to_string (uint) string",
            "ip_to_string (net.IP) string",
            "cidr_to_string (net.CIDR) string",
        ],
    ),
    Function(
        "timestamp",
        Call::Plain(to_timestamp),
        &[
            "timestamp_to_timestamp (timestamp) timestamp",
            "int64_to_timestamp (int) timestamp",
            "string_to_timestamp (string) timestamp",
        ],
    ),
    Function(
        "uint",
        Call::Plain(to_uint),
        &[
            "uint64_to_uint64 (uint) uint",
            "double_to_uint64 (double) uint",
            "int64_to_uint64 (int) uint",
            "string_to_uint64 (string) uint",
        ],
    ),
];

/// What Go's `strconv` says of text that is no number.
fn not_a_number(function: &str, text: &str, why: &str) -> EvalError {
    EvalError::failed(format!("strconv.{function}: parsing {text:?}: {why}"))
}

fn to_bool<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(*b)),
        [Value::String(s)] => match &**s {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            text => Err(not_a_number("ParseBool", text, "invalid syntax")),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Bytes(b)] => Ok(Value::Bytes(b.clone())),
        [Value::String(s)] => Ok(Value::Bytes(s.as_bytes().into())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_double<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Double(match args {
        [Value::Double(d)] => *d,
        [Value::Int(i)] => *i as f64,
        [Value::Uint(u)] => *u as f64,
        [Value::String(s)] => s.parse().map_err(|_| not_a_number("ParseFloat", s, "invalid syntax"))?,
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn to_int<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Int(match args {
        [Value::Int(i)] => *i,
        [Value::Uint(u)] => i64::try_from(*u).or_else(|_| fail("integer overflow"))?,
        [Value::Double(d)] if *d > -9_223_372_036_854_775_808.0 && *d < 9_223_372_036_854_775_808.0 => {
            *d as i64
        }
        [Value::Double(_)] => return fail("integer overflow"),
        [Value::String(s)] => match s.parse() {
            Ok(i) => i,
            Err(e) => return Err(not_a_number("ParseInt", s, range_or_syntax(&e))),
        },
        [Value::Timestamp(t)] => t.seconds(),
        [Value::Duration(d)] => d.0,
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn range_or_syntax(e: &std::num::ParseIntError) -> &'static str {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    if matches!(e.kind(), PosOverflow | NegOverflow) { "value out of range" } else { "invalid syntax" }
}

fn to_uint<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Uint(match args {
        [Value::Uint(u)] => *u,
        [Value::Int(i)] => u64::try_from(*i).or_else(|_| fail("unsigned integer overflow"))?,
        [Value::Double(d)] if *d >= 0.0 && *d < 18_446_744_073_709_551_616.0 => *d as u64,
        [Value::Double(_)] => return fail("unsigned integer overflow"),
        [Value::String(s)] => match s.strip_prefix('+').unwrap_or(s).parse() {
            Ok(u) if !s.starts_with('+') => u,
            Ok(_) => return Err(not_a_number("ParseUint", s, "invalid syntax")),
            Err(e) => return Err(not_a_number("ParseUint", s, range_or_syntax(&e))),
        },
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn to_string<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::text(match args {
        [s @ Value::String(_)] => return Ok(s.clone()),
        [Value::Bool(b)] => b.to_string(),
        [Value::Int(i)] => i.to_string(),
        [Value::Uint(u)] => u.to_string(),
        [Value::Double(d)] => double_text(*d),
        [Value::Bytes(b)] => match std::str::from_utf8(b) {
            Ok(text) => text.to_owned(),
            Err(_) => return fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        [Value::Timestamp(t)] => t.to_string(),
        [Value::Duration(d)] => d.seconds_text(),
        [Value::Opaque(Opaque::Ip(ip))] => ip.to_string(),
        [Value::Opaque(Opaque::Cidr(cidr))] => cidr.to_string(),
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let time = match args {
        [Value::Timestamp(t)] => Some(*t),
        [Value::Int(seconds)] => match Timestamp::new(*seconds, 0) {
            None => return fail("timestamp overflow"),
            some => some,
        },
        [Value::String(s)] => Timestamp::parse(s),
        _ => return Err(EvalError::no_such_overload()),
    };
    match (time, args) {
        (Some(time), _) => Ok(Value::Timestamp(time)),
        (None, [Value::String(s)]) => fail(format!(
            "type conversion error from 'string' to 'google.protobuf.Timestamp': {:?} is not a time in RFC 3339",
            &**s
        )),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_duration<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Duration(d)] => Ok(Value::Duration(*d)),
        [Value::Int(nanos)] => Ok(Value::Duration(Duration(*nanos))),
        [Value::String(s)] => Duration::parse(s)
            .map(Value::Duration)
            .ok_or_else(|| EvalError::failed(format!("time: invalid duration {:?}", &**s))),
        _ => Err(EvalError::no_such_overload()),
    }
}
