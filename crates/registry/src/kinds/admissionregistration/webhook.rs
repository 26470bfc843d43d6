//! Configurations of validating and mutating webhooks, and how webhooks are reached (kubernetes/kubernetes,
//! `pkg/apis/admissionregistration/validation/validation.go`, `apiserver/pkg/util/webhook/validation.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, dns_subdomain, dns1035_label, ensure_object, set_default};

use super::super::check::*;
use super::super::pod_spec::each;
use super::{match_conditions, rule_with_operations};
use crate::expressions::ExpressionScope;
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct WebhookConfiguration {
    /// Whether its webhooks change objects.
    pub(in super::super) mutating: bool,
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

pub(in super::super) fn webhook_service(service: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
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
