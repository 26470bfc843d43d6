//! Validating and mutating policies (kubernetes/kubernetes,
//! `pkg/apis/admissionregistration/validation/validation.go`, `validateValidatingAdmissionPolicySpec`,
//! `validateMutatingAdmissionPolicySpec`).

use cel::Env;
use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_subdomain, dns1035_label, ensure_object, qualified_name, set_default};

use super::super::check::*;
use super::{SPEC, compiles, default_match, expression, match_conditions, validate_match};
use crate::expressions::{ExpressionScope, Variables, Wanted};
use crate::strategy::Strategy;
use crate::table::{self, Column};

/// A ValidatingAdmissionPolicy or MutatingAdmissionPolicy.
pub(in super::super) struct AdmissionPolicy {
    /// Whether it changes objects.
    pub(in super::super) mutating: bool,
}

impl Strategy for AdmissionPolicy {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "failurePolicy", "Fail");
        if let Some(rules) = types::at_mut(spec, &["matchConstraints"]) {
            default_match(rules);
        }
        if self.mutating {
            set_default(spec, "reinvocationPolicy", "Never");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        required_one_of(spec, "failurePolicy", &SPEC, &["Fail", "Ignore"], errors);
        if let Some(kind) = get(spec, "paramKind") {
            param_kind(kind, &SPEC.child("paramKind"), errors);
        }
        match get(spec, "matchConstraints") {
            None => errors.required(&SPEC.child("matchConstraints"), ""),
            Some(rules) => {
                let path = SPEC.child("matchConstraints");
                validate_match(rules, &path, errors);
                if count(rules, "resourceRules") == 0 {
                    errors.required(&path.child("resourceRules"), "");
                }
            }
        }
        let scope = ExpressionScope {
            params: get(spec, "paramKind").is_some(),
            authorizer: true,
            mutation: self.mutating,
        };
        match_conditions(spec, &SPEC.child("matchConditions"), &scope.env(), errors);
        let path = SPEC.child("variables");
        let variables = Variables::compile(&spec["variables"], &scope.env());
        for (i, variable) in list(spec, "variables").enumerate() {
            let path = path.index(i);
            if let Some((_, Err(why))) = variables.programs.get(i)
                && !text(variable, "expression").trim().is_empty()
            {
                errors.invalid(&path.child("expression"), text(variable, "expression"), why);
            }
            let name = text(variable, "name");
            if name.trim().is_empty() {
                errors.required(&path.child("name"), "name is not specified");
            } else if !is_identifier(name) {
                errors.invalid(&path.child("name"), name, "name is not a valid CEL identifier");
            }
            if text(variable, "expression").trim().is_empty() {
                errors.required(&path.child("expression"), "expression is not specified");
            }
            if repeats(list(spec, "variables").take(i).map(|v| text(v, "name")), name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        let env = &variables.env;
        if self.mutating {
            validate_mutations(spec, env, errors);
        } else {
            validate_validations(spec, env, scope, errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { table::MUTATING_ADMISSION_POLICY } else { table::VALIDATING_ADMISSION_POLICY }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        if self.mutating {
            table::mutating_admission_policy_cells(object, now)
        } else {
            table::validating_admission_policy_cells(object, now)
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn param_kind(kind: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match text(kind, "apiVersion") {
        "" => errors.required(&path.child("apiVersion"), ""),
        version if version.matches('/').count() > 1 => {
            let why = format!("unexpected GroupVersion string: {version}");
            errors.invalid(&path.child("apiVersion"), version, &why);
        }
        version => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            if !group.is_empty() {
                name_is(group, dns_subdomain, &path.child("apiVersion"), errors);
            }
            name_is(version, dns1035_label, &path.child("apiVersion"), errors);
        }
    }
    match text(kind, "kind") {
        "" => errors.required(&path.child("kind"), ""),
        name => {
            if let Some(fault) = dns1035_label(&name.to_lowercase()) {
                let why = format!("may have mixed case, but should otherwise match: {fault}");
                errors.invalid(&path.child("kind"), name, &why);
            }
        }
    }
}

fn validate_validations(spec: &Value, env: &Env, scope: ExpressionScope, errors: &mut FieldErrors) {
    // Messages do not depend on who asks.
    let quiet = ExpressionScope { authorizer: false, ..scope };
    let messages = Variables::compile(&spec["variables"], &quiet.env()).env;
    let path = SPEC.child("validations");
    if count(spec, "validations") + count(spec, "auditAnnotations") == 0 {
        errors.required(&path, "validations or auditAnnotations must be non-empty; neither may be empty");
    }
    const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    for (i, validation) in list(spec, "validations").enumerate() {
        let path = path.index(i);
        if text(validation, "expression").trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
        }
        compiles(text(validation, "expression"), env, Wanted::Bool, &path.child("expression"), errors);
        let source = text(validation, "messageExpression");
        compiles(source, &messages, Wanted::Text, &path.child("messageExpression"), errors);
        let message = text(validation, "message");
        if !message.is_empty() && message.trim().is_empty() {
            errors.invalid(&path.child("message"), message, "message must be non-empty if specified");
        } else if message.trim().contains('\n') {
            errors.invalid(&path.child("message"), message, "message must not contain line breaks");
        }
        one_of(validation, "reason", &path, REASONS, errors);
    }
    let path = SPEC.child("auditAnnotations");
    if count(spec, "auditAnnotations") > 20 {
        let n = count(spec, "auditAnnotations");
        errors.invalid(
            &path,
            spec["auditAnnotations"].clone(),
            &format!("must not have more than 20 auditAnnotations, found {n}"),
        );
    }
    for (i, note) in list(spec, "auditAnnotations").enumerate() {
        let path = path.index(i);
        let key = text(note, "key");
        if key.is_empty() {
            errors.required(&path.child("key"), "");
        } else {
            faults(qualified_name(key), key, &path.child("key"), errors);
        }
        expression(note, "valueExpression", env, Wanted::TextOrNull, &path, errors);
        if repeats(list(spec, "auditAnnotations").take(i).map(|a| text(a, "key")), key) {
            errors.duplicate(&path.child("key"), key);
        }
    }
}

fn validate_mutations(spec: &Value, env: &Env, errors: &mut FieldErrors) {
    let path = SPEC.child("mutations");
    if count(spec, "mutations") == 0 {
        errors.required(&path, "mutations must contain at least one item");
    }
    for (i, mutation) in list(spec, "mutations").enumerate() {
        let path = path.index(i);
        let (apply, patch) = (get(mutation, "applyConfiguration"), get(mutation, "jsonPatch"));
        let (own, other, field) = match text(mutation, "patchType") {
            "ApplyConfiguration" => (apply, patch, "applyConfiguration"),
            "JSONPatch" => (patch, apply, "jsonPatch"),
            "" => {
                errors.required(&path.child("patchType"), "");
                continue;
            }
            kind => {
                errors.not_supported(&path.child("patchType"), kind, &["ApplyConfiguration", "JSONPatch"]);
                continue;
            }
        };
        let below = path.child(field);
        match own {
            None => {
                let why = format!("must be specified when patchType is {}", text(mutation, "patchType"));
                errors.required(&below, &why);
            }
            Some(given) => {
                let wanted = if field == "jsonPatch" { Wanted::Patch } else { Wanted::Object };
                expression(given, "expression", env, wanted, &below, errors);
            }
        }
        if other.is_some() {
            let shown = if field == "jsonPatch" { "applyConfiguration" } else { "jsonPatch" };
            let why = format!("must not be specified when patchType is {}", text(mutation, "patchType"));
            errors.invalid(&path.child(shown), json!({}), &why);
        }
    }
    required_one_of(spec, "reinvocationPolicy", &SPEC, &["IfNeeded", "Never"], errors);
}
