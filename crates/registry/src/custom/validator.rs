//! JSON schema validation as custom resources know it, in upstream's words (kubernetes/kube-openapi,
//! `pkg/validation/validate`, `pkg/validation/errors/schema.go`; kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/validation/{validation,ratcheting}.go`).

mod found;
mod narrow;
mod read;

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;
use types::{FieldErrors, Path};

use found::{Found, name};
use narrow::same;

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

const INVALID: &str = "FieldValueInvalid";
const WRONG_TYPE: &str = "FieldValueTypeInvalid";

/// Where an error that belongs to no single field is shown.
const NOWHERE: &str = "<nil>";

impl Validator {
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

#[cfg(test)]
pub(super) mod tests;
