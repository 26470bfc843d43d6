use cel::{Decl, Env, Program, Type, schema_decl};
use serde_json::Value;
use types::str_at;

use super::field_path;

/// One level of a schema that has rules, or has levels with rules below it.
pub(super) struct Node {
    /// The level's `type`, which errors show as the value.
    pub(super) kind: Box<str>,
    /// The type of `self`, where there are rules.
    pub(super) ty: Type,
    pub(super) rules: Vec<Rule>,
    /// By name, in order.
    pub(super) properties: Vec<(Box<str>, Node)>,
    pub(super) additional: Option<Box<Node>>,
    pub(super) items: Option<Box<Node>>,
    pub(super) lists: Elements,
    /// Whether the old value of a field is known to be its own: not so in atomic maps.
    pub(super) correlates: bool,
}

/// How elements of a list are found again in the old list.
pub(super) enum Elements {
    Keys(Vec<Box<str>>),
    /// For ratcheting only; rules see no old value.
    Index,
    Never,
}

/// One rule, as it stands and readied.
pub(super) struct Rule {
    /// The message, or else the text of the rule.
    pub(super) shown: Box<str>,
    pub(super) message: Box<str>,
    pub(super) reason: Box<str>,
    pub(super) path: Option<String>,
    pub(super) optional_old: bool,
    pub(super) uses_old: bool,
    pub(super) program: Result<Program, String>,
    pub(super) message_program: Option<Program>,
    pub(super) message_source: Box<str>,
}

/// What became of one rule's expressions.
pub(super) struct Compiled {
    /// Nothing for a rule without text.
    pub(super) program: Option<Result<Program, String>>,
    pub(super) message: Option<Result<Program, String>>,
}

/// The rules that stand at one level.
pub(super) fn rules_of(schema: &Value) -> &[Value] {
    schema.get("x-kubernetes-validations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The environments of one level: with the old value as it is, and with one that may be absent.
pub(super) fn environments(decl: &Decl) -> (Env, Env) {
    let env = Env::builder().variable("self", decl.clone()).build();
    let optional = env.extend("oldSelf", Type::optional(decl.ty.clone()));
    (env.extend("oldSelf", decl.clone()), optional)
}

/// Compiles the expressions of one rule.
pub(super) fn compile_rule(rule: &Value, (env, optional): &(Env, Env)) -> Compiled {
    let env = if rule["optionalOldSelf"] == true { optional } else { env };
    let text = |field: &str| rule[field].as_str().filter(|t| !t.trim().is_empty());
    let Some(source) = text("rule") else { return Compiled { program: None, message: None } };
    let program = env.compile(source).map_err(|e| format!("compilation failed: {e}")).and_then(|p| {
        if matches!(p.result_type(), Type::Bool) {
            Ok(p)
        } else {
            Err("cel expression must evaluate to a bool".to_owned())
        }
    });
    let message = text("messageExpression").filter(|_| program.is_ok()).map(|source| {
        let program =
            env.compile(source).map_err(|e| format!("messageExpression compilation failed: {e}"))?;
        if matches!(program.result_type(), Type::String) {
            Ok(program)
        } else {
            Err("messageExpression must evaluate to a string".to_owned())
        }
    });
    Compiled { program: Some(program), message }
}

impl Node {
    /// Reads a schema; nothing if it has no rules.
    pub(super) fn of(schema: &Value, name: &str, root: bool) -> Option<Self> {
        if !has_rules(schema) {
            return None;
        }
        let (ty, rules) = match rules_of(schema) {
            [] => (Type::Dyn, Vec::new()),
            rules => {
                let decl = schema_decl(schema, name, root)?;
                let environments = environments(&decl);
                let rules = rules.iter().filter_map(|rule| Rule::of(rule, schema, &environments)).collect();
                (decl.ty, rules)
            }
        };
        let below = |schema: &Value, part: &str| Self::of(schema, &format!("{name}.{part}"), false);
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let mut properties: Vec<(Box<str>, Self)> =
            properties.filter_map(|(key, schema)| Some((key.as_str().into(), below(schema, key)?))).collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        let part = |key: &str, part: &str| {
            schema.get(key).filter(|s| s.is_object()).and_then(|s| below(s, part)).map(Box::new)
        };
        let keys = || schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        Some(Self {
            kind: str_at(schema, &["type"]).unwrap_or_default().into(),
            ty,
            rules,
            properties,
            additional: part("additionalProperties", "@elem"),
            items: part("items", "@idx"),
            lists: match str_at(schema, &["x-kubernetes-list-type"]) {
                Some("map") => Elements::Keys(keys().filter_map(Value::as_str).map(Into::into).collect()),
                Some(_) => Elements::Never,
                None => Elements::Index,
            },
            correlates: schema["x-kubernetes-map-type"] != "atomic",
        })
    }
}

/// Whether rules stand anywhere in a schema.
fn has_rules(schema: &Value) -> bool {
    let below = |key: &str| schema.get(key).is_some_and(|s| s.is_object() && has_rules(s));
    let properties = || schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    !rules_of(schema).is_empty()
        || below("items")
        || below("additionalProperties")
        || properties().any(|(_, schema)| has_rules(schema))
}

impl Rule {
    fn of(rule: &Value, schema: &Value, environments: &(Env, Env)) -> Option<Self> {
        let text = |field: &str| rule[field].as_str().unwrap_or_default();
        let compiled = compile_rule(rule, environments);
        let program = compiled.program?;
        let message = text("message").trim();
        Some(Self {
            shown: if message.is_empty() { text("rule").trim() } else { message }.into(),
            message: message.into(),
            reason: text("reason").into(),
            path: Some(text("fieldPath"))
                .filter(|p| !p.is_empty())
                .and_then(|p| field_path::normalized(p, schema).ok()),
            optional_old: rule["optionalOldSelf"] == true,
            uses_old: program.as_ref().is_ok_and(|p| p.uses("oldSelf")),
            program,
            message_program: compiled.message.and_then(Result::ok),
            message_source: text("messageExpression").into(),
        })
    }
}
