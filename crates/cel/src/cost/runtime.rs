//! What a call costs when it happens (cel-go, `interpreter/runtimecost.go`, `costCall`; apiserver,
//! `pkg/cel/library/cost.go`, `CallCost`).

use super::range::scale;
use crate::value::{Key, List, Map, Opaque, Value};

/// Per code point of a text that is walked through.
pub(super) const TEXT: f64 = 0.1;
/// Per code point of a pattern.
pub(super) const PATTERN: f64 = 0.25;

/// How a call's cost follows from its arguments; chosen when compiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Fixed(u64),
    /// The first argument is walked through so many times.
    Walk(u8),
    /// The result is written twice.
    Join,
    /// The first argument is walked through with all its parts.
    Traverse,
    Matches,
    Contains,
    ContainsIp(bool),
    ContainsCidr(bool),
    Validate,
    InList,
    /// The smaller of both is walked through; equality of library values costs one.
    Smaller,
    /// Both are copied.
    Sum,
}

/// The rule for a function; the overload is known if only one fits.
pub(crate) fn rule(function: &str, overload: Option<&str>) -> Rule {
    match function {
        "check" => return Rule::Fixed(350_000),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => return Rule::Traverse,
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "format" => return Rule::Walk(1),
        "replace" | "split" | "ip.isCanonical" => return Rule::Walk(2),
        "ip" if overload != Some("cidr_ip") => return Rule::Walk(1),
        "join" => return Rule::Join,
        "find" | "findAll" => return Rule::Matches,
        "containsIP" => return Rule::ContainsIp(overload == Some("cidr_contains_ip_string")),
        "containsCIDR" => return Rule::ContainsCidr(overload == Some("cidr_contains_cidr_string")),
        "validate" => return Rule::Validate,
        _ => {}
    }
    match overload.unwrap_or_default() {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" => Rule::Walk(1),
        "in_list" => Rule::InList,
        "equals"
        | "not_equals"
        | "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => Rule::Smaller,
        "add_string" | "add_bytes" => Rule::Sum,
        "matches" | "matches_string" => Rule::Matches,
        "contains_string" => Rule::Contains,
        _ => Rule::Fixed(1),
    }
}

fn size(args: &[Value<'_>], index: usize) -> u64 {
    args.get(index).and_then(Value::size).unwrap_or(1) as u64
}

impl Rule {
    pub(crate) fn cost(self, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
        match self {
            Self::Fixed(cost) => cost,
            Self::Walk(times) => scale(size(args, 0), f64::from(times) * TEXT),
            Self::Join => scale(result.and_then(Value::size).unwrap_or(1) as u64, 2.0 * TEXT),
            Self::Traverse => args.first().map_or(0, traversal),
            Self::Matches => {
                scale(size(args, 0).saturating_add(1), TEXT).saturating_mul(scale(size(args, 1), PATTERN))
            }
            Self::Contains => scale(size(args, 0), TEXT).saturating_mul(scale(size(args, 1), TEXT)),
            Self::ContainsIp(text) => {
                let other = if text { scale(size(args, 1), TEXT) } else { 0 };
                scale(2 * size(args, 0), TEXT) + other
            }
            Self::ContainsCidr(text) => {
                let other = if text { scale(size(args, 1), TEXT) } else { 0 };
                scale(2 * size(args, 0), TEXT) + scale(size(args, 0), TEXT) + 1 + other
            }
            Self::Validate => {
                let pattern = match args.first() {
                    Some(Value::Opaque(Opaque::Format(format))) => format.regex_size,
                    _ => 1,
                };
                scale(size(args, 1).saturating_add(1), TEXT).saturating_mul(scale(pattern, PATTERN))
            }
            Self::InList => size(args, 1),
            Self::Smaller => match args.first() {
                Some(Value::Opaque(_)) => 1,
                Some(Value::Int(_) | Value::Bool(_) | Value::Uint(_) | Value::Double(_)) => 1,
                _ => scale(size(args, 0).min(size(args, 1)), TEXT),
            },
            Self::Sum => scale(size(args, 0).saturating_add(size(args, 1)), TEXT),
        }
    }
}

/// Every part of a value counts one, text a tenth for each byte.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(s) => (s.len() as f64 * TEXT) as u64,
        Value::Bytes(b) => (b.len() as f64 * TEXT) as u64,
        Value::List(list) => List::iter(list).map(|v| traversal(&v)).sum(),
        Value::Map(map) => {
            let entry = |key: &Key<'_>| traversal(&key.clone().into());
            Map::keys(map).iter().map(|k| entry(k) + map.get(k).map_or(0, |v| traversal(&v))).sum()
        }
        Value::Struct(object) => {
            object.entries().iter().map(|(k, v)| (k.len() as f64 * TEXT) as u64 + traversal(v)).sum()
        }
        _ => 1,
    }
}
