//! ReplicaSets, and what they were before: ReplicationControllers (kubernetes/kubernetes,
//! `pkg/apis/apps/validation/validation.go`, `ValidateReplicaSetSpec`, `pkg/apis/core/validation/validation.go`,
//! `ValidateReplicationControllerSpec`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, LabelSelector, at, ensure_object, set_default};

use super::super::check::*;
use super::super::pod_spec::{Kind, default_template, validate_selected, validate_template};
use super::{
    MORE_THAN_ALL, SPEC, always_restarts, immutable_selector, required_selector, running_template,
    template_warnings, validate_counts,
};
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "replicas", 1);
        default_template(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        not_negative(spec, "replicas", &SPEC, errors);
        not_negative(spec, "minReadySeconds", &SPEC, errors);
        required_selector(spec, "empty selector is invalid for deployment", errors);
        running_template(spec, Kind::default(), "ReplicaSet", errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        immutable_selector(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        replica_counts(&new["status"], errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template_warnings(object)
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn columns(&self) -> &'static [Column] {
        table::REPLICA_SET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::replica_set_cells(object, now)
    }
}

fn replica_counts(status: &Value, errors: &mut FieldErrors) {
    validate_counts(
        status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "terminatingReplicas",
            "observedGeneration",
        ],
        &[
            ("fullyLabeledReplicas", "replicas", MORE_THAN_ALL),
            ("readyReplicas", "replicas", MORE_THAN_ALL),
            ("availableReplicas", "replicas", MORE_THAN_ALL),
            ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
        ],
        errors,
    );
}

pub(in super::super) struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "replicas", 1);
        if has(spec, "template") {
            default_template(spec);
        }
        if let Some(labels) = at(spec, &["template", "metadata", "labels"]).cloned() {
            if count(spec, "selector") == 0 {
                spec["selector"] = labels.clone();
            }
            if count(&object["metadata"], "labels") == 0 {
                ensure_object(object, "metadata")["labels"] = labels;
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        not_negative(spec, "minReadySeconds", &SPEC, errors);
        if count(spec, "selector") == 0 {
            errors.required(&SPEC.child("selector"), "");
        }
        not_negative(spec, "replicas", &SPEC, errors);
        let path = SPEC.child("template");
        let Some(template) = get(spec, "template") else { return errors.required(&path, "") };
        validate_selected(&LabelSelector::from_map(spec.get("selector")), template, &path, errors);
        validate_template(template, Kind::default(), &path, errors);
        always_restarts(template, "ReplicationController", &path, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        replica_counts(&new["status"], errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        if has(&object["spec"], "template") { template_warnings(object) } else { Vec::new() }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn columns(&self) -> &'static [Column] {
        table::REPLICA_SET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::replication_controller_cells(object, now)
    }
}
