//! How `autoscaling/v1` writes HorizontalPodAutoscalers (kubernetes/kubernetes,
//! `pkg/apis/autoscaling/v1/conversion.go`).

use serde_json::{Value, json};
use types::{at, ensure_object};

use crate::strategy::Convert;

/// `autoscaling/v1` knows one metric, the share of requested CPU; v2, the stored one, has a list. What v1 cannot say
/// is kept in annotations, so that a client of v1 changes what it knows and no more
/// (kubernetes/kubernetes, `pkg/apis/autoscaling/v1/conversion.go`).
pub(in super::super) struct AutoscalingV1;

const METRIC_SPECS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const METRIC_STATUSES: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu_share(metric: &Value) -> bool {
    metric["resource"]["name"] == "cpu" && metric["resource"]["target"]["type"] == "Utilization"
}

/// Takes an annotation out and reads it.
fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = types::at_mut(object, &["metadata", "annotations"])?.as_object_mut()?;
    let text = annotations.remove(key)?;
    let empty = annotations.is_empty();
    if empty {
        types::object(&mut object["metadata"]).remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(object: &mut Value, key: &str, value: &Value) {
    let metadata = ensure_object(object, "metadata");
    ensure_object(metadata, "annotations")[key] = value.to_string().into();
}

impl Convert for AutoscalingV1 {
    fn store(&self, object: &mut Value) {
        let mut metrics = match take_annotation(object, METRIC_SPECS) {
            Some(Value::Array(metrics)) => metrics,
            _ => Vec::new(),
        };
        let behavior = take_annotation(object, BEHAVIOR).filter(Value::is_object);
        let current = take_annotation(object, METRIC_STATUSES).filter(Value::is_array);
        let conditions = take_annotation(object, CONDITIONS).filter(Value::is_array);
        let Some(spec) = types::at_mut(object, &["spec"]).and_then(Value::as_object_mut) else { return };
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}});
            metrics.insert(0, cpu);
        }
        if !metrics.is_empty() {
            spec.insert("metrics".into(), Value::Array(metrics));
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
        if current.is_none() && conditions.is_none() {
            return;
        }
        let status = types::object(ensure_object(object, "status"));
        if let Some(current) = current {
            status.insert("currentMetrics".into(), current);
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
        status.remove("currentCPUUtilizationPercentage");
    }

    fn show(&self, object: &mut Value) {
        let mut kept: Vec<(&str, Value)> = Vec::new();
        if let Some(spec) = types::at_mut(object, &["spec"]).and_then(Value::as_object_mut) {
            let mut metrics = match spec.remove("metrics") {
                Some(Value::Array(metrics)) => metrics,
                _ => Vec::new(),
            };
            if let Some(i) = metrics.iter().position(is_cpu_share) {
                let cpu = metrics.remove(i);
                if let Some(percent) = at(&cpu, &["resource", "target", "averageUtilization"]) {
                    spec.insert("targetCPUUtilizationPercentage".into(), percent.clone());
                }
            }
            if !metrics.is_empty() {
                kept.push((METRIC_SPECS, Value::Array(metrics)));
            }
            kept.extend(spec.remove("behavior").map(|b| (BEHAVIOR, b)));
        }
        if let Some(status) = types::at_mut(object, &["status"]).and_then(Value::as_object_mut) {
            if let Some(current) = status.remove("currentMetrics") {
                let mut metrics = current.as_array().into_iter().flatten();
                let cpu = metrics.find(|m| m["resource"]["name"] == "cpu");
                if let Some(n) = cpu.and_then(|m| at(m, &["resource", "current", "averageUtilization"])) {
                    status.insert("currentCPUUtilizationPercentage".into(), n.clone());
                }
                kept.push((METRIC_STATUSES, current));
            }
            kept.extend(status.remove("conditions").map(|c| (CONDITIONS, c)));
        }
        for (key, value) in kept {
            put_annotation(object, key, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_keeps_its_target_and_what_it_cannot_say() {
        let v1 = json!({"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}});
        let mut object = v1.clone();
        AutoscalingV1.store(&mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        AutoscalingV1.show(&mut object);
        assert_eq!(object, v1);
        let v2 = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {"selectPolicy": "Max"}},
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]}});
        let mut object = v2.clone();
        AutoscalingV1.show(&mut object);
        assert!(object["spec"].get("metrics").is_none());
        AutoscalingV1.store(&mut object);
        assert_eq!(object, v2);
    }
}
