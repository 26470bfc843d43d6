//! Semantic versions (apiserver, `pkg/cel/library/semverlib.go`).

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Opaque, Value};

pub(super) const TABLE: &[Function] = &[
    Function(
        "semver",
        Call::Plain(semver),
        &[
            "string_to_semver (string) kubernetes.Semver",
            "string_bool_to_semver (string, bool) kubernetes.Semver",
        ],
    ),
    Function(
        "isSemver",
        Call::Plain(is_semver),
        &["is_semver_string (string) bool", "is_semver_string_bool (string, bool) bool"],
    ),
    Function("major", Call::Plain(major), &["semver_major kubernetes.Semver.() int"]),
    Function("minor", Call::Plain(minor), &["semver_minor kubernetes.Semver.() int"]),
    Function("patch", Call::Plain(patch), &["semver_patch kubernetes.Semver.() int"]),
];

/// A semantic version; builds do not count in comparisons.
#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
}

impl Semver {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
        let mut parts = core.split('.');
        let mut numbers = [0; 3];
        for number in &mut numbers {
            let part = parts.next()?;
            let plain = part == "0" || !part.starts_with('0');
            if !plain || part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            *number = part.parse().ok()?;
        }
        let legal = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if parts.next().is_some() || build.is_some_and(|b| !b.split('.').all(legal)) {
            return None;
        }
        let pre: Vec<String> = pre.map_or(Vec::new(), |p| p.split('.').map(str::to_owned).collect());
        let canonical =
            |id: &str| id == "0" || !id.starts_with('0') || !id.bytes().all(|b| b.is_ascii_digit());
        pre.iter().all(|id| legal(id) && canonical(id)).then_some(Self { numbers, pre })
    }

    /// Also takes `v1`, `1.02`: a prefix, missing parts and leading zeros are mended.
    fn parse_tolerant(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (core, rest) = text.split_at(end);
        let mut parts: Vec<&str> = core
            .split('.')
            .map(|p| match p.trim_start_matches('0') {
                "" if !p.is_empty() => "0",
                trimmed => trimmed,
            })
            .collect();
        if parts.len() < 3 && rest.contains(['-', '+']) {
            return None;
        }
        while parts.len() < 3 {
            parts.push("0");
        }
        Self::parse(&format!("{}{rest}", parts.join(".")))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let ids = |a: &String, b: &String| match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            _ => a.cmp(b),
        };
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => {
                let pairs = self.pre.iter().zip(&other.pre);
                let first = pairs.map(|(a, b)| ids(a, b)).find(|o| o.is_ne());
                first.unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Semver {}

fn read(args: &[Value<'_>]) -> Outcome<Option<Semver>> {
    match args {
        [Value::String(s)] | [Value::String(s), Value::Bool(false)] => Ok(Semver::parse(s)),
        [Value::String(s), Value::Bool(true)] => Ok(Semver::parse_tolerant(s)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn semver<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match read(args)? {
        Some(version) => Ok(Value::Opaque(Opaque::Semver(Arc::new(version)))),
        None => fail(format!("invalid semantic version {:?}", args[0].as_str().unwrap_or_default())),
    }
}

fn is_semver<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Bool(read(args)?.is_some()))
}

fn number<'a>(args: &[Value<'a>], which: usize) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(Opaque::Semver(v))] => Ok(Value::Int(v.numbers[which].try_into().unwrap_or(i64::MAX))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn major<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    number(args, 0)
}

fn minor<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    number(args, 1)
}

fn patch<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    number(args, 2)
}
