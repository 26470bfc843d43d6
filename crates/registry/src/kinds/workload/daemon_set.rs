//! DaemonSets (kubernetes/kubernetes, `pkg/apis/apps/validation/validation.go`, `ValidateDaemonSetSpec`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, ensure_object, set_default};

use super::super::check::*;
use super::super::pod_spec::{Kind, default_template, default_text};
use super::{
    SPEC, immutable_selector, required_selector, running_template, share, template_warnings,
    validate_collisions, validate_counts, validate_part, validate_share,
};
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "revisionHistoryLimit", 10);
        let strategy = ensure_object(spec, "updateStrategy");
        default_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let rolling = ensure_object(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
        default_template(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        required_selector(spec, "empty selector is invalid for daemonset", errors);
        running_template(spec, Kind::default(), "DaemonSet", errors);
        not_negative(spec, "minReadySeconds", &SPEC, errors);
        let path = SPEC.child("updateStrategy");
        let strategy = &spec["updateStrategy"];
        match (text(strategy, "type"), get(strategy, "rollingUpdate")) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => errors.required(&path.child("rollingUpdate"), ""),
            ("RollingUpdate", Some(rolling)) => {
                let path = path.child("rollingUpdate");
                for field in ["maxUnavailable", "maxSurge"] {
                    validate_share(&rolling[field], &path.child(field), errors);
                }
                for field in ["maxUnavailable", "maxSurge"] {
                    validate_part(&rolling[field], &path.child(field), errors);
                }
                match (share(&rolling["maxUnavailable"]), share(&rolling["maxSurge"])) {
                    (0, 0) => {
                        errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0")
                    }
                    (0, _) | (_, 0) => {}
                    _ => {
                        let why = "may not be set when maxUnavailable is non-zero";
                        errors.invalid(&path.child("maxSurge"), rolling["maxSurge"].clone(), why);
                    }
                }
            }
            _ => errors.not_supported(&path, strategy.clone(), &["RollingUpdate", "OnDelete"]),
        }
        not_negative(spec, "revisionHistoryLimit", &SPEC, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        immutable_selector(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        validate_counts(
            &new["status"],
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
            &[],
            errors,
        );
        validate_collisions(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template_warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        table::DAEMON_SET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::daemon_set_cells(object, now)
    }
}
