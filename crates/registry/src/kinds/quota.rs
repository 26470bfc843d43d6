//! ResourceQuotas (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`, `ValidateResourceQuota`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path};

use super::check::*;
use super::pod_spec::resources::{amount, is_standard_quota, resource_name};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub(super) struct ResourceQuota;

fn validate_amounts(of: &Value, field: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child(field);
    for (name, value) in entries(of, field) {
        let path = path.key(name);
        let good = resource_name(name, &path, errors);
        // A name that is no standard one at all has been refused already, and is refused again, as upstream does.
        if !name.contains('/') && !is_standard_quota(name) {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        let _ = good;
        amount(name, value, &path, errors);
    }
}

/// `pkg/apis/core/helper/helpers.go`, `IsResourceQuotaScopeValidForResource`.
fn goes_with(scope: &str, resource: &str) -> bool {
    let computes = matches!(
        resource,
        "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
    ) || resource.starts_with("hugepages-")
        || resource.starts_with("requests.hugepages-");
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => computes || resource == "pods",
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn conflicting(scopes: &[&str]) -> usize {
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]]
        .iter()
        .filter(|pair| pair.iter().all(|s| scopes.contains(s)))
        .count()
}

fn validate_scopes(spec: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("scopes");
    let scopes: Vec<&str> = texts(spec, "scopes").collect();
    let mut say = |why: &str| errors.invalid(&path, spec["scopes"].clone(), why);
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            say("unsupported scope");
        }
        for (name, _) in entries(spec, "hard") {
            if is_standard_quota(name) && !goes_with(scope, name) {
                say("unsupported scope applied to resource");
            }
        }
    }
    for _ in 0..conflicting(&scopes) {
        say("conflicting scopes");
    }
}

fn validate_selector(spec: &Value, errors: &mut FieldErrors) {
    let Some(selector) = get(spec, "scopeSelector") else { return };
    let path = SPEC.child("scopeSelector");
    let path = path.child("matchExpressions");
    let mut scopes = Vec::new();
    for e in list(selector, "matchExpressions") {
        let (scope, operator, values) = (text(e, "scopeName"), text(e, "operator"), count(e, "values"));
        scopes.push(scope);
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for (name, _) in entries(spec, "hard") {
            if is_standard_quota(name) && !goes_with(scope, name) {
                errors.invalid(&path, selector.clone(), "unsupported scope applied to resource");
            }
        }
        let existing = matches!(
            scope,
            "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity"
        );
        if existing && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, why);
        }
        match operator {
            "In" | "NotIn" if values == 0 => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), why);
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), e["values"].clone(), why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
    for _ in 0..conflicting(&scopes) {
        errors.invalid(&path, spec.get("scopes").cloned().unwrap_or_default(), "conflicting scopes");
    }
}

impl Strategy for ResourceQuota {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        validate_amounts(spec, "hard", &SPEC, errors);
        validate_scopes(spec, errors);
        validate_selector(spec, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        let sorted = |o: &Value| {
            let mut scopes: Vec<String> = texts(&o["spec"], "scopes").map(str::to_owned).collect();
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        };
        if sorted(new) != sorted(old) {
            let scopes = new["spec"].get("scopes").cloned().unwrap_or_default();
            errors.invalid(&SPEC.child("scopes"), scopes, IMMUTABLE);
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        for field in ["hard", "used"] {
            validate_amounts(&new["status"], field, &Path::new("status"), errors);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::RESOURCE_QUOTA
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::resource_quota_cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::refused;

    #[test]
    fn quotas() {
        for (spec, want) in [
            (
                json!({"hard": {"pods": "5", "requests.cpu": "1", "example.com/dongle": "2", "count/jobs.batch": "1"}}),
                vec![],
            ),
            (
                json!({"hard": {"pods": "1500m"}}),
                vec!["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
            ),
            (
                json!({"hard": {"odd": "1"}}),
                vec![
                    "spec.hard[odd]: Invalid value: \"odd\": must be a standard resource type or fully qualified",
                    "spec.hard[odd]: Invalid value: \"odd\": must be a standard resource for quota",
                ],
            ),
            (
                json!({"hard": {"cpu": "-1"}}),
                vec!["spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                vec!["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
            ),
            (
                json!({"scopes": ["Terminating", "NotTerminating"]}),
                vec!["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
                vec![
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ] {
            assert_eq!(refused(&ResourceQuota, spec.clone()), want, "{spec}");
        }
    }
}
