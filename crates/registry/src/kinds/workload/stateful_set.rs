//! StatefulSets (kubernetes/kubernetes, `pkg/apis/apps/validation/validation.go`, `ValidateStatefulSetSpec`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_label, ensure_object, set_default};

use super::super::check::*;
use super::super::pod_spec::{Kind, default_template, default_text, each};
use super::super::storage::validate_claim_spec;
use super::{
    MORE_THAN_ALL, SPEC, required_selector, running_template, share, template_warnings, validate_collisions,
    validate_counts, validate_part, validate_share,
};
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct StatefulSet;

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
            super::super::storage_warnings::claim_spec(&claim["spec"], &path.child("spec"), &mut warnings);
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
