//! How much devices have of something, and how it may be asked for (kubernetes/kubernetes,
//! `pkg/apis/resource/validation/validation.go`, `validateRequestPolicy`).

use serde_json::Value;
use types::{FieldErrors, Path, Quantity, dns_label};

use super::super::check::*;
use super::at_most;

/// Named amounts, of which there is at least one.
pub(super) fn counters(of: &Value, most: usize, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("counters");
    match count(of, "counters") {
        0 => errors.required(&path, ""),
        n if n > most => errors.too_many(&path, n, most),
        _ => {
            for (name, _) in entries(of, "counters") {
                name_is(name, dns_label, &path, errors);
            }
        }
    }
}

pub(super) fn validate(capacity: &Value, shared: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(policy) = get(capacity, "requestPolicy") else { return };
    let path = path.child("requestPolicy");
    if !shared {
        return errors.forbidden(&path, "allowMultipleAllocations must be true");
    }
    let (has_values, range) = (count(policy, "validValues") > 0, get(policy, "validRange"));
    let default = get(policy, "default").map(quantity);
    let whole = quantity(&capacity["value"]);
    match (has_values, range) {
        (true, Some(_)) => errors.forbidden(
            &path,
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (true, None) => match default {
            None => errors.required(&path.child("default"), "required when validValues is defined"),
            Some(default) => values(policy, default, whole, &path, errors),
        },
        (false, Some(range)) => match default {
            None => errors.required(&path.child("default"), "required when validRange is defined"),
            Some(default) => in_bounds(range, default, whole, &path.child("validRange"), errors),
        },
        (false, None) => {}
    }
}

fn values(policy: &Value, default: Quantity, whole: Quantity, path: &Path<'_>, errors: &mut FieldErrors) {
    at_most(policy, "validValues", 10, path, errors);
    let path = path.child("validValues");
    let all: Vec<Quantity> = list(policy, "validValues").map(quantity).collect();
    for (i, value) in all.iter().enumerate() {
        let (path, shown) = (path.index(i), value.to_string());
        if i > 0 && all[i - 1] > *value {
            errors.invalid(&path, shown.as_str(), "values must be sorted in ascending order");
        }
        if *value > whole {
            errors.invalid(&path, shown.as_str(), &format!("option is larger than capacity value: {whole}"));
        }
        if all[..i].contains(value) {
            errors.duplicate(&path, shown);
        }
    }
    if !all.contains(&default) {
        let why = "default value is not valid according to the requestPolicy";
        errors.invalid(&path, default.to_string(), why);
    }
}

fn in_bounds(range: &Value, default: Quantity, whole: Quantity, path: &Path<'_>, errors: &mut FieldErrors) {
    let bound = |name: &str| get(range, name).map(quantity);
    let Some(min) = bound("min") else {
        return errors.required(&path.child("min"), "required when validRange is defined");
    };
    let mut wrong = |field: &str, value: Quantity, why: String| {
        errors.invalid(&path.child(field), value.to_string(), &why);
    };
    if min > whole {
        wrong("min", min, format!("min is larger than capacity value: {whole}"));
    }
    if default < min {
        wrong("default", default, format!("default is less than min: {min}"));
    }
    let max = bound("max");
    if let Some(max) = max {
        if min > max {
            wrong("max", min, format!("min is larger than max: {max}"));
        }
        if max > whole {
            wrong("max", max, format!("max is larger than capacity value: {whole}"));
        }
        if default > max {
            wrong("default", default, format!("default is more than max: {max}"));
        }
    }
    let Some(step) = bound("step") else { return };
    if step <= Quantity::default() {
        return wrong("step", step, "must be greater than zero".to_owned());
    }
    if min + step > whole {
        wrong("step", step, format!("one step {} is larger than capacity value: {whole}", min + step));
    }
    for value in [Some(default), max].into_iter().flatten() {
        let (over, step_units) = (value.units().saturating_sub(min.units()), step.units().max(1));
        if over % step_units != 0 {
            wrong("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}
