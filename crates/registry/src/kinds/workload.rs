//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ReplicationControllers (kubernetes/kubernetes,
//! `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, at_mut, ensure_object, set_default};

use super::container::{not_negative, one_of};
use super::pod_spec::{validate_selector, validate_template};
use super::pod_spec_defaults::{default_pod_spec, each};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

fn default_template(spec: &mut Value) {
    default_pod_spec(ensure_object(ensure_object(spec, "template"), "spec"));
}

fn validate_workload(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    not_negative(spec, "replicas", &SPEC, errors);
    not_negative(spec, "minReadySeconds", &SPEC, errors);
    not_negative(spec, "revisionHistoryLimit", &SPEC, errors);
    validate_selector(spec, errors);
    validate_template(spec, &["Always"], errors);
}

fn immutable_selector(new: &Value, old: &Value, errors: &mut FieldErrors) {
    if new["spec"]["selector"] != old["spec"]["selector"] {
        errors.immutable(&SPEC.child("selector"), &new["spec"]["selector"]);
    }
}

/// A count or a percentage, not negative.
fn validate_share(value: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Some(Value::String(text)) => {
            let digits =
                text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            if digits.is_none() {
                errors.invalid(path, text.as_str(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
            }
        }
        Some(n) if n.as_i64().is_some_and(|n| n < 0) => {
            errors.invalid(path, n.clone(), "must be greater than or equal to 0");
        }
        _ => {}
    }
}

fn is_zero_share(value: Option<&Value>) -> bool {
    value.is_some_and(|v| v == 0 || v == "0%")
}

pub(super) struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let strategy = ensure_object(spec, "strategy");
        set_default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let rolling = ensure_object(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
        default_template(spec);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_workload(object, errors);
        let path = SPEC.child("strategy");
        let strategy = &object["spec"]["strategy"];
        one_of(strategy, "type", &path, &["Recreate", "RollingUpdate"], errors);
        let path = path.child("rollingUpdate");
        if strategy["type"] == "Recreate" && at(strategy, &["rollingUpdate"]).is_some() {
            errors.forbidden(&path, "may not be specified when strategy `type` is 'Recreate'");
        }
        let (unavailable, surge) = (
            at(strategy, &["rollingUpdate", "maxUnavailable"]),
            at(strategy, &["rollingUpdate", "maxSurge"]),
        );
        validate_share(unavailable, &path.child("maxUnavailable"), errors);
        validate_share(surge, &path.child("maxSurge"), errors);
        if is_zero_share(unavailable) && is_zero_share(surge) {
            errors.invalid(&path.child("maxUnavailable"), 0, "may not be 0 when `maxSurge` is 0");
        }
        let (deadline, ready) =
            (object["spec"]["progressDeadlineSeconds"].as_i64(), object["spec"]["minReadySeconds"].as_i64());
        if let Some(deadline) = deadline.filter(|d| *d <= ready.unwrap_or(0)) {
            errors.invalid(
                &SPEC.child("progressDeadlineSeconds"),
                deadline,
                "must be greater than minReadySeconds",
            );
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        immutable_selector(new, old, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::DEPLOYMENT
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::deployment_cells(object, now)
    }
}

pub(super) struct ReplicaSet;

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
        validate_workload(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        immutable_selector(new, old, errors);
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

pub(super) struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "replicas", 1);
        default_template(spec);
        if let Some(labels) = at(spec, &["template", "metadata", "labels"]).cloned() {
            set_default(spec, "selector", labels.clone());
            set_default(ensure_object(object, "metadata"), "labels", labels);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
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

pub(super) struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "podManagementPolicy", "OrderedReady");
        let strategy = ensure_object(spec, "updateStrategy");
        set_default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            set_default(ensure_object(strategy, "rollingUpdate"), "partition", 0);
        }
        let retention = ensure_object(spec, "persistentVolumeClaimRetentionPolicy");
        set_default(retention, "whenDeleted", "Retain");
        set_default(retention, "whenScaled", "Retain");
        default_template(spec);
        for claim in each(spec, "volumeClaimTemplates") {
            // Whatever the user calls it.
            claim["apiVersion"] = "v1".into();
            claim["kind"] = "PersistentVolumeClaim".into();
            set_default(ensure_object(claim, "spec"), "volumeMode", "Filesystem");
            claim["status"] = json!({"phase": "Pending"});
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_workload(object, errors);
        one_of(&object["spec"], "podManagementPolicy", &SPEC, &["OrderedReady", "Parallel"], errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        let mutable = [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ];
        let fixed = |object: &Value| -> Value {
            let mut spec = object["spec"].clone();
            if let Value::Object(map) = &mut spec {
                map.retain(|key, _| !mutable.contains(&key.as_str()));
            }
            spec
        };
        if fixed(new) != fixed(old) {
            errors.forbidden(&SPEC, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::STATEFUL_SET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::stateful_set_cells(object, now)
    }
}

pub(super) struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "revisionHistoryLimit", 10);
        let strategy = ensure_object(spec, "updateStrategy");
        set_default(strategy, "type", "RollingUpdate");
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
        validate_workload(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        immutable_selector(new, old, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::DAEMON_SET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::daemon_set_cells(object, now)
    }
}

pub(super) struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if new["data"] != old["data"] {
            errors.immutable(&Path::new("data"), &new["data"]);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::CONTROLLER_REVISION
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::controller_revision_cells(object, now)
    }
}

/// Fills in the job template of a Job or CronJob.
pub(super) fn default_job_spec(spec: &mut Value) {
    if at(spec, &["completions"]).is_none() && at(spec, &["parallelism"]).is_none() {
        spec["completions"] = 1.into();
    }
    set_default(spec, "parallelism", 1);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    if at(spec, &["backoffLimitPerIndex"]).is_some() {
        set_default(spec, "backoffLimit", i32::MAX);
    }
    set_default(spec, "backoffLimit", 6);
    let policy = if at(spec, &["podFailurePolicy"]).is_some() { "Failed" } else { "TerminatingOrFailed" };
    set_default(spec, "podReplacementPolicy", policy);
    if let Some(template) = at_mut(spec, &["template"]) {
        default_pod_spec(ensure_object(template, "spec"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_needs_a_matching_selector() {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        Deployment.default(&mut object);
        assert_eq!(object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        let mut errors = FieldErrors::new();
        Deployment.validate_create(&object, &mut errors);
        assert_eq!(
            errors.to_string(),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
        );
        let mut changed = object.clone();
        changed["spec"]["selector"] = json!({"matchLabels": {"a": "c"}});
        let mut errors = FieldErrors::new();
        Deployment.validate_update(&changed, &object, &mut errors);
        assert!(errors.to_string().ends_with("field is immutable"), "{errors}");
    }
}
