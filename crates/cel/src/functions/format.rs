//! Named formats (apiserver, `pkg/cel/library/format.go`).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::urls::Url;
use super::{Call, Function};
use crate::error::{EvalError, Outcome};
use crate::value::{Opaque, Timestamp, Value};

pub(super) const TABLE: &[Function] = &[
    Function("format.named", Call::Plain(named), &["format-named (string) optional(kubernetes.NamedFormat)"]),
    Function(
        "validate",
        Call::Plain(validate),
        &["format-validate kubernetes.NamedFormat.(string) optional(list(string))"],
    ),
    Function(
        "format.dns1123Label",
        Call::Plain(|_| at(0)),
        &["format.dns1123Label () kubernetes.NamedFormat"],
    ),
    Function(
        "format.dns1123Subdomain",
        Call::Plain(|_| at(1)),
        &["format.dns1123Subdomain () kubernetes.NamedFormat"],
    ),
    Function(
        "format.dns1035Label",
        Call::Plain(|_| at(2)),
        &["format.dns1035Label () kubernetes.NamedFormat"],
    ),
    Function(
        "format.qualifiedName",
        Call::Plain(|_| at(3)),
        &["format.qualifiedName () kubernetes.NamedFormat"],
    ),
    Function(
        "format.dns1123LabelPrefix",
        Call::Plain(|_| at(4)),
        &["format.dns1123LabelPrefix () kubernetes.NamedFormat"],
    ),
    Function(
        "format.dns1123SubdomainPrefix",
        Call::Plain(|_| at(5)),
        &["format.dns1123SubdomainPrefix () kubernetes.NamedFormat"],
    ),
    Function(
        "format.dns1035LabelPrefix",
        Call::Plain(|_| at(6)),
        &["format.dns1035LabelPrefix () kubernetes.NamedFormat"],
    ),
    Function("format.labelValue", Call::Plain(|_| at(7)), &["format.labelValue () kubernetes.NamedFormat"]),
    Function("format.uri", Call::Plain(|_| at(8)), &["format.uri () kubernetes.NamedFormat"]),
    Function("format.uuid", Call::Plain(|_| at(9)), &["format.uuid () kubernetes.NamedFormat"]),
    Function("format.byte", Call::Plain(|_| at(10)), &["format.byte () kubernetes.NamedFormat"]),
    Function("format.date", Call::Plain(|_| at(11)), &["format.date () kubernetes.NamedFormat"]),
    Function("format.datetime", Call::Plain(|_| at(12)), &["format.datetime () kubernetes.NamedFormat"]),
];

/// A rule that text can be held against.
#[derive(Debug)]
pub struct NamedFormat {
    /// What `format.named` calls it.
    pub name: &'static str,
    faults: fn(&str) -> Vec<String>,
    /// How long upstream's pattern is, for the cost.
    pub(crate) regex_size: u64,
}

static FORMATS: [NamedFormat; 13] = [
    NamedFormat { name: "dns1123Label", faults: |s| one(types::dns_label(s)), regex_size: 30 },
    NamedFormat { name: "dns1123Subdomain", faults: |s| one(types::dns_subdomain(s)), regex_size: 60 },
    NamedFormat { name: "dns1035Label", faults: |s| one(types::dns1035_label(s)), regex_size: 30 },
    NamedFormat { name: "qualifiedName", faults: types::qualified_name, regex_size: 60 },
    NamedFormat {
        name: "dns1123LabelPrefix",
        faults: |s| one(types::dns_label(prefix(s).as_ref())),
        regex_size: 30,
    },
    NamedFormat {
        name: "dns1123SubdomainPrefix",
        faults: |s| one(types::dns_subdomain(prefix(s).as_ref())),
        regex_size: 60,
    },
    NamedFormat {
        name: "dns1035LabelPrefix",
        faults: |s| one(types::dns1035_label(prefix(s).as_ref())),
        regex_size: 30,
    },
    NamedFormat { name: "labelValue", faults: types::label_value, regex_size: 40 },
    NamedFormat { name: "uri", faults: |s| one(Url::parse(s).err()), regex_size: 1260 },
    NamedFormat { name: "uuid", faults: uuid, regex_size: 78 },
    NamedFormat { name: "byte", faults: byte, regex_size: 90 },
    NamedFormat { name: "date", faults: date, regex_size: 73 },
    NamedFormat { name: "datetime", faults: datetime, regex_size: 73 },
];

fn one(fault: Option<String>) -> Vec<String> {
    fault.into_iter().collect()
}

/// A prefix may end in a dash, since more follows (apimachinery, `api/validation/generic.go`,
/// `maskTrailingDash`).
fn prefix(s: &str) -> Cow<'_, str> {
    match s.strip_suffix('-') {
        Some(rest) if s.len() > 1 => Cow::Owned(format!("{rest}a")),
        _ => Cow::Borrowed(s),
    }
}

fn unless(right: bool, fault: &str) -> Vec<String> {
    if right { Vec::new() } else { vec![fault.to_owned()] }
}

fn uuid(s: &str) -> Vec<String> {
    let mut rest = s.as_bytes();
    let mut right = true;
    for (i, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
        right &= rest.len() >= length && rest[..length.min(rest.len())].iter().all(u8::is_ascii_hexdigit);
        rest = rest.get(length..).unwrap_or_default();
    }
    unless(right && rest.is_empty(), "does not match the UUID format")
}

fn byte(s: &str) -> Vec<String> {
    unless(STANDARD.decode(s).is_ok(), "invalid base64")
}

fn date(s: &str) -> Vec<String> {
    unless(Timestamp::parse_date(s).is_some(), "invalid date")
}

fn datetime(s: &str) -> Vec<String> {
    unless(Timestamp::parse(&s.to_ascii_uppercase()).is_some(), "invalid datetime")
}

fn at<'a>(index: usize) -> Outcome<Value<'a>> {
    Ok(Value::Opaque(Opaque::Format(&FORMATS[index])))
}

fn named<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::String(name)] = args else { return Err(EvalError::no_such_overload()) };
    let found = FORMATS.iter().find(|f| f.name == &**name);
    Ok(found.map_or(Value::Optional(None), |f| Value::some(Value::Opaque(Opaque::Format(f)))))
}

fn validate<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Opaque(Opaque::Format(format)), Value::String(text)] = args else {
        return Err(EvalError::no_such_overload());
    };
    let faults = (format.faults)(text);
    if faults.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(faults.into_iter().map(Value::text).collect())))
}
