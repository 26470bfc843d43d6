//! Deployments (kubernetes/kubernetes, `pkg/apis/apps/validation/validation.go`, `ValidateDeploymentSpec`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, ensure_object, set_default};

use super::super::check::*;
use super::super::pod_spec::{Kind, default_template, default_text};
use super::{
    MORE_THAN_ALL, SPEC, immutable_selector, required_selector, running_template, share, template_warnings,
    validate_collisions, validate_counts, validate_part, validate_share,
};
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let strategy = ensure_object(spec, "strategy");
        default_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let rolling = ensure_object(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
        default_template(spec);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        not_negative(spec, "replicas", &SPEC, errors);
        required_selector(spec, "empty selector is invalid for deployment", errors);
        running_template(spec, Kind::default(), "ReplicaSet", errors);
        rolling_deployment(&spec["strategy"], &SPEC.child("strategy"), errors);
        not_negative(spec, "minReadySeconds", &SPEC, errors);
        not_negative(spec, "revisionHistoryLimit", &SPEC, errors);
        if let Some(deadline) = spec.get("progressDeadlineSeconds").and_then(Value::as_i64) {
            not_negative(spec, "progressDeadlineSeconds", &SPEC, errors);
            if deadline <= int(spec, "minReadySeconds") {
                let why = "must be greater than minReadySeconds";
                errors.invalid(&SPEC.child("progressDeadlineSeconds"), deadline, why);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        immutable_selector(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        validate_counts(
            &new["status"],
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "terminatingReplicas",
                "collisionCount",
            ],
            &[
                ("updatedReplicas", "replicas", MORE_THAN_ALL),
                ("readyReplicas", "replicas", MORE_THAN_ALL),
                ("availableReplicas", "replicas", MORE_THAN_ALL),
                ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
            ],
            errors,
        );
        validate_collisions(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template_warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        table::DEPLOYMENT
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::deployment_cells(object, now)
    }
}

fn rolling_deployment(strategy: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let below = path.child("rollingUpdate");
    match (text(strategy, "type"), get(strategy, "rollingUpdate")) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&below, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let path = below.child("maxUnavailable");
            validate_share(unavailable, &path, errors);
            validate_share(surge, &below.child("maxSurge"), errors);
            if share(unavailable) == 0 && share(surge) == 0 {
                errors.invalid(&path, unavailable.clone(), "may not be 0 when `maxSurge` is 0");
            }
            validate_part(unavailable, &path, errors);
        }
        ("RollingUpdate", None) => {
            errors.required(&below, "this should be defaulted and never be nil");
        }
        _ => errors.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}
