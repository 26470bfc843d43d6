//! PodDisruptionBudgets (kubernetes/kubernetes, `pkg/apis/policy/validation/validation.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path};

use super::check::*;
use super::workload::{validate_part, validate_share};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] =
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
            errors.invalid(&SPEC, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
        }
        for field in ["minAvailable", "maxUnavailable"] {
            if let Some(value) = get(spec, field) {
                let path = SPEC.child(field);
                validate_share(value, &path, errors);
                validate_part(value, &path, errors);
            }
        }
        label_selector(get(spec, "selector"), &SPEC.child("selector"), errors);
        one_of(spec, "unhealthyPodEvictionPolicy", &SPEC, &["AlwaysAllow", "IfHealthyBudget"], errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        for field in fields {
            not_negative(&new["status"], field, &Path::new("status"), errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::POD_DISRUPTION_BUDGET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::pod_disruption_budget_cells(object, now)
    }
}
