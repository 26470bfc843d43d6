//! JSON schema validation as custom resources know it, in upstream's words (kubernetes/kube-openapi,
//! `pkg/validation/validate`, `pkg/validation/errors/schema.go`; kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/validation/{validation,ratcheting}.go`).

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;
use types::{FieldErrors, Path};

use super::{formats, pattern};

/// One level of a schema, readied for checking. Most levels have a type and little else, so the rest is apart.
#[derive(Debug, Default)]
pub(super) struct Validator {
    types: Types,
    nullable: bool,
    required: Box<[Box<str>]>,
    /// By name, in order.
    properties: Box<[(Box<str>, Validator)]>,
    additional: Additional,
    items: Option<Box<Validator>>,
    rules: Option<Box<Rules>>,
}

/// What a level may say beside its type.
#[derive(Debug, Default)]
struct Rules {
    format: Option<Box<str>>,
    number: NumberRules,
    least_length: Option<usize>,
    most_length: Option<usize>,
    pattern: Option<(Box<str>, OnceLock<Option<Regex>>)>,
    least_items: Option<usize>,
    most_items: Option<usize>,
    least_properties: Option<usize>,
    most_properties: Option<usize>,
    unique: bool,
    allowed: Option<Vec<Value>>,
    /// How a list's elements are found again in the old list.
    keys: Correlation,
    all_of: Vec<Validator>,
    any_of: Vec<Validator>,
    one_of: Vec<Validator>,
    not: Option<Box<Validator>>,
}

/// Which types a value may have; a set of them only where a number or a text will do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Types {
    #[default]
    Any,
    One(&'static str),
    IntOrString,
    /// A type that no value has.
    Unknown,
}

impl Types {
    fn of(text: &str) -> Self {
        let known = ["string", "number", "integer", "boolean", "array", "object"];
        known.into_iter().find(|k| *k == text).map_or(Self::Unknown, Self::One)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::One(name) => name,
            Self::IntOrString => "integer,string",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Default)]
enum Additional {
    #[default]
    Anything,
    Nothing,
    Of(Box<Validator>),
}

#[derive(Debug, Default)]
enum Correlation {
    #[default]
    Index,
    Keys(Vec<Box<str>>),
    Never,
}

#[derive(Debug, Default)]
struct NumberRules {
    least: Option<(Value, bool)>,
    most: Option<(Value, bool)>,
    multiple_of: Option<Value>,
}

/// What was found, and how much fitted on the way: of several alternatives the best one is reported.
#[derive(Default)]
struct Found {
    errors: Vec<(&'static str, String, String)>,
    score: usize,
}

const INVALID: &str = "FieldValueInvalid";
const WRONG_TYPE: &str = "FieldValueTypeInvalid";

/// The keywords that [`Rules`] are read from.
const RULES: [&str; 20] = [
    "format",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "uniqueItems",
    "enum",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "exclusiveMinimum",
];

/// Where an error that belongs to no single field is shown.
const NOWHERE: &str = "<nil>";

impl Validator {
    /// Reads a schema.
    pub(super) fn new(schema: &Value) -> Self {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let list = |key: &str| schema.get(key).and_then(Value::as_array);
        let all = |key: &str| list(key).into_iter().flatten().map(Self::new).collect();
        let boxed = |key: &str| schema.get(key).filter(|s| s.is_object()).map(|s| Box::new(Self::new(s)));
        let types = match text("type").filter(|t| !t.is_empty()) {
            _ if flag("x-kubernetes-int-or-string") => Types::IntOrString,
            Some(name) => Types::of(name),
            None => Types::Any,
        };
        let bound = |key: &str, exclusive: &str| {
            schema.get(key).filter(|v| v.is_number()).map(|v| (v.clone(), flag(exclusive)))
        };
        let texts = |key: &str| list(key).into_iter().flatten().filter_map(Value::as_str).map(Into::into);
        let rules = || Rules {
            format: text("format").filter(|f| !f.is_empty() && formats::is_known(f)).map(Into::into),
            number: NumberRules {
                least: bound("minimum", "exclusiveMinimum"),
                most: bound("maximum", "exclusiveMaximum"),
                multiple_of: schema.get("multipleOf").filter(|v| v.is_number()).cloned(),
            },
            least_length: count("minLength"),
            most_length: count("maxLength"),
            pattern: text("pattern").filter(|p| !p.is_empty()).map(|p| (p.into(), OnceLock::new())),
            least_items: count("minItems"),
            most_items: count("maxItems"),
            least_properties: count("minProperties"),
            most_properties: count("maxProperties"),
            unique: flag("uniqueItems"),
            allowed: list("enum").filter(|l| !l.is_empty()).cloned(),
            keys: match text("x-kubernetes-list-type") {
                Some("map") => Correlation::Keys(texts("x-kubernetes-list-map-keys").collect()),
                Some(_) => Correlation::Never,
                None => Correlation::Index,
            },
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: boxed("not"),
        };
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let mut properties: Vec<(Box<str>, Self)> =
            properties.map(|(name, schema)| (name.as_str().into(), Self::new(schema))).collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        Self {
            types,
            nullable: flag("nullable"),
            required: texts("required").collect(),
            properties: properties.into(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => Additional::Nothing,
                Some(schema @ Value::Object(_)) => Additional::Of(Box::new(Self::new(schema))),
                _ => Additional::Anything,
            },
            items: boxed("items"),
            rules: RULES.iter().any(|key| schema.get(key).is_some()).then(|| Box::new(rules())),
        }
    }

    /// The rules for one property, if there are any.
    pub(super) fn property(&self, name: &str) -> Option<&Validator> {
        self.properties.binary_search_by(|(n, _)| (**n).cmp(name)).ok().map(|i| &self.properties[i].1)
    }

    /// What is wrong with a value. What has not changed since `old` may stay as it is. `prefix` is where the value
    /// lies, for the errors' fields only.
    pub(super) fn check(&self, value: &Value, old: Option<&Value>, prefix: &str, errors: &mut FieldErrors) {
        let mut found = Found::default();
        self.at(value, old, None, &mut found);
        let mut seen: Vec<(String, String)> = Vec::new();
        for (reason, field, message) in found.errors {
            let field = match (prefix, field.as_str()) {
                ("", "") => NOWHERE.to_owned(),
                ("", _) | (_, NOWHERE) => field,
                (prefix, "") => prefix.to_owned(),
                (prefix, field) => format!("{prefix}.{field}"),
            };
            if !seen.iter().any(|(f, m)| *f == field && *m == message) {
                errors.add(reason, field.clone(), message.clone());
                seen.push((field, message));
            }
        }
    }

    fn at(&self, value: &Value, old: Option<&Value>, path: Option<&Path<'_>>, found: &mut Found) {
        let mark = found.errors.len();
        self.rules(value, old, path, found);
        if found.errors.len() > mark && old == Some(value) {
            found.errors.truncate(mark);
        }
    }

    fn rules(&self, value: &Value, old: Option<&Value>, path: Option<&Path<'_>>, found: &mut Found) {
        self.of_type(value, path, found);
        let rules = self.rules.as_deref();
        if let (Some(rules), false) = (rules, value.is_null()) {
            rules.alternatives(value, old, path, found);
        }
        match (value, rules) {
            (Value::String(text), Some(rules)) => rules.text(text, value, path, found),
            (Value::Number(_), Some(rules)) => rules.number(value, path, found),
            (Value::Array(items), _) => self.items(items, value, old, path, found),
            (Value::Object(map), _) => self.fields(map, old, path, found),
            _ => {}
        }
        if let Some(allowed) = rules.and_then(|r| r.allowed.as_ref())
            && !(value.is_null() && self.nullable)
            && !allowed.iter().any(|a| same(a, value))
        {
            let shown =
                |v: &Value| v.as_str().map_or_else(|| format!("{:?}", v.to_string()), |s| format!("{s:?}"));
            let list: Vec<String> = allowed.iter().map(shown).collect();
            let message = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
            found.add("FieldValueNotSupported", path, message);
        } else {
            found.score += 1;
        }
    }

    fn of_type(&self, value: &Value, path: Option<&Path<'_>>, found: &mut Found) {
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let whole = || value.as_f64().is_some_and(|n| n.fract() == 0.0);
        let fits = |wanted: &str| match wanted {
            "number" => value.is_number(),
            "integer" => is == "integer" || is == "number" && whole(),
            wanted => wanted == is,
        };
        let ok = match self.types {
            Types::Any => true,
            Types::One(wanted) => fits(wanted),
            Types::IntOrString => fits("integer") || fits("string"),
            Types::Unknown => false,
        };
        if ok || value.is_null() && self.nullable {
            found.score += 1;
            return;
        }
        let wanted = self.types.as_str();
        let name = name(path);
        let message = format!("Invalid value: {is:?}: {name} in body must be of type {wanted}: {is:?}");
        found.add(WRONG_TYPE, path, message);
    }

    fn items(
        &self,
        items: &[Value],
        value: &Value,
        old: Option<&Value>,
        path: Option<&Path<'_>>,
        found: &mut Found,
    ) {
        let before = found.errors.len();
        if let Some(rules) = &self.rules {
            rules.count_items(items, value, path, found);
        }
        let by_index = Correlation::Index;
        let keys = self.rules.as_ref().map_or(&by_index, |r| &r.keys);
        if let Some(schema) = &self.items {
            let root = Path::new("");
            let old = old.and_then(Value::as_array);
            for (i, item) in items.iter().enumerate() {
                let old = old.and_then(|old| keys.find(old, i, item));
                schema.at(item, old, Some(&path.unwrap_or(&root).index(i)), found);
            }
        }
        found.score += usize::from(found.errors.len() == before);
    }

    fn fields(
        &self,
        map: &serde_json::Map<String, Value>,
        old: Option<&Value>,
        path: Option<&Path<'_>>,
        found: &mut Found,
    ) {
        let before = found.errors.len();
        if let Some(rules) = &self.rules {
            rules.count_properties(map.len(), path, found);
        }
        for (key, value) in map {
            let below = path.map_or(Path::new(key), |p| p.child(key));
            let old = old.and_then(|old| old.get(key));
            match (self.property(key), &self.additional) {
                (Some(schema), _) => schema.at(value, old, Some(&below), found),
                (None, Additional::Of(schema)) => schema.at(value, old, Some(&below), found),
                (None, Additional::Nothing) => {
                    let message = format!(
                        "Invalid value: {key:?}: {}.{key} in body is a forbidden property",
                        name(path)
                    );
                    found.add(INVALID, path, message);
                }
                (None, Additional::Anything) => {}
            }
        }
        for key in self.required.iter().filter(|key| !map.contains_key(&***key)) {
            let below = path.map_or(Path::new(key), |p| p.child(key));
            found.add("FieldValueRequired", Some(&below), "Required value".into());
        }
        found.score += usize::from(found.errors.len() == before);
    }
}

impl Rules {
    fn count_items(&self, items: &[Value], value: &Value, path: Option<&Path<'_>>, found: &mut Found) {
        if let Some(least) = self.least_items.filter(|least| items.len() < *least) {
            found.invalid(path, &items.len().into(), &format!("should have at least {least} items"));
        }
        if let Some(most) = self.most_items.filter(|most| items.len() > *most) {
            let message = format!("Too many: {}: must have at most {most} items", items.len());
            found.add("FieldValueTooMany", path, message);
        }
        if self.unique && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
            found.invalid(path, value, "shouldn't contain duplicates");
        }
    }

    fn count_properties(&self, count: usize, path: Option<&Path<'_>>, found: &mut Found) {
        if let Some(least) = self.least_properties.filter(|least| count < *least) {
            found.invalid(path, &count.into(), &format!("should have at least {least} properties"));
        }
        if let Some(most) = self.most_properties.filter(|most| count > *most) {
            let message = format!("Too many: {}: must have at most {most} items", count);
            found.add("FieldValueTooMany", path, message);
        }
    }

    fn text(&self, text: &str, value: &Value, path: Option<&Path<'_>>, found: &mut Found) {
        let before = found.errors.len();
        if self.most_length.is_some() || self.least_length.is_some() {
            let length = text.chars().count();
            if let Some(most) = self.most_length.filter(|most| length > *most) {
                found.add("FieldValueTooLong", path, format!("Too long: may not be more than {most} bytes"));
            }
            if let Some(least) = self.least_length.filter(|least| length < *least) {
                found.invalid(path, value, &format!("should be at least {least} chars long"));
            }
        }
        if let Some((source, compiled)) = &self.pattern {
            let regex = compiled.get_or_init(|| pattern::compile(source).ok());
            if !regex.as_ref().is_some_and(|r| r.is_match(text)) {
                found.invalid(path, value, &format!("should match '{source}'"));
            }
        }
        if let Some(format) = self.format.as_deref().filter(|f| !formats::fits(f, text)) {
            let message =
                format!("Invalid value: {value}: {} in body must be of type {format}: {text:?}", name(path));
            found.add(WRONG_TYPE, path, message);
        }
        found.score += usize::from(found.errors.len() == before);
    }

    fn number(&self, value: &Value, path: Option<&Path<'_>>, found: &mut Found) {
        let before = found.errors.len();
        let in_range = match self.format.as_deref() {
            Some("int32") => {
                value.as_f64().is_none_or(|n| n >= f64::from(i32::MIN) && n <= f64::from(i32::MAX))
            }
            _ => true,
        };
        if !in_range {
            let message = format!(
                "Invalid value: \"\": Checked value must be of type integer with format int32 in {}",
                name(path)
            );
            found.errors.push((INVALID, NOWHERE.into(), message));
        }
        let rules = &self.number;
        let shown = |bound: &Value| match (value.is_f64(), bound.as_f64()) {
            (true, Some(n)) => go_float(n),
            (false, Some(n)) if n.fract() == 0.0 && n.abs() < 9e15 => format!("{n:.0}"),
            (_, Some(n)) => go_float(n),
            _ => bound.to_string(),
        };
        let order = |bound: &Value| compare(value, bound);
        if let Some((most, exclusive)) = &rules.most {
            let ok = order(most).is_none_or(|o| if *exclusive { o.is_lt() } else { o.is_le() });
            if !ok {
                let how = if *exclusive { "less than" } else { "less than or equal to" };
                found.invalid(path, value, &format!("should be {how} {}", shown(most)));
            }
        }
        if let Some((least, exclusive)) = &rules.least {
            let ok = order(least).is_none_or(|o| if *exclusive { o.is_gt() } else { o.is_ge() });
            if !ok {
                let how = if *exclusive { "greater than" } else { "greater than or equal to" };
                found.invalid(path, value, &format!("should be {how} {}", shown(least)));
            }
        }
        if let Some(factor) = &rules.multiple_of
            && !is_multiple(value, factor)
        {
            found.invalid(path, value, &format!("should be a multiple of {}", shown(factor)));
        }
        found.score += usize::from(found.errors.len() == before);
    }

    fn alternatives(&self, value: &Value, old: Option<&Value>, path: Option<&Path<'_>>, found: &mut Found) {
        let general = |found: &mut Found, why: String| {
            let message = format!("Invalid value: \"\": {:?} {why}", name(path));
            found.errors.push((INVALID, NOWHERE.into(), message));
        };
        let tried = |schema: &Validator| {
            let mut found = Found::default();
            schema.at(value, old, path, &mut found);
            found
        };
        if !self.any_of.is_empty() {
            let outcomes: Vec<Found> = self.any_of.iter().map(tried).collect();
            if outcomes.iter().all(|o| !o.errors.is_empty()) {
                general(found, "must validate at least one schema (anyOf)".into());
                found.take_best(outcomes);
            } else {
                found.score += 1;
            }
        }
        if !self.one_of.is_empty() {
            let outcomes: Vec<Found> = self.one_of.iter().map(tried).collect();
            match outcomes.iter().filter(|o| o.errors.is_empty()).count() {
                1 => found.score += 1,
                0 => {
                    general(found, "must validate one and only one schema (oneOf). Found none valid".into());
                    found.take_best(outcomes);
                }
                n => general(
                    found,
                    format!("must validate one and only one schema (oneOf). Found {n} valid alternatives"),
                ),
            }
        }
        if !self.all_of.is_empty() {
            let mut valid = 0;
            for mut outcome in self.all_of.iter().map(tried) {
                valid += usize::from(outcome.errors.is_empty());
                found.errors.append(&mut outcome.errors);
            }
            if valid < self.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                general(found, format!("must validate all the schemas (allOf){none}"));
            } else {
                found.score += 1;
            }
        }
        if let Some(not) = &self.not
            && tried(not).errors.is_empty()
        {
            general(found, "must not validate the schema (not)".into());
        }
    }
}

impl Correlation {
    fn find<'a>(&self, old: &'a [Value], index: usize, item: &Value) -> Option<&'a Value> {
        match self {
            Self::Index => old.get(index),
            Self::Keys(keys) => {
                old.iter().find(|other| keys.iter().all(|key| other.get(&**key) == item.get(&**key)))
            }
            Self::Never => None,
        }
    }
}

impl Found {
    fn add(&mut self, reason: &'static str, path: Option<&Path<'_>>, message: String) {
        self.errors.push((reason, path.map(|p| text(p)).unwrap_or_default(), message));
    }

    fn invalid(&mut self, path: Option<&Path<'_>>, value: &Value, why: &str) {
        self.add(INVALID, path, format!("Invalid value: {value}: {} in body {why}", name(path)));
    }

    /// The errors of the alternative that came nearest.
    fn take_best(&mut self, outcomes: Vec<Found>) {
        let best =
            outcomes.into_iter().reduce(|best, next| if next.score > best.score { next } else { best });
        if let Some(mut best) = best {
            self.errors.append(&mut best.errors);
        }
    }
}

fn text(path: &Path<'_>) -> String {
    path.to_string()
}

fn name(path: Option<&Path<'_>>) -> String {
    path.map(|p| text(p)).unwrap_or_default()
}

fn compare(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// Equality that does not tell `1` from `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && b.is_number() && a.as_f64() == b.as_f64()
}

fn is_multiple(value: &Value, factor: &Value) -> bool {
    match (value.as_i64(), factor.as_i64()) {
        (Some(_), Some(0)) => true,
        (Some(value), Some(factor)) => value.checked_rem(factor).unwrap_or(0) == 0,
        _ => match (value.as_f64(), factor.as_f64()) {
            (Some(value), Some(factor)) if factor > 0.0 => {
                let times = value / factor;
                (times - times.round()).abs() < 1e-9 * times.abs().max(1.0)
            }
            _ => true,
        },
    }
}

/// A number as Go's `%v` shows it: with an exponent from 1e+06 on.
pub(super) fn go_float(n: f64) -> String {
    if n == 0.0 {
        return "0".into();
    }
    let exponent = n.abs().log10().floor() as i32;
    if (-4..6).contains(&exponent) {
        return n.to_string();
    }
    let text = format!("{n:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(rest) => ('-', rest),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
#[path = "validator_tests.rs"]
mod tests;
