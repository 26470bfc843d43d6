//! Where a pod may go (`validateAffinity`, `ValidateTolerations`, `validateTopologySpreadConstraints`).

use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain, label_value};

use super::super::check::*;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(affinity) = get(spec, "affinity") else { return };
    let path = path.child("affinity");
    if let Some(node) = get(affinity, "nodeAffinity") {
        node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = get(affinity, field) else { continue };
        let path = path.child(field);
        let hard = path.child(REQUIRED);
        for (i, term) in list(pods, REQUIRED).enumerate() {
            pod_affinity_term(term, &hard.index(i), errors);
        }
        let soft = path.child(PREFERRED);
        for (i, term) in list(pods, PREFERRED).enumerate() {
            let path = soft.index(i);
            weight(term, &path, errors);
            let empty = Value::Object(Default::default());
            pod_affinity_term(
                get(term, "podAffinityTerm").unwrap_or(&empty),
                &path.child("podAffinityTerm"),
                errors,
            );
        }
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let n = int(term, "weight");
    if !(1..=100).contains(&n) {
        errors.invalid(&path.child("weight"), n, "must be in the range 1-100");
    }
}

fn node_affinity(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(selector) = get(v, REQUIRED) {
        node_selector(selector, &path.child(REQUIRED), errors);
    }
    let soft = path.child(PREFERRED);
    for (i, term) in list(v, PREFERRED).enumerate() {
        let path = soft.index(i);
        weight(term, &path, errors);
        if let Some(preference) = get(term, "preference") {
            // Odd values are let pass here: the term may never match.
            node_selector_term(preference, false, &path.child("preference"), errors);
        }
    }
}

/// Which nodes something can be on (`ValidateNodeSelector`).
pub(in super::super) fn node_selector(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("nodeSelectorTerms");
    if count(v, "nodeSelectorTerms") == 0 {
        errors.required(&path, "must have at least one node selector term");
    }
    for (i, term) in list(v, "nodeSelectorTerms").enumerate() {
        node_selector_term(term, true, &path.index(i), errors);
    }
}

fn node_selector_term(term: &Value, strict: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let expressions = path.child("matchExpressions");
    for (i, e) in list(term, "matchExpressions").enumerate() {
        let path = expressions.index(i);
        let values = path.child("values");
        match (text(e, "operator"), count(e, "values")) {
            ("In" | "NotIn", 0) => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            ("Exists" | "DoesNotExist", 1..) => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&values, why);
            }
            ("Gt" | "Lt", 0 | 2..) => {
                errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
            (other, _) => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        qualified(text(e, "key"), &path.child("key"), errors);
        if strict {
            for (i, value) in texts(e, "values").enumerate() {
                faults(label_value(value), value, &values.index(i), errors);
            }
        }
    }
    let fields = path.child("matchFields");
    for (i, e) in list(term, "matchFields").enumerate() {
        let path = fields.index(i);
        let values = path.child("values");
        match (text(e, "operator"), count(e, "values")) {
            ("In" | "NotIn", 1) => {}
            ("In" | "NotIn", _) => errors.required(
                &values,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            (other, _) => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        if text(e, "key") == "metadata.name" {
            for (i, value) in texts(e, "values").enumerate() {
                name_is(value, dns_subdomain, &values.index(i), errors);
            }
        } else {
            errors.invalid(&path.child("key"), text(e, "key"), "not a valid field selector key");
        }
    }
}

fn pod_affinity_term(term: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    label_selector(get(term, "labelSelector"), &path.child("labelSelector"), errors);
    label_selector(get(term, "namespaceSelector"), &path.child("namespaceSelector"), errors);
    for namespace in texts(term, "namespaces") {
        name_is(namespace, dns_label, &path.child("namespace"), errors);
    }
    let selector = get(term, "labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = path.child(field);
        if count(term, field) > 0 && selector.is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in texts(term, field).enumerate() {
            qualified(key, &path.index(i), errors);
        }
    }
    if let Some(selector) = selector.filter(|_| count(term, "matchLabelKeys") > 0) {
        // Admission has added what the keys stand for; another mention of the same key is the user's.
        for (i, e) in list(selector, "matchExpressions").enumerate() {
            let key = text(e, "key");
            let Some(at) = texts(term, "matchLabelKeys").position(|k| k == key) else { continue };
            let again = selector.get("matchLabels").is_some_and(|l| l.get(key).is_some())
                || repeats(list(selector, "matchExpressions").take(i).map(|e| text(e, "key")), key);
            if again {
                errors.invalid(&path.index(at), key, "exists in both matchLabelKeys and labelSelector");
            }
        }
    }
    for (i, key) in texts(term, "matchLabelKeys").enumerate() {
        if texts(term, "mismatchLabelKeys").any(|k| k == key) {
            let why = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.invalid(&path.child("matchLabelKeys").index(i), key, why);
        }
    }
    if text(term, "topologyKey").is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    qualified(text(term, "topologyKey"), &path.child("topologyKey"), errors);
}

pub(in super::super) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Which taints a pod puts up with; also in RuntimeClasses.
pub(in super::super) fn tolerations(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("tolerations");
    for (i, t) in list(of, "tolerations").enumerate() {
        let path = path.index(i);
        let (key, operator, value) = (text(t, "key"), text(t, "operator"), text(t, "value"));
        if !key.is_empty() {
            qualified(key, &path.child("key"), errors);
        } else if operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if has(t, "tolerationSeconds") && text(t, "effect") != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), text(t, "effect"), why);
        }
        match operator {
            "" | "Equal" => {
                let found = label_value(value);
                if !found.is_empty() {
                    errors.invalid(&path.child("operator"), value, &found.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&path.child("operator"), value, why);
            }
            "Exists" => {}
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !text(t, "effect").is_empty() {
            one_of(t, "effect", &path, TAINT_EFFECTS, errors);
        }
    }
}

pub(super) fn topology_spread(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const POSITIVE: &str = "must be greater than zero";
    let path = path.child("topologySpreadConstraints");
    for (i, c) in list(spec, "topologySpreadConstraints").enumerate() {
        let path = path.index(i);
        let (key, action) = (text(c, "topologyKey"), text(c, "whenUnsatisfiable"));
        if int(c, "maxSkew") <= 0 {
            errors.invalid(&path.child("maxSkew"), int(c, "maxSkew"), POSITIVE);
        }
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            errors.not_supported(
                &path.child("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        let mut rest = list(spec, "topologySpreadConstraints").skip(i + 1);
        if rest.any(|r| text(r, "topologyKey") == key && text(r, "whenUnsatisfiable") == action) {
            let both = path.child("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&both, format!("{{{key}, {action}}}"));
        }
        if let Some(least) = c.get("minDomains").and_then(Value::as_i64) {
            if least <= 0 {
                errors.invalid(&path.child("minDomains"), least, POSITIVE);
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&path.child("minDomains"), least, &why);
            }
        }
        one_of(c, "nodeAffinityPolicy", &path, &["Honor", "Ignore"], errors);
        one_of(c, "nodeTaintsPolicy", &path, &["Honor", "Ignore"], errors);
        spread_keys(c, &path.child("matchLabelKeys"), errors);
        label_selector(get(c, "labelSelector"), &path.child("labelSelector"), errors);
    }
}

fn spread_keys(c: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(c, "matchLabelKeys") == 0 {
        return;
    }
    let selector = get(c, "labelSelector");
    if selector.is_none() {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    for (i, key) in texts(c, "matchLabelKeys").enumerate() {
        qualified(key, &path.index(i), errors);
        let named = selector.is_some_and(|s| {
            s.get("matchLabels").is_some_and(|l| l.get(key).is_some())
                || list(s, "matchExpressions").any(|e| text(e, "key") == key)
        });
        if named {
            errors.invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

pub(super) fn gates(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let ready = path.child("readinessGates");
    for (i, gate) in list(spec, "readinessGates").enumerate() {
        qualified(text(gate, "conditionType"), &ready.index(i).child("conditionType"), errors);
    }
    let path = path.child("schedulingGates");
    for (i, gate) in list(spec, "schedulingGates").enumerate() {
        let name = text(gate, "name");
        qualified(name, &path.index(i), errors);
        if repeats(list(spec, "schedulingGates").take(i).map(|g| text(g, "name")), name) {
            errors.duplicate(&path.index(i), name);
        }
    }
}
