//! Rules for pod specs (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`, `ValidatePodSpec`).

use std::collections::BTreeSet;

use serde_json::Value;
use types::{
    FieldErrors, LabelSelector, Path, at, dns_label, dns_subdomain, label_value, qualified_name, str_at,
};

use super::container::{list, not_negative, one_of, validate_container};

/// Checks a pod spec, whether a pod's own or a template's.
pub(super) fn validate_pod_spec(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let volumes = validate_volumes(spec, path, errors);
    let mut names = BTreeSet::new();
    if list(spec, "containers").next().is_none() {
        errors.required(&path.child("containers"), "");
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        let path = path.child(field);
        for (i, container) in list(spec, field).enumerate() {
            let path = path.index(i);
            validate_container(container, &volumes, &path, errors);
            if let Some(name) = str_at(container, &["name"])
                && !names.insert(name)
            {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }
    one_of(spec, "restartPolicy", path, &["Always", "OnFailure", "Never"], errors);
    one_of(spec, "dnsPolicy", path, &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], errors);
    if spec["dnsPolicy"] == "None" && at(spec, &["dnsConfig", "nameservers"]).is_none() {
        errors.required(
            &path.child("dnsConfig").child("nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    not_negative(spec, "terminationGracePeriodSeconds", path, errors);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| *s < 1) {
        errors.invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    for (key, value) in at(spec, &["nodeSelector"]).and_then(Value::as_object).into_iter().flatten() {
        let path = path.child("nodeSelector");
        for fault in qualified_name(key) {
            errors.invalid(&path, key.as_str(), &fault);
        }
        for fault in label_value(value.as_str().unwrap_or_default()) {
            errors.invalid(&path, value.clone(), &fault);
        }
    }
    for (field, rule) in [
        ("serviceAccountName", dns_subdomain as fn(&str) -> Option<String>),
        ("nodeName", dns_subdomain),
        ("priorityClassName", dns_subdomain),
        ("hostname", dns_label),
        ("subdomain", dns_label),
    ] {
        if let Some(text) = str_at(spec, &[field])
            && let Some(fault) = rule(text)
        {
            errors.invalid(&path.child(field), text, &fault);
        }
    }
    validate_tolerations(spec, path, errors);
    validate_host_ports(spec, path, errors);
}

fn validate_volumes<'a>(spec: &'a Value, path: &Path<'_>, errors: &mut FieldErrors) -> BTreeSet<&'a str> {
    let path = path.child("volumes");
    let mut names = BTreeSet::new();
    for (i, volume) in list(spec, "volumes").enumerate() {
        let path = path.index(i);
        match str_at(volume, &["name"]) {
            None => errors.required(&path.child("name"), ""),
            Some(name) => {
                if let Some(fault) = dns_label(name) {
                    errors.invalid(&path.child("name"), name, &fault);
                }
                if !names.insert(name) {
                    errors.duplicate(&path.child("name"), name);
                }
            }
        }
        let sources: Vec<&String> =
            volume.as_object().map(|v| v.keys().filter(|k| *k != "name").collect()).unwrap_or_default();
        match sources.as_slice() {
            [] => errors.required(&path, "must specify a volume type"),
            [_] => {}
            [_, second, ..] => {
                errors.forbidden(&path.child(second), "may not specify more than 1 volume type")
            }
        }
        for (source, field) in [
            ("hostPath", "path"),
            ("secret", "secretName"),
            ("configMap", "name"),
            ("persistentVolumeClaim", "claimName"),
        ] {
            if at(volume, &[source]).is_some_and(|s| str_at(s, &[field]).is_none()) {
                errors.required(&path.child(source).child(field), "");
            }
        }
    }
    names
}

fn validate_tolerations(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("tolerations");
    for (i, toleration) in list(spec, "tolerations").enumerate() {
        let path = path.index(i);
        let key = str_at(toleration, &["key"]);
        for fault in key.map(qualified_name).into_iter().flatten() {
            errors.invalid(&path.child("key"), key.unwrap_or_default(), &fault);
        }
        let operator = str_at(toleration, &["operator"]).unwrap_or("Equal");
        if key.is_none() && operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        one_of(toleration, "operator", &path, &["Equal", "Exists"], errors);
        one_of(toleration, "effect", &path, &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
    }
}

fn validate_host_ports(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("containers");
    let mut taken = BTreeSet::new();
    for (c, container) in list(spec, "containers").enumerate() {
        let path = path.index(c);
        let path = path.child("ports");
        for (p, port) in list(container, "ports").enumerate() {
            let path = path.index(p);
            let Some(number) = port["hostPort"].as_i64().filter(|n| *n != 0) else { continue };
            if spec["hostNetwork"] == true && port["containerPort"] != port["hostPort"] {
                errors.invalid(
                    &path.child("containerPort"),
                    port["containerPort"].clone(),
                    "must match `hostPort` when `hostNetwork` is true",
                );
            }
            let key = (
                str_at(port, &["hostIP"]).unwrap_or_default(),
                str_at(port, &["protocol"]).unwrap_or("TCP"),
                number,
            );
            if !taken.insert(key) {
                errors.duplicate(&path.child("hostPort"), format!("{}/{}/{}", key.1, key.0, key.2));
            }
        }
    }
}

/// Checks a workload's pod template against its selector.
pub(super) fn validate_template(spec: &Value, restart_policies: &[&str], errors: &mut FieldErrors) {
    let root = Path::new("spec");
    let path = root.child("template");
    let template = &spec["template"];
    let labels = at(template, &["metadata", "labels"]);
    if let Some(selector) = at(spec, &["selector"]) {
        let selects = LabelSelector::from_object(Some(selector)).is_ok_and(|s| s.matches_labels(labels));
        if !selects {
            let shown = labels.cloned().unwrap_or_else(|| Value::Object(Default::default()));
            let meta = path.child("metadata");
            errors.invalid(&meta.child("labels"), shown, "`selector` does not match template `labels`");
        }
    }
    let meta = path.child("metadata");
    types::validate_labels(labels, &meta.child("labels"), errors);
    let spec_path = path.child("spec");
    validate_pod_spec(&template["spec"], &spec_path, errors);
    if let Some(policy) = str_at(template, &["spec", "restartPolicy"])
        && !restart_policies.contains(&policy)
    {
        errors.not_supported(&spec_path.child("restartPolicy"), policy, restart_policies);
    }
}

/// Checks a label selector that must not be empty.
pub(super) fn validate_selector(spec: &Value, errors: &mut FieldErrors) {
    let root = Path::new("spec");
    let path = root.child("selector");
    let Some(selector) = at(spec, &["selector"]) else { return errors.required(&path, "") };
    if selector.as_object().is_some_and(|s| s.is_empty()) {
        errors.invalid(&path, selector.clone(), "empty selector is invalid for deployment");
    }
    types::validate_labels(at(selector, &["matchLabels"]), &path.child("matchLabels"), errors);
    let expressions = path.child("matchExpressions");
    for (i, e) in list(selector, "matchExpressions").enumerate() {
        let path = expressions.index(i);
        let has_values = list(e, "values").next().is_some();
        match str_at(e, &["operator"]).unwrap_or_default() {
            "In" | "NotIn" if !has_values => {
                errors
                    .required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if has_values => {
                errors.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
}
