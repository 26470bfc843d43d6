//! Webhooks and policies of admission: their structure and their expressions (kubernetes/kubernetes,
//! `pkg/apis/admissionregistration/validation/validation.go`, `.../v1/defaults.go`).

use cel::Env;
use jiff::Timestamp;
use serde_json::{Value, json};
use types::{
    FieldErrors, Path, dns_label, dns_subdomain, dns1035_label, ensure_object, qualified_name, set_default,
};

use super::check::*;
use super::pod_spec::each;
use crate::expressions::{ExpressionScope, Variables, Wanted, compile_expression};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct WebhookConfiguration {
    /// Whether its webhooks change objects.
    pub(super) mutating: bool,
}

impl Strategy for WebhookConfiguration {
    fn default(&self, object: &mut Value) {
        for hook in each(object, "webhooks") {
            set_default(hook, "failurePolicy", "Fail");
            set_default(hook, "matchPolicy", "Equivalent");
            set_default(hook, "timeoutSeconds", 10);
            ensure_object(hook, "namespaceSelector");
            ensure_object(hook, "objectSelector");
            if self.mutating {
                set_default(hook, "reinvocationPolicy", "Never");
            }
            if let Some(service) = types::at_mut(hook, &["clientConfig", "service"]) {
                set_default(service, "port", 443);
            }
            each(hook, "rules").for_each(|rule| set_default(rule, "scope", "*"));
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("webhooks");
        for (i, hook) in list(object, "webhooks").enumerate() {
            let path = path.index(i);
            self.validate_hook(hook, &path, errors);
            let versions = path.child("admissionReviewVersions");
            review_versions(hook, &versions, errors);
            let name = text(hook, "name");
            if !name.is_empty() && repeats(list(object, "webhooks").take(i).map(|h| text(h, "name")), name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::WEBHOOK_CONFIGURATION
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::webhook_configuration_cells(object, now)
    }
}

impl WebhookConfiguration {
    fn validate_hook(&self, hook: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
        full_name(text(hook, "name"), &path.child("name"), errors);
        for (i, rule) in list(hook, "rules").enumerate() {
            rule_with_operations(rule, &path.child("rules").index(i), errors);
        }
        one_of(hook, "failurePolicy", path, &["Fail", "Ignore"], errors);
        one_of(hook, "matchPolicy", path, &["Equivalent", "Exact"], errors);
        if has(hook, "sideEffects") {
            one_of(hook, "sideEffects", path, &["None", "NoneOnDryRun"], errors);
        } else {
            errors.required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun");
        }
        if let Some(n) = hook.get("timeoutSeconds").and_then(Value::as_i64).filter(|n| !(1..=30).contains(n))
        {
            let why = "the timeout value must be between 1 and 30 seconds";
            errors.invalid(&path.child("timeoutSeconds"), n, why);
        }
        for field in ["namespaceSelector", "objectSelector"] {
            label_selector(get(hook, field), &path.child(field), errors);
        }
        one_of(hook, "reinvocationPolicy", path, &["IfNeeded", "Never"], errors);
        client_config(&hook["clientConfig"], &path.child("clientConfig"), errors);
        let scope = ExpressionScope { authorizer: true, ..ExpressionScope::default() };
        match_conditions(hook, &path.child("matchConditions"), &scope.env(), errors);
    }
}

/// At least three labels, such as `hook.example.com`.
fn full_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if let Some(fault) = dns_subdomain(name) {
        return errors.invalid(path, name, &fault);
    }
    if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.invalid(path, name, why);
    }
}

/// Where a webhook or another API server is (`apiserver/pkg/util/webhook/validation.go`).
fn client_config(config: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let url = config.get("url").and_then(Value::as_str);
    match (url, get(config, "service")) {
        (Some(url), None) => webhook_url(url, &path.child("url"), errors),
        (None, Some(service)) => webhook_service(service, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn webhook_url(url: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut say = |shown: &str, why: &str| errors.invalid(path, shown, &format!("{why}{FORM}"));
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        say(scheme, "'https' is the only allowed URL scheme");
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    if host.is_empty() {
        say(host, "host must be specified");
    }
    if authority.contains('@') {
        let user = authority.split('@').next().unwrap_or_default();
        say(user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        say(fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = rest.split('#').next().unwrap_or_default().split_once('?') {
        say(query, "query parameters are not permitted in the URL");
    }
}

pub(super) fn webhook_service(service: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in ["name", "namespace"] {
        if text(service, field).is_empty() {
            errors.required(&path.child(field), &format!("service {field} is required"));
        }
    }
    if let Some(n) = service.get("port").and_then(Value::as_i64).filter(|n| !(1..=65535).contains(n)) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.invalid(&path.child("port"), n, why);
    }
    let Some(place) = service.get("path").and_then(Value::as_str) else { return };
    let path = path.child("path");
    if !place.starts_with('/') {
        return errors.invalid(&path, place, "must start with a '/'");
    }
    if place == "/" {
        return;
    }
    let end = place.len() - usize::from(place.ends_with('/'));
    for (i, step) in place[1..end.max(1)].split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, place, &format!("segment[{i}] may not be empty"));
        } else if let Some(fault) = dns_subdomain(step) {
            errors.invalid(&path, place, &format!("segment[{i}]: {fault}"));
        }
    }
}

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

fn review_versions(hook: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(hook, "admissionReviewVersions") == 0 {
        return errors.required(path, "must specify one of v1, v1beta1");
    }
    for (i, version) in texts(hook, "admissionReviewVersions").enumerate() {
        if repeats(texts(hook, "admissionReviewVersions").take(i), version) {
            errors.invalid(&path.index(i), version, "duplicate version");
        } else {
            name_is(version, dns1035_label, &path.index(i), errors);
        }
    }
    if !texts(hook, "admissionReviewVersions").any(|v| matches!(v, "v1" | "v1beta1")) {
        let why = "must include at least one of v1, v1beta1";
        errors.invalid(path, hook["admissionReviewVersions"].clone(), why);
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

/// A ValidatingAdmissionPolicy or MutatingAdmissionPolicy.
pub(super) struct AdmissionPolicy {
    /// Whether it changes objects.
    pub(super) mutating: bool,
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

/// What binds a policy to where it holds.
pub(super) struct PolicyBinding {
    /// Whether the policy changes objects.
    pub(super) mutating: bool,
}

impl Strategy for PolicyBinding {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        if let Some(rules) = types::at_mut(spec, &["matchResources"]) {
            default_match(rules);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        required_name(spec, "policyName", dns_subdomain, &SPEC, errors);
        if let Some(param) = get(spec, "paramRef") {
            param_ref(param, &SPEC.child("paramRef"), errors);
        }
        if let Some(rules) = get(spec, "matchResources") {
            validate_match(rules, &SPEC.child("matchResources"), errors);
        }
        if self.mutating {
            return;
        }
        const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
        let path = SPEC.child("validationActions");
        if count(spec, "validationActions") == 0 {
            errors.required(&path, "at least one validation action is required");
        }
        for (i, action) in texts(spec, "validationActions").enumerate() {
            if !ACTIONS.contains(&action) {
                errors.not_supported(&path.index(i), action, ACTIONS);
            }
            if repeats(texts(spec, "validationActions").take(i), action) {
                errors.duplicate(&path.index(i), action);
            }
        }
        let both = ["Deny", "Warn"].iter().all(|a| texts(spec, "validationActions").any(|x| x == *a));
        if both {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
            errors.invalid(&path, spec["validationActions"].clone(), why);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::ADMISSION_POLICY_BINDING
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::admission_policy_binding_cells(object, now)
    }
}

fn param_ref(param: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let name = text(param, "name");
    if !name.is_empty() {
        name_is(name, types::path_segment, &path.child("name"), errors);
        if has(param, "selector") {
            let why = "name and selector are mutually exclusive";
            errors.forbidden(&path.child("name"), why);
        }
    }
    if let Some(selector) = get(param, "selector") {
        label_selector(Some(selector), &path.child("selector"), errors);
    } else if name.is_empty() {
        errors.required(path, "one of name or selector must be specified");
    }
    optional_name(param, "namespace", dns_label, path, errors);
    match text(param, "parameterNotFoundAction") {
        "" => errors.required(&path.child("parameterNotFoundAction"), ""),
        "Allow" | "Deny" => {}
        other => {
            errors.not_supported(&path.child("parameterNotFoundAction"), other, &["Allow", "Deny"]);
        }
    }
}
