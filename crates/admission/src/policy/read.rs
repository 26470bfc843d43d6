use cel::Program;
use registry::{ExpressionScope, Variables, Wanted, compile_expression};
use serde_json::Value;
use types::{Reason, at, str_at};

use crate::evaluate::Conditions;
use crate::matching::Match;

/// A policy and what binds it, readied.
pub(crate) struct Policy {
    pub(super) name: String,
    pub(super) matches: Result<Match, String>,
    pub(super) conditions: Conditions,
    pub(super) param_kind: Option<(String, String)>,
    /// What fails is no reason to refuse.
    pub(super) ignore: bool,
    pub(super) if_needed: bool,
    pub(super) variables: Vec<(String, Program)>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) mutations: Vec<Mutation>,
    pub(super) bindings: Vec<Binding>,
}

/// A program, or why there is none.
pub(super) type Compiled = Result<Program, String>;

pub(super) struct Validation {
    pub(super) source: String,
    pub(super) program: Compiled,
    pub(super) message: String,
    pub(super) message_program: Option<Program>,
    pub(super) reason: Option<Reason>,
}

pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) source: String,
    pub(super) program: Compiled,
}

pub(super) struct Mutation {
    pub(super) source: String,
    pub(super) program: Compiled,
    /// Operations, rather than a configuration to apply.
    pub(super) patch: bool,
}

pub(crate) struct Binding {
    pub(super) name: String,
    pub(super) matches: Option<Result<Match, String>>,
    pub(super) param_ref: Value,
    pub(super) deny: bool,
    pub(super) warn: bool,
    pub(super) audit: bool,
    pub(super) actions: Vec<String>,
}

impl Policy {
    /// The policies that are bound, by name.
    pub(super) fn read_all(policies: &[Value], bindings: &[Value]) -> Vec<Self> {
        let mut read: Vec<Self> = policies.iter().filter_map(|p| Self::read(p, bindings)).collect();
        read.sort_by(|a, b| a.name.cmp(&b.name));
        read
    }

    fn read(policy: &Value, bindings: &[Value]) -> Option<Self> {
        let name = str_at(policy, &["metadata", "name"])?;
        let mut bound: Vec<Binding> =
            bindings.iter().filter(|b| b["spec"]["policyName"] == name).map(Binding::read).collect();
        if bound.is_empty() {
            return None;
        }
        bound.sort_by(|a, b| a.name.cmp(&b.name));
        let spec = &policy["spec"];
        let mutating = spec["mutations"].is_array();
        let param_kind = at(spec, &["paramKind"]).map(|kind| {
            let text = |field: &str| str_at(kind, &[field]).unwrap_or_default().to_owned();
            (text("apiVersion"), text("kind"))
        });
        let scope = ExpressionScope { params: param_kind.is_some(), authorizer: true, mutation: mutating };
        let variables = Variables::compile(&spec["variables"], &scope.env());
        let env = &variables.env;
        let quiet = ExpressionScope { authorizer: false, ..scope };
        let messages = Variables::compile(&spec["variables"], &quiet.env()).env;
        let list = |field: &str| spec[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let compile = |source: &str, wanted| {
            compile_expression(env, source, wanted).map_err(|why| format!("compilation error: {why}"))
        };
        let validation = |v: &Value| {
            let text = |field: &str| str_at(v, &[field]).unwrap_or_default();
            let message = Some(text("messageExpression")).filter(|m| !m.trim().is_empty());
            Validation {
                source: text("expression").to_owned(),
                program: compile(text("expression"), Wanted::Bool),
                message: text("message").trim().to_owned(),
                message_program: message.and_then(|m| compile_expression(&messages, m, Wanted::Text).ok()),
                reason: serde_json::from_value(v["reason"].clone()).ok(),
            }
        };
        let annotation = |a: &Value| {
            let text = |field: &str| str_at(a, &[field]).unwrap_or_default();
            let source = text("valueExpression");
            Annotation {
                key: text("key").to_owned(),
                source: source.to_owned(),
                program: compile(source, Wanted::TextOrNull),
            }
        };
        let mutation = |m: &Value| {
            let patch = str_at(m, &["patchType"]) == Some("JSONPatch");
            let (field, wanted) =
                if patch { ("jsonPatch", Wanted::Patch) } else { ("applyConfiguration", Wanted::Object) };
            let source = str_at(m, &[field, "expression"]).unwrap_or_default();
            Mutation { source: source.to_owned(), program: compile(source, wanted), patch }
        };
        let ignore = str_at(spec, &["failurePolicy"]) == Some("Ignore");
        Some(Self {
            name: name.to_owned(),
            matches: Match::of_policy(&spec["matchConstraints"]),
            conditions: Conditions::read(&spec["matchConditions"], &scope.env(), ignore),
            param_kind,
            ignore,
            if_needed: str_at(spec, &["reinvocationPolicy"]) == Some("IfNeeded"),
            validations: list("validations").iter().map(validation).collect(),
            annotations: list("auditAnnotations").iter().map(annotation).collect(),
            mutations: list("mutations").iter().map(mutation).collect(),
            variables: variables.programs.into_iter().filter_map(|(n, p)| Some((n, p.ok()?))).collect(),
            bindings: bound,
        })
    }
}

impl Binding {
    fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = spec["validationActions"].as_array().into_iter().flatten();
        let actions: Vec<String> = actions.filter_map(Value::as_str).map(str::to_owned).collect();
        let has = |action: &str| actions.iter().any(|a| a == action);
        Self {
            name: str_at(binding, &["metadata", "name"]).unwrap_or_default().to_owned(),
            matches: at(spec, &["matchResources"]).map(Match::of_policy),
            param_ref: spec["paramRef"].clone(),
            deny: has("Deny"),
            warn: has("Warn"),
            audit: has("Audit"),
            actions,
        }
    }
}
