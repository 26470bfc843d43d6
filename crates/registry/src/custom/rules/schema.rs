use cel::{ESTIMATED_RULE_LIMIT, ESTIMATED_SCHEMA_LIMIT, most_values, over_limit, schema_decl};
use serde_json::{Value, json};
use types::{FieldErrors, Path, str_at};

use super::compile::{compile_rule, environments, rules_of};
use super::field_path;

/// Upstream: `supportedValidationReason`.
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// How many rules a total that is too high names (`TotalCost.MostExpensive`).
const MOST_NAMED: usize = 4;

/// What is wrong with the rules that stand in a schema: syntax, types and costs. `path` leads to the schema. A schema
/// whose old rules cost too much already may keep to that (upstream: `suppressPerExpressionCost`).
pub(in crate::custom) fn check_schema(
    schema: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut FieldErrors,
) {
    let tolerant = old.is_some_and(|old| {
        let mut total = Total::default();
        let place = Place { cardinality: Some(1), uncorrelated: None, tolerant: false, root: true };
        level(old, &place, &Path::new(path), &mut FieldErrors::new(), &mut total);
        total.rule_over
    });
    let mut found = FieldErrors::new();
    let mut total = Total::default();
    let place = Place { cardinality: Some(1), uncorrelated: None, tolerant, root: true };
    let path = Path::new(path);
    level(schema, &place, &path, &mut found, &mut total);
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    if let Some(why) = over_limit(what, total.sum, ESTIMATED_SCHEMA_LIMIT) {
        for (_, field) in &total.dearest {
            let why = "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            found.add("FieldValueForbidden", field.clone(), why);
        }
        found.forbidden(&path, &why);
    }
    errors.extend(found);
}

/// Where in the schema a level is.
struct Place<'a> {
    /// How many values of the level there can be, if schemas above say so.
    cardinality: Option<u64>,
    /// The highest level whose parts cannot be found again in the old object.
    uncorrelated: Option<&'a str>,
    tolerant: bool,
    root: bool,
}

/// The costs of a schema's rules.
#[derive(Default)]
struct Total {
    sum: u64,
    /// The rules that cost most, the dearest first.
    dearest: Vec<(u64, String)>,
    rule_over: bool,
}

impl Total {
    fn add(&mut self, cost: u64, path: &Path<'_>) {
        self.sum = self.sum.saturating_add(cost);
        self.rule_over |= cost > ESTIMATED_RULE_LIMIT;
        if cost >= ESTIMATED_SCHEMA_LIMIT / 100 {
            self.dearest.push((cost, path.to_string()));
            self.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            self.dearest.truncate(MOST_NAMED);
        }
    }
}

fn level(schema: &Value, place: &Place<'_>, path: &Path<'_>, errors: &mut FieldErrors, total: &mut Total) {
    let before = errors.len();
    let factor = match str_at(schema, &["type"]) {
        Some("object") if schema["additionalProperties"].is_object() => schema["maxProperties"].as_u64(),
        Some("array") => schema["maxItems"].as_u64(),
        _ => Some(1),
    };
    let cardinality = place.cardinality.and_then(|c| Some(c.saturating_mul(factor?)));
    let own = path.to_string();
    let mut below = |schema: &Value, correlates: bool, path: &Path<'_>| {
        let uncorrelated = place.uncorrelated.or((!correlates).then_some(own.as_str()));
        let place = Place { cardinality, uncorrelated, root: false, ..*place };
        level(schema, &place, path, errors, total);
    };
    if let Some(schema) = schema.get("additionalProperties").filter(|s| s.is_object()) {
        below(schema, true, &path.child("additionalProperties"));
    }
    let properties = path.child("properties");
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        below(field, schema["x-kubernetes-map-type"] != "atomic", &properties.key(name));
    }
    if let Some(items) = schema.get("items").filter(|s| s.is_object()) {
        below(items, schema["x-kubernetes-list-type"] == "map", &path.child("items"));
    }
    let rules = rules_of(schema);
    if rules.is_empty() {
        return;
    }
    let list = path.child("x-kubernetes-validations");
    for (i, rule) in rules.iter().enumerate() {
        structure(rule, schema, &list.index(i), errors);
    }
    // Faults of types would only be told again, in words that help less.
    if errors.len() > before {
        return;
    }
    let Some(decl) = schema_decl(schema, "selfType", place.root) else {
        let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
        return errors.internal(&list, why);
    };
    let environments = environments(&decl);
    let times = place.cardinality.unwrap_or_else(|| most_values(schema));
    for (i, rule) in rules.iter().enumerate() {
        expressions(rule, place, &list.index(i), times, compile_rule(rule, &environments), errors, total);
    }
}

/// The form of a rule.
fn structure(rule: &Value, schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    let broken = |text: &str| text.contains(['\n', '\r']);
    let (source, message) = (text("rule").trim(), text("message").trim());
    if source.is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if !text("message").is_empty() && message.is_empty() {
        let why = "message must be non-empty if specified";
        errors.invalid(&path.child("message"), text("message"), why);
    } else if broken(message) {
        let why = "message must not contain line breaks";
        errors.invalid(&path.child("message"), text("message"), why);
    } else if broken(source) && message.is_empty() {
        errors.required(&path.child("message"), "message must be specified if rule contains line breaks");
    }
    if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        errors.required(&path.child("messageExpression"), why);
    }
    if let Some(reason) = rule.get("reason").and_then(Value::as_str).filter(|r| !REASONS.contains(r)) {
        errors.not_supported(&path.child("reason"), reason, &REASONS);
    }
    let field = text("fieldPath");
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        errors.invalid(&path.child("fieldPath"), field, "fieldPath must be non-empty if specified");
    }
    if broken(field) {
        errors.invalid(&path.child("fieldPath"), field, "fieldPath must not contain line breaks");
    }
    if field_path::normalized(field, schema).is_err() {
        errors.invalid(&path.child("fieldPath"), field, "fieldPath must be a valid path");
    }
}

/// The expressions of a rule: types and costs.
fn expressions(
    rule: &Value,
    place: &Place<'_>,
    path: &Path<'_>,
    times: u64,
    compiled: super::compile::Compiled,
    errors: &mut FieldErrors,
    total: &mut Total,
) {
    let here = path.child("rule");
    let mut uses_old = false;
    match compiled.program {
        None => {}
        Some(Err(why)) => errors.invalid(&here, shown(rule), &why),
        Some(Ok(program)) => {
            let cost = program.estimate().max.saturating_mul(times);
            if let (Some(why), false) =
                (over_limit("estimated rule cost", cost, ESTIMATED_RULE_LIMIT), place.tolerant)
            {
                errors.forbidden(&here, &why);
            }
            total.add(cost, &here);
            uses_old = program.uses("oldSelf");
        }
    }
    let message = path.child("messageExpression");
    match compiled.message {
        None => {}
        Some(Err(why)) => errors.invalid(&message, shown(rule), &why),
        Some(Ok(program)) => {
            let cost = program.estimate().max;
            let what = "estimated messageExpression cost";
            if let (Some(why), false) = (over_limit(what, cost, ESTIMATED_RULE_LIMIT), place.tolerant) {
                errors.forbidden(&message, &why);
            }
            total.add(cost, &message);
        }
    }
    if uses_old {
        if let Some(level) = place.uncorrelated {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {level}");
            errors.invalid(&here, rule["rule"].clone(), &why);
        }
    } else if let Some(optional) = rule.get("optionalOldSelf").filter(|v| !v.is_null()) {
        let why = "may not be set if oldSelf is not used in rule";
        errors.invalid(&path.child("optionalOldSelf"), optional.clone(), why);
    }
}

/// A rule as errors show it: upstream's internal type, whose fields have no names of their own in JSON.
fn shown(rule: &Value) -> Value {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    json!({"Rule": text("rule"), "Message": text("message"), "MessageExpression": text("messageExpression"),
        "Reason": rule["reason"], "FieldPath": text("fieldPath"), "OptionalOldSelf": rule["optionalOldSelf"]})
}
