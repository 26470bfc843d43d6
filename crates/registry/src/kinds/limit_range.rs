//! LimitRanges (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`, `ValidateLimitRange`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, Quantity, qualified_name};

use super::check::*;
use super::pod_spec::each;
use super::pod_spec::resources::{container_resource, may_overcommit, resource_name};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

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
    use serde_json::json;

    use super::*;
    use crate::kinds::refused;

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
