//! FlowSchemas and PriorityLevelConfigurations (kubernetes/kubernetes,
//! `pkg/apis/flowcontrol/validation/validation.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain, ensure_object, set_default};

use super::check::*;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct FlowSchema;

const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// A list that names everything, or members of a kind.
fn wildcard(of: &Value, field: &str, what: &str, path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    let all = texts(of, field).any(|x| x == "*");
    if all && count(of, field) > 1 {
        let why = format!("if '*' is present, must not specify other {what}");
        errors.invalid(&path.child(field), of[field].clone(), &why);
    }
    all
}

fn verbs(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(rule, "verbs") == 0 {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    } else if !wildcard(rule, "verbs", "verbs", path, errors)
        && texts(rule, "verbs").any(|v| !VERBS.contains(&v))
    {
        errors.not_supported(&path.child("verbs"), rule["verbs"].clone(), VERBS);
    }
}

fn subject(given: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const KINDS: &[(&str, &str)] =
        &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(given, "kind");
    let Some((_, own)) = KINDS.iter().find(|(k, _)| *k == kind) else {
        return errors.not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
    };
    let below = path.child(own);
    match get(given, own) {
        None => {
            errors.required(&below, &format!("{own} is required when subject kind is '{kind}'"));
        }
        Some(who) => {
            required(who, "name", &below, errors);
            if kind == "ServiceAccount" {
                if !matches!(text(who, "name"), "" | "*") {
                    name_is(text(who, "name"), dns_subdomain, &below.child("name"), errors);
                }
                match text(who, "namespace") {
                    "" => errors
                        .required(&below.child("namespace"), "must specify namespace for service account"),
                    name => name_is(name, dns_label, &below.child("namespace"), errors),
                }
            }
        }
    }
    for (other, field) in KINDS.iter().filter(|(_, f)| f != own && has(given, f)) {
        let why = format!("{field} is forbidden when subject kind is not '{other}'");
        errors.forbidden(&path.child(field), &why);
    }
}

fn resource_rule(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    verbs(rule, path, errors);
    for (field, one, others) in
        [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")]
    {
        if count(rule, field) == 0 {
            let why = format!("resource rules must supply at least one {one}");
            errors.required(&path.child(field), &why);
        } else {
            wildcard(rule, field, others, path, errors);
        }
    }
    let namespaces = path.child("namespaces");
    if count(rule, "namespaces") == 0 && !flag(rule, "clusterScope") {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&namespaces, why);
    } else if !wildcard(rule, "namespaces", "namespaces", path, errors) {
        for (i, name) in texts(rule, "namespaces").enumerate() {
            if let Some(fault) = dns_label(name) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                errors.invalid(&namespaces.index(i), name, &why);
            }
        }
    }
}

fn url_rule(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    verbs(rule, path, errors);
    let urls = path.child("nonResourceURLs");
    if count(rule, "nonResourceURLs") == 0 {
        errors.required(&urls, "nonResourceURLs must contain at least one value");
    } else if !wildcard(rule, "nonResourceURLs", "non-resource URLs", path, errors) {
        for (i, url) in texts(rule, "nonResourceURLs").enumerate() {
            let path = urls.index(i);
            let rest = url.strip_prefix('/');
            match rest {
                _ if url.is_empty() => errors.invalid(&path, url, "must not be empty"),
                None => errors.invalid(&path, url, "must start with slash"),
                Some(_) if url.contains(' ') => errors.invalid(&path, url, "must not contain white-space"),
                Some(_) if url.contains("//") => {
                    errors.invalid(&path, url, "must not contain double slash");
                }
                Some(rest) if rest.trim_end_matches('*').contains('*') || rest.contains("**") => {
                    errors.invalid(&path, url, "wildcard can only do suffix matching");
                }
                Some(rest) if rest.ends_with('*') && rest != "*" && !rest.ends_with("/*") => {
                    errors.invalid(&path, url, "wildcard can only do suffix matching");
                }
                Some(_) => {}
            }
        }
    }
}

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Value) {
        set_default(ensure_object(object, "spec"), "matchingPrecedence", 1000);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let path = SPEC.child("matchingPrecedence");
        match int(spec, "matchingPrecedence") {
            n if n <= 0 => errors.invalid(&path, n, "must be a positive value"),
            n if n > 10_000 => errors.invalid(&path, n, "must not be greater than 10000"),
            1 if text(&object["metadata"], "name") != "exempt" => {
                let why = "only the schema named 'exempt' may have matchingPrecedence 1";
                errors.invalid(&path, 1, why);
            }
            _ => {}
        }
        if let Some(method) = get(spec, "distinguisherMethod") {
            let kind = text(method, "type");
            if !["ByNamespace", "ByUser"].contains(&kind) {
                let path = SPEC.child("distinguisherMethod");
                errors.not_supported(&path.child("type"), kind, &["ByNamespace", "ByUser"]);
            }
        }
        let path = SPEC.child("priorityLevelConfiguration");
        match text(&spec["priorityLevelConfiguration"], "name") {
            "" => errors.required(&path.child("name"), "must reference a priority level"),
            name => name_is(name, dns_subdomain, &path.child("name"), errors),
        }
        let path = SPEC.child("rules");
        for (i, rule) in list(spec, "rules").enumerate() {
            let path = path.index(i);
            if count(rule, "subjects") == 0 {
                let why = "subjects must contain at least one value";
                errors.required(&path.child("subjects"), why);
            }
            for (i, given) in list(rule, "subjects").enumerate() {
                subject(given, &path.child("subjects").index(i), errors);
            }
            if count(rule, "resourceRules") + count(rule, "nonResourceRules") == 0 {
                let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
                errors.required(&path, why);
            }
            for (i, given) in list(rule, "resourceRules").enumerate() {
                resource_rule(given, &path.child("resourceRules").index(i), errors);
            }
            for (i, given) in list(rule, "nonResourceRules").enumerate() {
                url_rule(given, &path.child("nonResourceRules").index(i), errors);
            }
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        unique_conditions(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::FLOW_SCHEMA
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::flow_schema_cells(object, now)
    }
}

fn unique_conditions(object: &Value, errors: &mut FieldErrors) {
    let status = Path::new("status");
    let path = status.child("conditions");
    let all = || list(&object["status"], "conditions").map(|c| text(c, "type"));
    for (i, kind) in all().enumerate() {
        if repeats(all().take(i), kind) {
            errors.duplicate(&path.index(i).child("type"), kind);
        }
        if kind.is_empty() {
            errors.required(&path.index(i).child("type"), "must not be empty");
        }
    }
}

pub(super) struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        match text(spec, "type") {
            "Exempt" => {
                let exempt = ensure_object(spec, "exempt");
                set_default(exempt, "nominalConcurrencyShares", 0);
                set_default(exempt, "lendablePercent", 0);
            }
            "Limited" => {
                let Some(limited) = types::at_mut(spec, &["limited"]) else { return };
                set_default(limited, "nominalConcurrencyShares", 30);
                set_default(limited, "lendablePercent", 0);
                if let Some(queuing) = types::at_mut(limited, &["limitResponse", "queuing"]) {
                    for (field, n) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                        if int(queuing, field) == 0 {
                            queuing[field] = n.into();
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let kind = text(spec, "type");
        if (text(&object["metadata"], "name") == "exempt") != (kind == "Exempt") {
            let why = "type must be 'Exempt' if and only if name is 'exempt'";
            errors.invalid(&SPEC.child("type"), kind, why);
        }
        let (limited, exempt) = (get(spec, "limited"), get(spec, "exempt"));
        match kind {
            "Exempt" => {
                if limited.is_some() {
                    let why = "must be nil if the type is not Limited";
                    errors.forbidden(&SPEC.child("limited"), why);
                }
                if let Some(exempt) = exempt {
                    shares(exempt, true, &SPEC.child("exempt"), errors);
                }
            }
            "Limited" => {
                if exempt.is_some() {
                    errors.forbidden(&SPEC.child("exempt"), "must be nil if the type is Limited");
                }
                match limited {
                    None => errors.required(&SPEC.child("limited"), "must not be empty when type is Limited"),
                    Some(limited) => {
                        let path = SPEC.child("limited");
                        shares(limited, false, &path, errors);
                        response(&limited["limitResponse"], &path.child("limitResponse"), errors);
                    }
                }
            }
            other => errors.not_supported(&SPEC.child("type"), other, &["Exempt", "Limited"]),
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        unique_conditions(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::PRIORITY_LEVEL
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::priority_level_cells(object, now)
    }
}

fn shares(of: &Value, _exempt: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    if int(of, "nominalConcurrencyShares") < 0 {
        let n = int(of, "nominalConcurrencyShares");
        errors.invalid(&path.child("nominalConcurrencyShares"), n, "must be a non-negative integer");
    }
    if let Some(n) = of.get("lendablePercent").and_then(Value::as_i64).filter(|n| !(0..=100).contains(n)) {
        errors.invalid(&path.child("lendablePercent"), n, "must be between 0 and 100, inclusive");
    }
    if let Some(n) = of.get("borrowingLimitPercent").and_then(Value::as_i64).filter(|n| *n < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), n, why);
    }
}

fn response(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let queuing = get(of, "queuing");
    let below = path.child("queuing");
    match (text(of, "type"), queuing) {
        ("Reject", Some(_)) => {
            errors.forbidden(&below, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            errors.required(&below, "must not be empty if limited.limitResponse.type is Limited")
        }
        ("Queue", Some(queuing)) => {
            for field in ["queueLengthLimit", "queues"] {
                if int(queuing, field) <= 0 {
                    errors.invalid(&below.child(field), int(queuing, field), "must be positive");
                }
            }
            let (queues, hand) = (int(queuing, "queues"), int(queuing, "handSize"));
            if queues > 10_000_000 {
                let why = "must not be greater than 10000000";
                errors.invalid(&below.child("queues"), queues, why);
            }
            let path = below.child("handSize");
            if hand <= 0 {
                errors.invalid(&path, hand, "must be positive");
            } else if hand > queues {
                let why = format!("should not be greater than queues ({queues})");
                errors.invalid(&path, hand, &why);
            }
        }
        (other, _) => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}
