//! ResourceQuotas and LimitRanges (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`,
//! `ValidateResourceQuota`, `ValidateLimitRange`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, Quantity, qualified_name};

use super::check::*;
use super::pod_spec::each;
use super::pod_spec::resources::{
    amount, container_resource, is_standard_quota, may_overcommit, resource_name,
};
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

pub(super) struct LimitRange;

/// What a limit says of one resource.
struct Bounds {
    min: Option<Quantity>,
    max: Option<Quantity>,
    limit: Option<Quantity>,
    request: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl Bounds {
    fn validate(&self, name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
        let above = |a: Option<Quantity>, b: Option<Quantity>| a.zip(b).filter(|(a, b)| a > b);
        let mut say = |field: &str, shown: Quantity, why: String| {
            errors.invalid(&path.child(field).key(name), shown.to_string(), &why);
        };
        if let Some((min, max)) = above(self.min, self.max) {
            say("min", min, format!("min value {min} is greater than max value {max}"));
        }
        if let Some((min, request)) = above(self.min, self.request) {
            let why = format!("min value {min} is greater than default request value {request}");
            say("defaultRequest", request, why);
        }
        if let Some((request, max)) = above(self.request, self.max) {
            let why = format!("default request value {request} is greater than max value {max}");
            say("defaultRequest", request, why);
        }
        if let Some((request, limit)) = above(self.request, self.limit) {
            let why = format!("default request value {request} is greater than default limit value {limit}");
            say("defaultRequest", request, why);
        }
        if let Some((min, limit)) = above(self.min, self.limit) {
            say("default", min, format!("min value {min} is greater than default value {limit}"));
        }
        if let Some((limit, max)) = above(self.limit, self.max) {
            say("default", max, format!("default value {limit} is greater than max value {max}"));
        }
        if let Some(ratio) = self.ratio {
            if ratio < Quantity::from_units(1) {
                say("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
            }
            if let Some((min, max)) = self.min.zip(self.max) {
                let most = max.millis() as f64 / min.millis() as f64;
                if ratio.millis() as f64 / 1000.0 > most {
                    let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
                    say("maxLimitRequestRatio", ratio, why);
                }
            }
        }
        if let Some((limit, request)) =
            self.limit.zip(self.request).filter(|(l, r)| !may_overcommit(name) && l != r)
        {
            let why = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
            say("defaultRequest", request, why);
        }
    }
}

impl Strategy for LimitRange {
    /// `SetDefaults_LimitRangeItem`: limits follow the most, requests the limits, then the least.
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        for limit in each(spec, "limits").filter(|l| text(l, "type") == "Container") {
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                let values: Vec<(String, Value)> =
                    entries(limit, from).map(|(k, v)| (k.to_owned(), v.clone())).collect();
                if values.is_empty() {
                    continue;
                }
                let target = types::ensure_object(limit, to);
                for (name, value) in values {
                    types::set_default(target, &name, value);
                }
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let path = SPEC.child("limits");
        for (i, limit) in list(spec, "limits").enumerate() {
            let path = path.index(i);
            let kind = text(limit, "type");
            let found = qualified_name(kind);
            if found.is_empty()
                && !kind.contains('/')
                && !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind)
            {
                let why = "must be a standard limit type or fully qualified";
                errors.invalid(&path.child("type"), kind, why);
            }
            faults(found, kind, &path.child("type"), errors);
            if repeats(list(spec, "limits").take(i).map(|l| text(l, "type")), kind) {
                errors.duplicate(&path.child("type"), kind);
            }
            validate_limit(limit, kind, &path, errors);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::LIMIT_RANGE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::limit_range_cells(object, now)
    }
}

fn validate_limit(limit: &Value, kind: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let names = |field: &str, errors: &mut FieldErrors| {
        let path = path.child(field);
        for (name, _) in entries(limit, field) {
            if matches!(kind, "Pod" | "Container") {
                container_resource(name, &path.key(name), errors);
            } else {
                resource_name(name, &path.key(name), errors);
            }
        }
    };
    names("max", errors);
    names("min", errors);
    let of_pod = kind == "Pod";
    for field in ["default", "defaultRequest"] {
        if of_pod && count(limit, field) > 0 {
            errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
        } else if !of_pod {
            names(field, errors);
        }
    }
    let bound = |field: &str| limit.get(field).is_some_and(|m| m.get("storage").is_some());
    if kind == "PersistentVolumeClaim" && !bound("min") && !bound("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), why);
    }
    names("maxLimitRequestRatio", errors);
    let fields = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut all: Vec<&str> = fields.iter().flat_map(|f| entries(limit, f).map(|(name, _)| name)).collect();
    all.sort_unstable();
    all.dedup();
    for name in all {
        let get = |field: &str| limit.get(field).and_then(|m| m.get(name)).map(quantity);
        Bounds {
            min: get("min"),
            max: get("max"),
            limit: get("default").filter(|_| !of_pod),
            request: get("defaultRequest").filter(|_| !of_pod),
            ratio: get("maxLimitRequestRatio"),
        }
        .validate(name, path, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(strategy: &dyn Strategy, spec: Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        strategy.default(&mut object);
        let mut errors = FieldErrors::new();
        strategy.validate_create(&object, &mut errors);
        errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

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

    #[test]
    fn limits() {
        for (limit, want) in [
            (json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}), vec![]),
            (
                json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2"}}),
                vec![
                    "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                    "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than max value 1",
                    "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 2 is greater than max value 1",
                ],
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                vec!["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                json!({"type": "PersistentVolumeClaim"}),
                vec![
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                json!({"type": "Odd"}),
                vec![
                    "spec.limits[0].type: Invalid value: \"Odd\": must be a standard limit type or fully qualified",
                ],
            ),
        ] {
            assert_eq!(refused(&LimitRange, json!({"limits": [limit]})), want, "{limit}");
        }
    }
}
