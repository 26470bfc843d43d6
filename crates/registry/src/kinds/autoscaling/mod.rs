//! HorizontalPodAutoscalers (kubernetes/kubernetes, `pkg/apis/autoscaling/validation/validation.go`).

mod v1;

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_label, ensure_object, path_segment, set_default};

use super::check::*;
use super::pod_spec::each;
use super::pod_spec::resources::container_resource;
use crate::strategy::Strategy;
use crate::table::{self, Column};
pub(super) use v1::AutoscalingV1;

const SPEC: Path<'static> = Path::new("spec");

/// Each kind of metric in upstream's order of looking at them: its type and its field.
const METRICS: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

pub(super) struct HorizontalPodAutoscaler;

impl HorizontalPodAutoscaler {
    fn validate(&self, object: &Value, least: i64, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let most = int(spec, "maxReplicas");
        let min = spec.get("minReplicas").and_then(Value::as_i64);
        if let Some(n) = min.filter(|n| *n < least) {
            let why = format!("must be greater than or equal to {least}");
            errors.invalid(&SPEC.child("minReplicas"), n, &why);
        }
        if most < 1 {
            errors.invalid(&SPEC.child("maxReplicas"), most, "must be greater than 0");
        }
        if min.is_some_and(|n| most < n) {
            let why = "must be greater than or equal to `minReplicas`";
            errors.invalid(&SPEC.child("maxReplicas"), most, why);
        }
        reference(&spec["scaleTargetRef"], &SPEC.child("scaleTargetRef"), errors);
        let path = SPEC.child("metrics");
        for (i, metric) in list(spec, "metrics").enumerate() {
            validate_metric(metric, &path.index(i), errors);
        }
        let outside = |m: &Value| matches!(text(m, "type"), "Object" | "External");
        if min == Some(0) && !list(spec, "metrics").any(outside) {
            let why =
                "must specify at least one Object or External metric to support scaling to zero replicas";
            errors.forbidden(&path, why);
        }
        let path = SPEC.child("behavior");
        for direction in ["scaleUp", "scaleDown"] {
            if let Some(rules) = get(spec, "behavior").and_then(|b| get(b, direction)) {
                scaling_rules(rules, &path.child(direction), errors);
            }
        }
    }
}

fn reference(given: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    required_name(given, "kind", path_segment, path, errors);
    required_name(given, "name", path_segment, path, errors);
}

fn scaling_rules(rules: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let window = path.child("stabilizationWindowSeconds");
    match int(rules, "stabilizationWindowSeconds") {
        n if n < 0 => errors.invalid(&window, n, "must be greater than or equal to zero"),
        n if n > 3600 => errors.invalid(&window, n, "must be less than or equal to 3600"),
        _ => {}
    }
    if get(rules, "tolerance").is_some_and(|t| quantity(t).is_negative()) {
        let why = "must be greater than or equal to zero";
        errors.invalid(&path.child("tolerance"), rules["tolerance"].clone(), why);
    }
    one_of(rules, "selectPolicy", path, &["Disabled", "Max", "Min"], errors);
    let path = path.child("policies");
    if count(rules, "policies") == 0 {
        errors.required(&path, "must specify at least one Policy");
    }
    for (i, policy) in list(rules, "policies").enumerate() {
        let path = path.index(i);
        if !["Percent", "Pods"].contains(&text(policy, "type")) {
            errors.not_supported(&path.child("type"), text(policy, "type"), &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            if int(policy, field) <= 0 {
                errors.invalid(&path.child(field), int(policy, field), "must be greater than zero");
            }
        }
        if int(policy, "periodSeconds") > 1800 {
            let n = int(policy, "periodSeconds");
            errors.invalid(&path.child("periodSeconds"), n, "must be less than or equal to 1800");
        }
    }
}

fn validate_metric(metric: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, TYPES);
    }
    let present: Vec<&str> = METRICS.iter().map(|(_, f)| *f).filter(|f| has(metric, f)).collect();
    if let Some(field) = present.first() {
        validate_source(field, &metric[*field], &path.child(field), errors);
    }
    let expected = METRICS.iter().find(|(t, _)| *t == kind).map(|(_, f)| *f);
    match expected {
        Some(field) if !has(metric, field) => {
            let why = "must populate information for the given metric source";
            errors.required(&path.child(field), why);
        }
        Some(_) => {}
        None => errors.not_supported(&path.child("type"), kind, TYPES),
    }
    if present.len() != 1 {
        for field in present.iter().filter(|f| Some(**f) != expected) {
            errors.forbidden(&path.child(field), "must populate the given metric source only");
        }
    }
}

fn validate_source(field: &str, source: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let target = &source["target"];
    let below = path.child("target");
    let (value, average, share) =
        (has(target, "value"), has(target, "averageValue"), has(target, "averageUtilization"));
    match field {
        "object" => reference(&source["describedObject"], &path.child("describedObject"), errors),
        "resource" if text(source, "name").is_empty() => {
            errors.required(&path.child("name"), "must specify a resource name");
        }
        "resource" => {}
        "containerResource" => {
            match text(source, "name") {
                "" => errors.required(&path.child("name"), "must specify a resource name"),
                name => container_resource(name, &path.child("name"), errors),
            }
            match text(source, "container") {
                "" => errors.required(&path.child("container"), "must specify a container"),
                name => name_is(name, dns_label, &path.child("container"), errors),
            }
        }
        _ => {}
    }
    if matches!(field, "object" | "external" | "pods") {
        let path = path.child("metric");
        match text(&source["metric"], "name") {
            "" => errors.required(&path.child("name"), "must specify a metric name"),
            name => name_is(name, path_segment, &path.child("name"), errors),
        }
    }
    validate_target(target, &below, errors);
    match field {
        "object" if !value && !average => {
            errors.required(&below.child("averageValue"), "must set either a target value or averageValue")
        }
        "external" if !value && !average => errors.required(
            &below.child("averageValue"),
            "must set either a target value for metric or a per-pod target",
        ),
        "external" if value && average => errors.forbidden(
            &below.child("value"),
            "may not set both a target value for metric and a per-pod target",
        ),
        "pods" if !average => {
            errors.required(&below.child("averageValue"), "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !share && !average => errors.required(
            &below.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        ),
        "resource" | "containerResource" if share && average => errors.forbidden(
            &below.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn validate_target(target: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.invalid(&path.child("type"), kind, why);
    }
    for field in ["value", "averageValue"] {
        if let Some(n) = get(target, field).filter(|n| quantity(n).is_negative() || quantity(n).is_zero()) {
            errors.invalid(&path.child(field), n.clone(), "must be positive");
        }
    }
    if let Some(n) = target.get("averageUtilization").and_then(Value::as_i64).filter(|n| *n < 1) {
        errors.invalid(&path.child("averageUtilization"), n, "must be greater than 0");
    }
}

/// `pkg/apis/autoscaling/v2/defaults.go`, `SetDefaults_HorizontalPodAutoscalerBehavior`.
fn default_behavior(spec: &mut Value) {
    let Some(behavior) = types::at_mut(spec, &["behavior"]) else { return };
    for (direction, window, policies) in [
        (
            "scaleUp",
            0,
            json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        ),
        ("scaleDown", -1, json!([{"type": "Percent", "value": 100, "periodSeconds": 15}])),
    ] {
        if direction == "scaleDown" && !has(behavior, direction) {
            continue;
        }
        let rules = ensure_object(behavior, direction);
        set_default(rules, "selectPolicy", "Max");
        if window >= 0 {
            set_default(rules, "stabilizationWindowSeconds", window);
        }
        set_default(rules, "policies", policies);
    }
}

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "minReplicas", 1);
        let without = count(spec, "metrics") == 0 && !has(spec, "targetCPUUtilizationPercentage");
        if without && object["apiVersion"] == "autoscaling/v2" {
            object["spec"]["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        }
        let spec = ensure_object(object, "spec");
        default_behavior(spec);
        each(spec, "metrics").for_each(|metric| {
            for (_, field) in METRICS {
                if let Some(target) = types::at_mut(metric, &[field, "target"]) {
                    let kind = text(target, "type").to_owned();
                    if kind.is_empty() && has(target, "averageUtilization") {
                        target["type"] = "Utilization".into();
                    }
                }
            }
        });
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"currentReplicas": 0, "desiredReplicas": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        self.validate(object, 1, errors);
        legacy_percentage(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let zero = old["spec"]["minReplicas"] == 0;
        self.validate(new, if zero { 0 } else { 1 }, errors);
        legacy_percentage(new, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        for field in ["currentReplicas", "desiredReplicas"] {
            not_negative(&new["status"], field, &Path::new("status"), errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::HORIZONTAL_POD_AUTOSCALER
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::horizontal_pod_autoscaler_cells(object, now)
    }
}

/// The one metric that the older version knows.
fn legacy_percentage(object: &Value, errors: &mut FieldErrors) {
    let percent = object["spec"].get("targetCPUUtilizationPercentage").and_then(Value::as_i64);
    if let Some(n) = percent.filter(|n| *n < 1) {
        errors.invalid(&SPEC.child("targetCPUUtilizationPercentage"), n, "must be greater than 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let refused = |spec: Value| {
            let mut all = json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a"}});
            for (k, v) in spec.as_object().into_iter().flatten() {
                all[k] = v.clone();
            }
            let mut object = json!({"apiVersion": "autoscaling/v2", "spec": all});
            HorizontalPodAutoscaler.default(&mut object);
            let mut errors = FieldErrors::new();
            HorizontalPodAutoscaler.validate_create(&object, &mut errors);
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
        };
        for (spec, want) in [
            (json!({}), vec![]),
            (
                json!({"minReplicas": 0}),
                vec![
                    "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                    "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
                ],
            ),
            (
                json!({"maxReplicas": 0}),
                vec![
                    "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                    "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                ],
            ),
            (json!({"scaleTargetRef": {"name": "a"}}), vec!["spec.scaleTargetRef.kind: Required value"]),
            (
                json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]}),
                vec![
                    "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                ],
            ),
            (
                json!({"metrics": [{"type": "Resource", "pods": {"metric": {"name": "a"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]}),
                vec![
                    "spec.metrics[0].resource: Required value: must populate information for the given metric source",
                ],
            ),
            (
                json!({"behavior": {"scaleUp": {"policies": [{"type": "Odd", "value": 0, "periodSeconds": 2000}]}}}),
                vec![
                    "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Odd\": supported values: \"Percent\", \"Pods\"",
                    "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 2000: must be less than or equal to 1800",
                ],
            ),
        ] {
            assert_eq!(refused(spec.clone()), want, "{spec}");
        }
    }
}
