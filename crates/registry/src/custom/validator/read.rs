use std::sync::OnceLock;

use serde_json::Value;

use super::{Additional, Correlation, NumberRules, Rules, Types, Validator};
use crate::custom::formats;

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

impl Validator {
    /// Reads a schema.
    pub(in crate::custom) fn new(schema: &Value) -> Self {
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
}
