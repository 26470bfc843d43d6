//! HorizontalPodAutoscalers and PodDisruptionBudgets.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, ensure_object, set_default};

use crate::strategy::{Convert, Strategy};
use crate::table::{self, Column};

pub(super) struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        set_default(ensure_object(object, "spec"), "minReplicas", 1);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"currentReplicas": 0, "desiredReplicas": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("spec");
        let (least, most) = (object["spec"]["minReplicas"].as_i64(), object["spec"]["maxReplicas"].as_i64());
        match most {
            Some(most) if most < 1 => {
                errors.invalid(&path.child("maxReplicas"), most, "must be greater than 0")
            }
            Some(most) if least.is_some_and(|l| most < l) => {
                errors.invalid(
                    &path.child("maxReplicas"),
                    most,
                    "must be greater than or equal to `minReplicas`",
                );
            }
            Some(_) => {}
            None => errors.required(&path.child("maxReplicas"), ""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::HORIZONTAL_POD_AUTOSCALER
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::horizontal_pod_autoscaler_cells(object, now)
    }
}

/// `autoscaling/v1` knows one metric, the share of requested CPU; v2, the stored one, has a list
/// (kubernetes/kubernetes, `pkg/apis/autoscaling/v1/conversion.go`).
pub(super) struct AutoscalingV1;

fn is_cpu_share(metric: &Value) -> bool {
    metric["resource"]["name"] == "cpu" && metric["resource"]["target"]["type"] == "Utilization"
}

impl Convert for AutoscalingV1 {
    fn store(&self, object: &mut Value) {
        let Some(spec) = types::at_mut(object, &["spec"]).and_then(Value::as_object_mut) else { return };
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            spec.insert(
                "metrics".into(),
                json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}]),
            );
        }
    }

    fn show(&self, object: &mut Value) {
        if let Some(spec) = types::at_mut(object, &["spec"]).and_then(Value::as_object_mut) {
            let metrics = spec.remove("metrics");
            spec.remove("behavior");
            let cpu =
                metrics.as_ref().and_then(Value::as_array).into_iter().flatten().find(|m| is_cpu_share(m));
            if let Some(percent) = cpu.and_then(|m| at(m, &["resource", "target", "averageUtilization"])) {
                spec.insert("targetCPUUtilizationPercentage".into(), percent.clone());
            }
        }
        if let Some(status) = types::at_mut(object, &["status"]).and_then(Value::as_object_mut) {
            status.remove("currentMetrics");
            status.remove("conditions");
        }
    }
}

pub(super) struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] =
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        if at(spec, &["minAvailable"]).is_some() && at(spec, &["maxUnavailable"]).is_some() {
            errors.invalid(
                &Path::new("spec"),
                spec.clone(),
                "minAvailable and maxUnavailable cannot be both set",
            );
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::POD_DISRUPTION_BUDGET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::pod_disruption_budget_cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_keeps_its_target() {
        let v1 = json!({"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}});
        let mut object = v1.clone();
        AutoscalingV1.store(&mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        AutoscalingV1.show(&mut object);
        assert_eq!(object, v1);
    }
}
