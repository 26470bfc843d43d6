//! Rules for containers (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`,
//! `validateContainerCommon` and what it calls).

use std::collections::BTreeSet;

use serde_json::Value;
use types::{FieldErrors, Path, Quantity, at, dns_label, env_var_name, port_name, str_at};

/// The elements of a list field.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Checks that a field's text, if set, is one of a few.
pub(super) fn one_of(
    value: &Value,
    field: &str,
    path: &Path<'_>,
    allowed: &[&str],
    errors: &mut FieldErrors,
) {
    match value.get(field).and_then(Value::as_str) {
        Some(text) if !allowed.contains(&text) => errors.not_supported(&path.child(field), text, allowed),
        _ => {}
    }
}

/// Checks that a number, if set, is not negative.
pub(super) fn not_negative(value: &Value, field: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(n) = value.get(field).and_then(Value::as_i64).filter(|n| *n < 0) {
        errors.invalid(&path.child(field), n, "must be greater than or equal to 0");
    }
}

/// Checks that a number is a port.
pub(super) fn port_number(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(n) = value.as_i64().filter(|n| !(1..=65535).contains(n)) {
        errors.invalid(path, n, "must be between 1 and 65535, inclusive");
    }
}

/// Checks one container; `volumes` are the names it may mount.
pub(super) fn validate_container(
    container: &Value,
    volumes: &BTreeSet<&str>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    match str_at(container, &["name"]) {
        None => errors.required(&path.child("name"), ""),
        Some(name) => {
            if let Some(fault) = dns_label(name) {
                errors.invalid(&path.child("name"), name, &fault);
            }
        }
    }
    match container.get("image").and_then(Value::as_str).unwrap_or_default() {
        "" => errors.required(&path.child("image"), ""),
        image if image != image.trim() => {
            errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
        }
        _ => {}
    }
    one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"], errors);
    one_of(container, "terminationMessagePolicy", path, &["FallbackToLogsOnError", "File"], errors);
    validate_ports(container, path, errors);
    validate_env(container, path, errors);
    validate_mounts(container, volumes, path, errors);
    validate_resources(&container["resources"], &path.child("resources"), errors);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = at(container, &[name]) {
            validate_probe(probe, name, &path.child(name), errors);
        }
    }
    for name in ["postStart", "preStop"] {
        if let Some(hook) = at(container, &["lifecycle", name]) {
            validate_handler(
                hook,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                &path.child("lifecycle").child(name),
                errors,
            );
        }
    }
}

fn validate_ports(container: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("ports");
    let mut names = BTreeSet::new();
    for (i, port) in list(container, "ports").enumerate() {
        let path = path.index(i);
        if let Some(name) = str_at(port, &["name"]) {
            for fault in port_name(name) {
                errors.invalid(&path.child("name"), name, &fault);
            }
            if !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        match port.get("containerPort").and_then(Value::as_i64) {
            None | Some(0) => errors.required(&path.child("containerPort"), ""),
            Some(_) => port_number(&port["containerPort"], &path.child("containerPort"), errors),
        }
        if port["hostPort"] != 0 {
            port_number(&port["hostPort"], &path.child("hostPort"), errors);
        }
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
    }
}

fn validate_env(container: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("env");
    for (i, env) in list(container, "env").enumerate() {
        let path = path.index(i);
        match str_at(env, &["name"]) {
            None => errors.required(&path.child("name"), ""),
            Some(name) => {
                if let Some(fault) = env_var_name(name) {
                    errors.invalid(&path.child("name"), name, &fault);
                }
            }
        }
        let Some(from) = at(env, &["valueFrom"]).and_then(Value::as_object) else { continue };
        let path = path.child("valueFrom");
        if str_at(env, &["value"]).is_some() {
            errors.invalid(&path, "", "may not be specified when `value` is not empty");
        }
        match from.len() {
            0 => errors.invalid(&path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"),
            1 => {}
            _ => errors.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn validate_mounts(container: &Value, volumes: &BTreeSet<&str>, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("volumeMounts");
    let mut places = BTreeSet::new();
    for (i, mount) in list(container, "volumeMounts").enumerate() {
        let path = path.index(i);
        match str_at(mount, &["name"]) {
            None => errors.required(&path.child("name"), ""),
            Some(name) if !volumes.contains(name) => errors.not_found(&path.child("name"), name),
            Some(_) => {}
        }
        match str_at(mount, &["mountPath"]) {
            None => errors.required(&path.child("mountPath"), ""),
            Some(place) if !places.insert(place) => {
                errors.invalid(&path.child("mountPath"), place, "must be unique");
            }
            Some(_) => {}
        }
        for field in ["subPath", "subPathExpr"] {
            let Some(sub) = str_at(mount, &[field]) else { continue };
            if sub.starts_with('/') {
                errors.invalid(&path.child(field), sub, "must be a relative path");
            }
            if sub.split('/').any(|part| part == "..") {
                errors.invalid(&path.child(field), sub, "must not contain '..'");
            }
        }
    }
}

/// Checks requests and limits: known signs, and no request above its limit.
pub(super) fn validate_resources(resources: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let quantity = |v: &Value| v.as_str().and_then(|s| s.parse::<Quantity>().ok()).unwrap_or_default();
    for kind in ["limits", "requests"] {
        for (name, amount) in at(resources, &[kind]).and_then(Value::as_object).into_iter().flatten() {
            let path = path.child(kind);
            if quantity(amount).is_negative() {
                errors.invalid(&path.key(name), amount.clone(), "must be greater than or equal to 0");
            }
            if !name.contains('/') && !is_native_resource(name) {
                errors.invalid(
                    &path.key(name),
                    name.as_str(),
                    "must be a standard resource type or fully qualified",
                );
            }
        }
    }
    let limits = at(resources, &["limits"]);
    for (name, request) in at(resources, &["requests"]).and_then(Value::as_object).into_iter().flatten() {
        let Some(limit) = limits.and_then(|l| l.get(name)) else { continue };
        let path = path.child("requests");
        if name.contains('/') && quantity(request) != quantity(limit) {
            let detail = format!("must be equal to {name} limit of {}", quantity(limit));
            errors.invalid(&path.key(name), request.clone(), &detail);
        } else if quantity(request) > quantity(limit) {
            let detail = format!("must be less than or equal to {name} limit of {}", quantity(limit));
            // Upstream names the whole map here, not the entry.
            errors.invalid(&path, request.clone(), &detail);
        }
    }
}

fn is_native_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn validate_probe(probe: &Value, name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    validate_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], path, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(probe, field, path, errors);
    }
    if name != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|n| n > 1) {
        errors.invalid(&path.child("successThreshold"), probe["successThreshold"].clone(), "must be 1");
    }
}

fn validate_handler(handler: &Value, kinds: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    let set: Vec<&str> = kinds.iter().copied().filter(|k| at(handler, &[k]).is_some()).collect();
    match set.as_slice() {
        [] => errors.required(path, "must specify a handler type"),
        [_] => {}
        [_, second, ..] => errors.forbidden(&path.child(second), "may not specify more than 1 handler type"),
    }
    if at(handler, &["exec"]).is_some_and(|e| list(e, "command").next().is_none()) {
        errors.required(&path.child("exec").child("command"), "");
    }
    for kind in ["httpGet", "tcpSocket"] {
        let Some(action) = at(handler, &[kind]) else { continue };
        let path = path.child(kind);
        match &action["port"] {
            Value::Null => errors.required(&path.child("port"), ""),
            Value::String(name) => {
                for fault in port_name(name) {
                    errors.invalid(&path.child("port"), name.as_str(), &fault);
                }
            }
            number => port_number(number, &path.child("port"), errors),
        }
        one_of(action, "scheme", &path, &["HTTP", "HTTPS"], errors);
    }
}
