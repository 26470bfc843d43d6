//! Webhooks and policies of admission: their structure and their expressions (kubernetes/kubernetes,
//! `pkg/apis/admissionregistration/validation/validation.go`, `.../v1/defaults.go`).

mod binding;
mod policy;
mod webhook;

use cel::Env;
use serde_json::Value;
use types::{FieldErrors, Path, ensure_object, set_default};

use super::check::*;
use super::pod_spec::each;
use crate::expressions::{Wanted, compile_expression};
pub(super) use binding::PolicyBinding;
pub(super) use policy::AdmissionPolicy;
pub(super) use webhook::{WebhookConfiguration, webhook_service};

const SPEC: Path<'static> = Path::new("spec");

fn rule_with_operations(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let below = path.child("operations");
    if count(rule, "operations") == 0 {
        errors.required(&below, "");
    }
    let every = |field: &str| texts(rule, field).any(|x| x == "*") && count(rule, field) > 1;
    if every("operations") {
        let why = "if '*' is present, must not specify other operations";
        errors.invalid(&below, rule["operations"].clone(), why);
    }
    for (i, operation) in texts(rule, "operations").enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.not_supported(&below.index(i), operation, OPERATIONS);
        }
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let below = path.child(field);
        if count(rule, field) == 0 {
            errors.required(&below, "");
        }
        if every(field) {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.invalid(&below, rule[field].clone(), &why);
        }
    }
    let versions = path.child("apiVersions");
    for (i, _) in texts(rule, "apiVersions").enumerate().filter(|(_, v)| v.is_empty()) {
        errors.required(&versions.index(i), "");
    }
    resources(rule, &path.child("resources"), errors);
    one_of(rule, "scope", path, &["*", "Cluster", "Namespaced"], errors);
}

fn resources(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let all: Vec<&str> = texts(rule, "resources").collect();
    if all.is_empty() {
        errors.required(path, "");
    }
    for (i, resource) in all.iter().enumerate() {
        if resource.is_empty() {
            errors.required(&path.index(i), "");
            continue;
        }
        let Some((name, sub)) = resource.split_once('/') else { continue };
        let before = |wanted: String| all[..i].contains(&wanted.as_str());
        if before(format!("{name}/*")) {
            let why = format!("if '{name}/*' is present, must not specify {resource}");
            errors.invalid(&path.index(i), *resource, &why);
        }
        if before(format!("*/{sub}")) {
            let why = format!("if '*/{sub}' is present, must not specify {resource}");
            errors.invalid(&path.index(i), *resource, &why);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.invalid(path, rule["resources"].clone(), why);
    }
    if all.contains(&"*") && all.iter().any(|r| *r != "*" && !r.contains('/')) {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, rule["resources"].clone(), why);
    }
}

fn match_conditions(of: &Value, path: &Path<'_>, env: &Env, errors: &mut FieldErrors) {
    if count(of, "matchConditions") > 64 {
        errors.too_many(path, count(of, "matchConditions"), 64);
    }
    for (i, condition) in list(of, "matchConditions").enumerate() {
        let path = path.index(i);
        expression(condition, "expression", env, Wanted::Bool, &path, errors);
        let name = text(condition, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            qualified(name, &path.child("name"), errors);
            if repeats(list(of, "matchConditions").take(i).map(|c| text(c, "name")), name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }
}

/// An expression that must be there, and compile.
fn expression(of: &Value, field: &str, env: &Env, wanted: Wanted, path: &Path<'_>, errors: &mut FieldErrors) {
    let source = text(of, field);
    if source.trim().is_empty() {
        return errors.required(&path.child(field), "");
    }
    compiles(source, env, wanted, &path.child(field), errors);
}

fn compiles(source: &str, env: &Env, wanted: Wanted, path: &Path<'_>, errors: &mut FieldErrors) {
    if let (Err(why), false) = (compile_expression(env, source, wanted), source.trim().is_empty()) {
        errors.invalid(path, source, &why);
    }
}

fn default_match(rules: &mut Value) {
    set_default(rules, "matchPolicy", "Equivalent");
    ensure_object(rules, "namespaceSelector");
    ensure_object(rules, "objectSelector");
    for field in ["resourceRules", "excludeResourceRules"] {
        each(rules, field).for_each(|rule| set_default(rule, "scope", "*"));
    }
}

fn validate_match(rules: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in ["namespaceSelector", "objectSelector"] {
        if has(rules, field) {
            label_selector(get(rules, field), &path.child(field), errors);
        } else {
            errors.required(&path.child(field), "");
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        let path = path.child(field);
        for (i, rule) in list(rules, field).enumerate() {
            let path = path.index(i);
            rule_with_operations(rule, &path, errors);
            for (i, name) in texts(rule, "resourceNames").enumerate() {
                let path = path.child("resourceNames");
                name_is(name, types::path_segment, &path.index(i), errors);
                if repeats(texts(rule, "resourceNames").take(i), name) {
                    errors.duplicate(&path.index(i), name);
                }
            }
        }
    }
    required_one_of(rules, "matchPolicy", path, &["Equivalent", "Exact"], errors);
}
