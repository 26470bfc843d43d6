//! When a Job's pods count as failed or succeeded, and what its status may say (kubernetes/kubernetes,
//! `pkg/apis/batch/validation/validation.go`, `validatePodFailurePolicy`, `validateSuccessPolicy`,
//! `validateJobStatus`).

use serde_json::Value;
use types::{FieldErrors, Path, at};

use super::super::check::*;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

pub(super) fn validate(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(policy) = get(spec, "podFailurePolicy") {
        failure(policy, spec, &path.child("podFailurePolicy"), errors);
    }
    if let Some(policy) = get(spec, "successPolicy") {
        let path = path.child("successPolicy");
        if text(spec, "completionMode") != "Indexed" {
            errors.invalid(&path, policy.clone(), "requires indexed completion mode");
        } else {
            success(policy, int(spec, "completions"), &path, errors);
        }
    }
    let allowed: &[&str] =
        if has(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    one_of(spec, "podReplacementPolicy", path, allowed, errors);
}

fn failure(policy: &Value, spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("rules");
    if count(policy, "rules") > 20 {
        errors.too_many(&path, count(policy, "rules"), 20);
    }
    for (i, rule) in list(policy, "rules").enumerate() {
        let path = path.index(i);
        let action = path.child("action");
        match text(rule, "action") {
            "" => errors.required(&action, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if !has(spec, "backoffLimitPerIndex") => {
                errors.invalid(&action, "FailIndex", "requires the backoffLimitPerIndex to be set");
            }
            other if !ACTIONS.contains(&other) => errors.not_supported(&action, other, ACTIONS),
            _ => {}
        }
        if let Some(codes) = get(rule, "onExitCodes") {
            exit_codes(codes, spec, &path.child("onExitCodes"), errors);
        }
        conditions(rule, &path.child("onPodConditions"), errors);
        match (has(rule, "onExitCodes"), count(rule, "onPodConditions") > 0) {
            (true, true) => errors
                .invalid_unshown(&path, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, false) => {
                errors.invalid_unshown(&path, "specifying one of OnExitCodes and OnPodConditions is required")
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: &Value, spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match text(codes, "operator") {
        "" => errors.required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]"),
        "In" | "NotIn" => {}
        other => errors.not_supported(&path.child("operator"), other, &["In", "NotIn"]),
    }
    if let Some(name) = codes.get("containerName").and_then(Value::as_str) {
        let pod = &spec["template"]["spec"];
        let mut names = list(pod, "containers").chain(list(pod, "initContainers"));
        if !names.any(|c| text(c, "name") == name) {
            let why = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&path.child("containerName"), name, why);
        }
    }
    let path = path.child("values");
    match count(codes, "values") {
        0 => errors.invalid(&path, codes["values"].clone(), "at least one value is required"),
        n if n > 255 => errors.too_many(&path, n, 255),
        _ => {}
    }
    let values: Vec<i64> = list(codes, "values").filter_map(Value::as_i64).collect();
    for (i, value) in values.iter().enumerate() {
        if text(codes, "operator") == "In" && *value == 0 {
            errors.invalid(&path.index(i), 0, "must not be 0 for the In operator");
        }
        if values[..i].contains(value) {
            errors.duplicate(&path.index(i), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&path, codes["values"].clone(), "must be ordered");
    }
}

fn conditions(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(rule, "onPodConditions") > 20 {
        errors.too_many(path, count(rule, "onPodConditions"), 20);
    }
    for (i, pattern) in list(rule, "onPodConditions").enumerate() {
        let path = path.index(i);
        qualified(text(pattern, "type"), &path.child("type"), errors);
        match text(pattern, "status") {
            "" => errors.required(&path.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]"),
            "False" | "True" | "Unknown" => {}
            other => errors.not_supported(&path.child("status"), other, &["False", "True", "Unknown"]),
        }
    }
}

fn success(policy: &Value, completions: i64, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("rules");
    if count(policy, "rules") == 0 {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.required(&path, why);
    }
    if count(policy, "rules") > 20 {
        errors.too_many(&path, count(policy, "rules"), 20);
    }
    for (i, rule) in list(policy, "rules").enumerate() {
        let path = path.index(i);
        let indexes = rule.get("succeededIndexes").and_then(Value::as_str);
        let wanted = rule.get("succeededCount").and_then(Value::as_i64);
        if indexes.is_none() && wanted.is_none() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            errors.required(&path, why);
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            let path = path.child("succeededIndexes");
            if indexes.len() > 64 * 1024 {
                errors.too_long(&path, 64 * 1024);
            }
            match count_indexes(indexes, completions) {
                Ok(n) => total = n,
                Err(why) => {
                    errors.invalid(&path, indexes, &format!("error parsing succeededIndexes: {why}"));
                }
            }
        }
        if let Some(n) = wanted {
            not_negative(rule, "succeededCount", &path, errors);
            let path = path.child("succeededCount");
            if n > completions {
                let why = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                errors.invalid(&path, n, &why);
            }
            if indexes.is_some() && n > total {
                let why = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                errors.invalid(&path, n, &why);
            }
        }
    }
}

/// How many indexes text such as `1,3-5,7` names, or what is wrong with it.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let number = |text: &str| -> Result<i64, String> {
        let n = text
            .parse::<i32>()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if i64::from(n) >= completions {
            return Err(format!("too large index: {text:?}"));
        }
        Ok(n.into())
    };
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last) = (0, None);
    for interval in text.split(',') {
        let parts: Vec<&str> = interval.split('-').collect();
        if parts.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let first = number(parts[0])?;
        let end = match parts.get(1) {
            Some(end) => number(end)?,
            None => first,
        };
        if parts.len() == 2 && first >= end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn holds(object: &Value, kind: &str) -> bool {
    list(&object["status"], "conditions").any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

pub(super) fn validate_status(new: &Value, old: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let (status, before) = (&new["status"], &old["status"]);
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(status, field, path, errors);
    }
    let uncounted = path.child("uncountedTerminatedPods");
    let pods = get(status, "uncountedTerminatedPods");
    let mut seen: Vec<&str> = Vec::new();
    for field in ["succeeded", "failed"] {
        let path = uncounted.child(field);
        for (i, uid) in pods.map(|p| texts(p, field)).into_iter().flatten().enumerate() {
            if uid.is_empty() {
                errors.invalid(&path.index(i), "", "must not be empty");
            } else if seen.contains(&uid) {
                errors.duplicate(&path.index(i), uid);
            }
            seen.push(uid);
        }
    }
    let conditions = path.child("conditions");
    let (complete, failed) = (holds(new, "Complete"), holds(new, "Failed"));
    for (wrong, why) in [
        (complete && failed, "cannot set Complete=True and Failed=true conditions"),
        (
            complete && holds(new, "FailureTarget"),
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            holds(new, "SuccessCriteriaMet") && failed,
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (
            holds(new, "SuccessCriteriaMet") && holds(new, "FailureTarget"),
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            has(&new["spec"], "successPolicy") && complete && !holds(new, "SuccessCriteriaMet"),
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ] {
        if wrong {
            errors.invalid_unshown(&conditions, why);
        }
    }
    if complete && !holds(old, "Complete") && !has(status, "completionTime") {
        let why = "completionTime is required for Complete jobs";
        errors.required(&path.child("completionTime"), why);
    }
    if has(status, "completionTime") && !has(before, "completionTime") && !complete {
        let why = "cannot set completionTime when there is no Complete=True condition";
        errors.invalid(&path.child("completionTime"), status["completionTime"].clone(), why);
    }
    if let (Some(now), Some(was)) = (get(status, "completionTime"), get(before, "completionTime"))
        && now != was
    {
        errors.invalid(&path.child("completionTime"), now.clone(), "completionTime cannot be mutated");
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, kind) && !holds(new, kind) {
            errors
                .invalid_unshown(&conditions, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    if holds(old, "SuccessCriteriaMet") && !holds(new, "SuccessCriteriaMet") {
        errors.invalid_unshown(&conditions, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if let Some(completions) = at(new, &["spec", "completions"]).and_then(Value::as_i64) {
        for field in ["completedIndexes", "failedIndexes"] {
            if let Err(why) = count_indexes(text(status, field), completions)
                && status.get(field) != before.get(field)
            {
                let why = format!("error parsing {field}: {why}");
                errors.invalid(&path.child(field), text(status, field), &why);
            }
        }
    }
}
