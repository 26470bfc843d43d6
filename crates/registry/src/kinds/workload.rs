//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ReplicationControllers (kubernetes/kubernetes,
//! `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, LabelSelector, Path, at, dns_label, ensure_object, set_default};

use super::check::*;
use super::pod_spec::{
    Kind, default_template, default_text, each, validate_selected, validate_template, warnings,
};
use super::storage::validate_claim_spec;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

/// A selector that must be there and select something.
fn required_selector(spec: &Value, empty: &str, errors: &mut FieldErrors) {
    let path = SPEC.child("selector");
    match get(spec, "selector") {
        None => errors.required(&path, ""),
        Some(selector) => {
            label_selector(Some(selector), &path, errors);
            if is_empty_selector(selector) {
                errors.invalid(&path, selector.clone(), empty);
            }
        }
    }
}

/// The pods of a workload that keeps them running.
fn running_template(spec: &Value, kind: Kind<'_>, owner: &str, errors: &mut FieldErrors) {
    let path = SPEC.child("template");
    let template = &spec["template"];
    match LabelSelector::from_object(get(spec, "selector")) {
        Ok(selector) => {
            // Without a selector nothing is selected; that has been said already.
            if has(spec, "selector") {
                validate_selected(&selector, template, &path, errors);
            }
            validate_template(template, kind, &path, errors);
        }
        Err(_) => {
            errors.invalid(&SPEC.child("selector"), spec["selector"].clone(), "invalid label selector");
        }
    }
    always_restarts(template, owner, &path, errors);
}

fn always_restarts(template: &Value, owner: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("spec");
    let policy = text(&template["spec"], "restartPolicy");
    if policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if has(&template["spec"], "activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &why);
    }
}

fn template_warnings(object: &Value) -> Vec<String> {
    warnings::template(&object["spec"]["template"], &SPEC.child("template"))
}

fn immutable_selector(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(&new["spec"], &old["spec"], "selector", &SPEC, errors);
}

/// Counts in a status that are not negative, and those that may not exceed others.
fn validate_counts(status: &Value, counts: &[&str], bounds: &[(&str, &str, &str)], errors: &mut FieldErrors) {
    for field in counts {
        not_negative(status, field, &STATUS, errors);
    }
    for (field, most, why) in bounds {
        if int(status, field) > int(status, most) {
            errors.invalid(&STATUS.child(field), int(status, field), why);
        }
    }
}

/// How often names have collided only grows.
fn validate_collisions(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (new, old) = (&new["status"], &old["status"]);
    if has(old, "collisionCount") && int(new, "collisionCount") < int(old, "collisionCount") {
        let path = STATUS.child("collisionCount");
        errors.invalid(&path, int(new, "collisionCount"), "cannot be decremented");
    }
}

const MORE_THAN_ALL: &str = "cannot be greater than status.replicas";

/// A number or a share of something.
pub(super) fn share(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.trim_end_matches('%').parse().unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}

/// A count or a percentage, not negative.
pub(super) fn validate_share(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Value::String(text) if !is_percent(text) => {
            errors.invalid(path, text.as_str(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
        }
        Value::Number(_) if share(value) < 0 => errors.invalid(path, value.clone(), NEGATIVE),
        _ => {}
    }
}

fn is_percent(text: &str) -> bool {
    text.strip_suffix('%').is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
}

/// No percentage above a hundred.
pub(super) fn validate_part(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if value.as_str().is_some_and(is_percent) && share(value) > 100 {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

pub(super) struct Deployment;

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

pub(super) struct ReplicationController;

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

pub(super) struct StatefulSet;

impl StatefulSet {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        match text(spec, "podManagementPolicy") {
            "" => errors.required(&SPEC.child("podManagementPolicy"), ""),
            "OrderedReady" | "Parallel" => {}
            other => {
                let why = "must be 'OrderedReady' or 'Parallel'";
                errors.invalid(&SPEC.child("podManagementPolicy"), other, why);
            }
        }
        self.validate_strategy(&spec["updateStrategy"], &SPEC.child("updateStrategy"), errors);
        if let Some(policy) = get(spec, "persistentVolumeClaimRetentionPolicy") {
            let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
            for field in ["whenDeleted", "whenScaled"] {
                if !["Retain", "Delete"].contains(&text(policy, field)) {
                    errors.not_supported(&path.child(field), text(policy, field), &["Retain", "Delete"]);
                }
            }
        }
        not_negative(spec, "replicas", &SPEC, errors);
        not_negative(spec, "minReadySeconds", &SPEC, errors);
        not_negative(spec, "revisionHistoryLimit", &SPEC, errors);
        if let Some(ordinals) = get(spec, "ordinals").filter(|o| int(o, "start") < 0) {
            errors.invalid(&SPEC.child("ordinals.start"), int(ordinals, "start"), NEGATIVE);
        }
        required_selector(spec, "empty selector is invalid for statefulset", errors);
        let kind = Kind { claims: spec.get("volumeClaimTemplates"), ..Kind::default() };
        running_template(spec, kind, "StatefulSet", errors);
        let path = SPEC.child("volumeClaimTemplates");
        for (i, claim) in list(spec, "volumeClaimTemplates").enumerate() {
            let path = path.index(i);
            let empty = json!({});
            validate_claim_spec(get(claim, "spec").unwrap_or(&empty), &path.child("spec"), errors);
        }
    }

    fn validate_strategy(&self, strategy: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
        let rolling = get(strategy, "rollingUpdate");
        let below = path.child("rollingUpdate");
        match (text(strategy, "type"), rolling) {
            ("", _) => errors.required(path, ""),
            ("OnDelete", Some(rolling)) => {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                errors.invalid(&below, rolling.clone(), why);
            }
            ("RollingUpdate", Some(rolling)) => {
                not_negative(rolling, "partition", &below, errors);
                if let Some(most) = get(rolling, "maxUnavailable") {
                    let path = below.child("maxUnavailable");
                    validate_share(most, &path, errors);
                    if share(most) == 0 {
                        errors.invalid(&path, most.clone(), "cannot be 0");
                    }
                    validate_part(most, &path, errors);
                }
            }
            ("OnDelete" | "RollingUpdate", None) => {}
            _ => errors.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
        }
    }
}

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        default_text(spec, "podManagementPolicy", "OrderedReady");
        let strategy = ensure_object(spec, "updateStrategy");
        default_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            set_default(ensure_object(strategy, "rollingUpdate"), "partition", 0);
        }
        let retention = ensure_object(spec, "persistentVolumeClaimRetentionPolicy");
        default_text(retention, "whenDeleted", "Retain");
        default_text(retention, "whenScaled", "Retain");
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
        self.validate(object, errors);
        if !text(&object["spec"], "serviceName").is_empty() {
            required_name(&object["spec"], "serviceName", dns_label, &SPEC, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let mut found = FieldErrors::new();
        self.validate(new, &mut found);
        if !found.is_empty() {
            // What was let pass once is let pass again.
            let mut before = FieldErrors::new();
            self.validate(old, &mut before);
            if before.is_empty() {
                errors.extend(found);
            }
        }
        const MUTABLE: &[&str] = &[
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ];
        let (spec, before) = (&new["spec"], &old["spec"]);
        let names = spec.as_object().into_iter().chain(before.as_object()).flat_map(|m| m.keys());
        if names.filter(|f| !MUTABLE.contains(&f.as_str())).any(|f| !same_field(spec, before, f)) {
            errors.forbidden(&SPEC, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        validate_counts(
            &new["status"],
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ],
            &[
                ("readyReplicas", "replicas", MORE_THAN_ALL),
                ("currentReplicas", "replicas", MORE_THAN_ALL),
                ("updatedReplicas", "replicas", MORE_THAN_ALL),
                ("availableReplicas", "replicas", MORE_THAN_ALL),
                ("availableReplicas", "readyReplicas", "cannot be greater than status.readyReplicas"),
            ],
            errors,
        );
        validate_collisions(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = template_warnings(object);
        let path = SPEC.child("volumeClaimTemplates");
        for (i, claim) in list(&object["spec"], "volumeClaimTemplates").enumerate() {
            let path = path.index(i);
            super::storage_warnings::claim_spec(&claim["spec"], &path.child("spec"), &mut warnings);
        }
        if has(&object["spec"], "revisionHistoryLimit") && int(&object["spec"], "revisionHistoryLimit") < 0 {
            warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        warnings
    }

    /// Pods are called after it, and their names are host names.
    fn validate_name(&self, name: &str) -> Option<String> {
        dns_label(name)
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

pub(super) struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        if !has(object, "data") {
            errors.required(&Path::new("data"), "data is mandatory");
        }
        if int(object, "revision") < 0 {
            errors.invalid(&Path::new("revision"), int(object, "revision"), NEGATIVE);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if new["data"] != old["data"] {
            errors.immutable(&Path::new("data"), &new["data"]);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::CONTROLLER_REVISION
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::controller_revision_cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(strategy: &dyn Strategy, spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "a"}, "spec": spec});
        strategy.default(&mut object);
        let mut errors = FieldErrors::new();
        strategy.validate_create(&object, &mut errors);
        errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    fn spec(more: Value) -> Value {
        let mut spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}});
        for (k, v) in more.as_object().into_iter().flatten() {
            spec[k] = v.clone();
        }
        spec
    }

    #[test]
    fn refusals() {
        let cases: Vec<(&dyn Strategy, Value, &[&str])> = vec![
            (&Deployment, json!({}), &[]),
            (
                &Deployment,
                json!({"selector": {"matchLabels": {"a": "c"}}}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
                ],
            ),
            (&Deployment, json!({"selector": null}), &["spec.selector: Required value"]),
            (
                &Deployment,
                json!({"selector": {}}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                &Deployment,
                json!({"replicas": -1, "progressDeadlineSeconds": 5, "minReadySeconds": 5}),
                &[
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                    "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
                ],
            ),
            (
                &Deployment,
                json!({"strategy": {"type": "Other"}}),
                &[
                    "spec.strategy: Unsupported value: {\"type\":\"Other\"}: supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                &Deployment,
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                &[
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                &Deployment,
                json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                &Deployment,
                json!({"strategy": {"rollingUpdate": {"maxUnavailable": "150%"}}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%",
                ],
            ),
            (
                &DaemonSet,
                json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                &StatefulSet,
                json!({"podManagementPolicy": "Other"}),
                &["spec.podManagementPolicy: Invalid value: \"Other\": must be 'OrderedReady' or 'Parallel'"],
            ),
            (
                &StatefulSet,
                json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
                &[
                    "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
                ],
            ),
            (
                &ReplicationController,
                json!({"selector": {"a": "c"}}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
                ],
            ),
        ];
        for (strategy, more, want) in cases {
            assert_eq!(refused(strategy, spec(more.clone())), want, "{more}");
        }
        let mut once = spec(json!({}));
        once["template"]["spec"]["restartPolicy"] = "Never".into();
        once["template"]["spec"]["activeDeadlineSeconds"] = 5.into();
        assert_eq!(
            refused(&ReplicaSet, once),
            [
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ]
        );
    }

    #[test]
    fn a_stateful_set_mounts_its_claims() {
        let mut set = spec(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}));
        set["template"]["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "data", "mountPath": "/d"}]);
        assert!(refused(&StatefulSet, set.clone()).is_empty(), "{:?}", refused(&StatefulSet, set));
    }

    #[test]
    fn selectors_stay() {
        let mut old = json!({"spec": spec(json!({}))});
        Deployment.default(&mut old);
        let mut new = old.clone();
        new["spec"]["selector"] = json!({"matchLabels": {"a": "b", "c": "d"}});
        new["spec"]["template"]["metadata"]["labels"]["c"] = "d".into();
        let mut errors = FieldErrors::new();
        Deployment.validate_update(&new, &old, &mut errors);
        assert_eq!(
            errors.to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable"
        );
    }
}
