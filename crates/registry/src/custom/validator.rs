//! JSON schema validation as custom resources know it, in upstream's words (kubernetes/kube-openapi,
//! `pkg/validation/validate`, `pkg/validation/errors/schema.go`; kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/validation/{validation,ratcheting}.go`).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;
use types::{FieldErrors, Path};

use super::{formats, pattern};

/// One level of a schema, readied for checking.
#[derive(Debug, Default)]
pub(super) struct Validator {
    types: Vec<Box<str>>,
    nullable: bool,
    format: Option<Box<str>>,
    number: Option<Box<NumberRules>>,
    least_length: Option<usize>,
    most_length: Option<usize>,
    pattern: Option<(Box<str>, OnceLock<Option<Regex>>)>,
    least_items: Option<usize>,
    most_items: Option<usize>,
    least_properties: Option<usize>,
    most_properties: Option<usize>,
    unique: bool,
    allowed: Option<Vec<Value>>,
    required: Vec<Box<str>>,
    properties: BTreeMap<Box<str>, Validator>,
    additional: Additional,
    items: Option<Box<Validator>>,
    /// How a list's elements are found again in the old list.
    keys: Correlation,
    all_of: Vec<Validator>,
    any_of: Vec<Validator>,
    one_of: Vec<Validator>,
    not: Option<Box<Validator>>,
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
        let types = if flag("x-kubernetes-int-or-string") {
            vec!["integer".into(), "string".into()]
        } else {
            text("type").filter(|t| !t.is_empty()).map(Into::into).into_iter().collect()
        };
        let bound = |key: &str, exclusive: &str| {
            schema.get(key).filter(|v| v.is_number()).map(|v| (v.clone(), flag(exclusive)))
        };
        let number = NumberRules {
            least: bound("minimum", "exclusiveMinimum"),
            most: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema.get("multipleOf").filter(|v| v.is_number()).cloned(),
        };
        let has_number = number.least.is_some() || number.most.is_some() || number.multiple_of.is_some();
        Self {
            types,
            nullable: flag("nullable"),
            format: text("format").filter(|f| !f.is_empty() && formats::is_known(f)).map(Into::into),
            number: has_number.then(|| Box::new(number)),
            least_length: count("minLength"),
            most_length: count("maxLength"),
            pattern: text("pattern").filter(|p| !p.is_empty()).map(|p| (p.into(), OnceLock::new())),
            least_items: count("minItems"),
            most_items: count("maxItems"),
            least_properties: count("minProperties"),
            most_properties: count("maxProperties"),
            unique: flag("uniqueItems"),
            allowed: list("enum").filter(|l| !l.is_empty()).cloned(),
            required: list("required")
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect(),
            properties: schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(name, schema)| (name.as_str().into(), Self::new(schema)))
                .collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => Additional::Nothing,
                Some(schema @ Value::Object(_)) => Additional::Of(Box::new(Self::new(schema))),
                _ => Additional::Anything,
            },
            items: boxed("items"),
            keys: match text("x-kubernetes-list-type") {
                Some("map") => Correlation::Keys(
                    list("x-kubernetes-list-map-keys")
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .map(Into::into)
                        .collect(),
                ),
                Some(_) => Correlation::Never,
                None => Correlation::Index,
            },
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: boxed("not"),
        }
    }

    /// The rules for one property, if there are any.
    pub(super) fn property(&self, name: &str) -> Option<&Validator> {
        self.properties.get(name)
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
        if !value.is_null() {
            self.alternatives(value, old, path, found);
        }
        match value {
            Value::String(text) => self.text(text, value, path, found),
            Value::Number(_) => self.number(value, path, found),
            Value::Array(items) => self.items(items, value, old, path, found),
            Value::Object(map) => self.fields(map, old, path, found),
            Value::Bool(_) | Value::Null => {}
        }
        if let Some(allowed) = &self.allowed
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
        if self.types.is_empty() || value.is_null() && self.nullable || self.types.iter().any(|t| fits(t)) {
            found.score += 1;
            return;
        }
        let wanted = self.types.join(",");
        let name = name(path);
        let message = format!("Invalid value: {is:?}: {name} in body must be of type {wanted}: {is:?}");
        found.add(WRONG_TYPE, path, message);
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
        let Some(rules) = &self.number else { return };
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

    fn items(
        &self,
        items: &[Value],
        value: &Value,
        old: Option<&Value>,
        path: Option<&Path<'_>>,
        found: &mut Found,
    ) {
        let before = found.errors.len();
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
        if let Some(schema) = &self.items {
            let root = Path::new("");
            let old = old.and_then(Value::as_array);
            for (i, item) in items.iter().enumerate() {
                let old = old.and_then(|old| self.keys.find(old, i, item));
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
        if let Some(least) = self.least_properties.filter(|least| map.len() < *least) {
            found.invalid(path, &map.len().into(), &format!("should have at least {least} properties"));
        }
        if let Some(most) = self.most_properties.filter(|most| map.len() > *most) {
            let message = format!("Too many: {}: must have at most {most} items", map.len());
            found.add("FieldValueTooMany", path, message);
        }
        for (key, value) in map {
            let below = path.map_or(Path::new(key), |p| p.child(key));
            let old = old.and_then(|old| old.get(key));
            match (self.properties.get(key.as_str()), &self.additional) {
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
