//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ReplicationControllers (kubernetes/kubernetes,
//! `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go`).

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

use serde_json::Value;
use types::{FieldErrors, LabelSelector, Path};

use super::check::*;
use super::pod_spec::{Kind, validate_selected, validate_template, warnings};
pub(super) use controller_revision::ControllerRevision;
pub(super) use daemon_set::DaemonSet;
pub(super) use deployment::Deployment;
pub(super) use replica_set::{ReplicaSet, ReplicationController};
pub(super) use stateful_set::StatefulSet;

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

#[cfg(test)]
mod tests;
