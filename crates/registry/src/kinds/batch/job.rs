//! Jobs (kubernetes/kubernetes, `pkg/registry/batch/job/strategy.go`, `pkg/apis/batch/validation/validation.go`,
//! `ValidateJob`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{
    FieldErrors, LabelSelector, Path, at, dns_label, ensure_object, set_default,
    validate_domain_prefixed_path,
};

use super::super::check::*;
use super::super::pod_spec::{
    Kind, default_pod_spec, default_text, each, validate_selected, validate_template, warnings,
};
use super::{SPEC, STATUS, job_policies};
use crate::strategy::Strategy;
use crate::table::{self, Column};

/// Fills in the spec of a Job.
fn default_job_spec(spec: &mut Value) {
    if !has(spec, "completions") && !has(spec, "parallelism") {
        spec["completions"] = 1.into();
    }
    set_default(spec, "parallelism", 1);
    default_text(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let limit = if has(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
    set_default(spec, "backoffLimit", limit);
    let policy = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default_text(spec, "podReplacementPolicy", policy);
    default_job_template(spec);
}

/// What is filled in already inside a CronJob's template; the rest is when the Job is made.
pub(super) fn default_job_template(spec: &mut Value) {
    if let Some(conditions) = types::at_mut(spec, &["podFailurePolicy"]) {
        for rule in each(conditions, "rules") {
            for condition in each(rule, "onPodConditions") {
                default_text(condition, "status", "True");
            }
        }
    }
    default_pod_spec(ensure_object(ensure_object(spec, "template"), "spec"));
}

/// What Jobs and the templates of CronJobs have in common.
pub(super) fn validate_job_spec(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(spec, field, path, errors);
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.get("managedBy").and_then(Value::as_str) {
        validate_domain_prefixed_path(manager, &path.child("managedBy"), errors);
        if manager.len() > 63 {
            errors.too_long(&path.child("managedBy"), 63);
        }
    }
    one_of(spec, "completionMode", path, &["NonIndexed", "Indexed"], errors);
    if text(spec, "completionMode") == "Indexed" {
        validate_indexed(spec, path, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if has(spec, field) {
                errors.invalid(&path.child(field), int(spec, field), "requires indexed completion mode");
            }
        }
    }
    job_policies::validate(spec, path, errors);
    let template = path.child("template");
    validate_template(&spec["template"], Kind::default(), &template, errors);
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    let path = template.child("spec");
    let path = path.child("restartPolicy");
    match policy {
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if has(spec, "podFailurePolicy") => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&path, policy, why);
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
}

fn validate_indexed(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let (parallelism, completions) = (int(spec, "parallelism"), int(spec, "completions"));
    let failed = spec.get("maxFailedIndexes").and_then(Value::as_i64);
    if !has(spec, "completions") {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if parallelism > 100_000 {
        let why = "must be less than or equal to 100000 when completion mode is Indexed";
        errors.invalid(&path.child("parallelism"), parallelism, why);
    }
    let failed_path = path.child("maxFailedIndexes");
    if let Some(n) = failed.filter(|n| has(spec, "completions") && *n > completions) {
        errors.invalid(&failed_path, n, "must be less than or equal to completions");
    }
    if let Some(n) = failed.filter(|n| *n > 100_000) {
        errors.invalid(&failed_path, n, "must be less than or equal to 100000");
    }
    if completions > 100_000 && has(spec, "backoffLimitPerIndex") {
        const WHY: &str = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
        if failed.is_none() {
            errors.required(&failed_path, "must be specified when completions is above 100000");
        }
        if parallelism > 10_000 {
            errors.invalid(&path.child("parallelism"), parallelism, WHY);
        }
        if let Some(n) = failed.filter(|n| *n > 10_000) {
            errors.invalid(&failed_path, n, WHY);
        }
    }
}

pub(in super::super) struct Job;

const OWN_LABELS: [(&str, &str); 4] = [
    ("controller-uid", "uid"),
    ("job-name", "name"),
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
];

impl Job {
    /// The labels by which a job's pods are told apart must be there.
    fn validate_own_selector(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        if flag(spec, "manualSelector") || !has(spec, "selector") {
            return;
        }
        let meta = &object["metadata"];
        let path = SPEC.child("template");
        let path = path.child("metadata");
        let path = path.child("labels");
        let labels = at(spec, &["template", "metadata", "labels"]);
        for (label, field) in OWN_LABELS {
            let wanted = text(meta, field);
            let why = format!("must be '{wanted}'");
            match labels.and_then(|l| l.get(label)).and_then(Value::as_str) {
                None => errors.required(&path.key(label), &why),
                Some(given) if given != wanted => {
                    errors.invalid(&path.key(label), labels.cloned().unwrap_or_default(), &why);
                }
                Some(_) => {}
            }
        }
        let own = |key: &str| {
            OWN_LABELS.iter().find(|(label, _)| *label == key).map(|(_, field)| text(meta, field))
        };
        if LabelSelector::from_object(get(spec, "selector")).is_ok_and(|s| !s.matches(own)) {
            let why = "`selector` not auto-generated";
            errors.invalid(&SPEC.child("selector"), spec["selector"].clone(), why);
        }
    }

    fn validate_spec(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        validate_job_spec(spec, &SPEC, errors);
        match get(spec, "selector") {
            None => errors.required(&SPEC.child("selector"), ""),
            Some(selector) => label_selector(Some(selector), &SPEC.child("selector"), errors),
        }
        if let Ok(selector) = LabelSelector::from_object(get(spec, "selector")) {
            validate_selected(&selector, &spec["template"], &SPEC.child("template"), errors);
        }
    }
}

impl Strategy for Job {
    fn default(&self, object: &mut Value) {
        default_job_spec(ensure_object(object, "spec"));
        let labelled = count(&object["metadata"], "labels") > 0;
        if let Some(labels) =
            at(object, &["spec", "template", "metadata", "labels"]).filter(|_| !labelled).cloned()
        {
            ensure_object(object, "metadata")["labels"] = labels;
        }
    }

    /// Pods of a job are told apart by the job's own UID, unless the user takes that on.
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
        if object["spec"]["manualSelector"] == true {
            return;
        }
        let (uid, name) = (object["metadata"]["uid"].clone(), object["metadata"]["name"].clone());
        let labels = ensure_object(ensure_object(&mut object["spec"]["template"], "metadata"), "labels");
        for prefix in ["", "batch.kubernetes.io/"] {
            set_default(labels, &format!("{prefix}job-name"), name.clone());
            set_default(labels, &format!("{prefix}controller-uid"), uid.clone());
        }
        let selector = ensure_object(&mut object["spec"], "selector");
        set_default(ensure_object(selector, "matchLabels"), "batch.kubernetes.io/controller-uid", uid);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        self.validate_own_selector(object, errors);
        self.validate_spec(object, errors);
        let (name, completions) = (text(&object["metadata"], "name"), int(&object["spec"], "completions"));
        if text(&object["spec"], "completionMode") == "Indexed" && completions > 0 {
            let host = format!("{name}-{}", completions - 1);
            if dns_label(&host).is_some() {
                let why = format!("will not able to create pod with invalid DNS label: {host}");
                errors.invalid(&Path::new("metadata").child("name"), name, &why);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_spec(new, errors);
        let (spec, before) = (&new["spec"], &old["spec"]);
        let path = SPEC.child("completions");
        if text(spec, "completionMode") != "Indexed" {
            immutable(spec, before, "completions", &SPEC, errors);
        } else if has(spec, "completions")
            && spec["completions"] != before["completions"]
            && spec["completions"] != spec["parallelism"]
        {
            let why = "can only be modified in tandem with spec.parallelism";
            errors.invalid(&path, spec["completions"].clone(), why);
        }
        immutable(spec, before, "selector", &SPEC, errors);
        // A suspended job that has not begun may still be sent elsewhere.
        let free = flag(before, "suspend") && !has(&old["status"], "startTime");
        if template_changes(&spec["template"], &before["template"], free) {
            errors.invalid(&SPEC.child("template"), spec["template"].clone(), IMMUTABLE);
        }
        for field in
            ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            immutable(spec, before, field, &SPEC, errors);
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        job_policies::validate_status(new, old, &STATUS, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let spec = &object["spec"];
        if text(spec, "completionMode") == "Indexed"
            && int(spec, "completions") > 100_000
            && int(spec, "parallelism") > 10_000
        {
            found.push("In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".into());
        }
        found.extend(warnings::template(&spec["template"], &SPEC.child("template")));
        found
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn field(&self, object: &Value, _name: &str) -> String {
        object["status"]["succeeded"].as_i64().unwrap_or(0).to_string()
    }

    fn columns(&self) -> &'static [Column] {
        table::JOB
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::job_cells(object, now)
    }
}

/// Whether a template changes, its scheduling apart if that is free.
fn template_changes(new: &Value, old: &Value, free: bool) -> bool {
    const METADATA: &[&str] = &["annotations", "labels"];
    const SCHEDULING: &[&str] = &["nodeSelector", "tolerations", "schedulingGates"];
    let names = |a: &Value, b: &Value| -> Vec<String> {
        a.as_object().into_iter().chain(b.as_object()).flat_map(|m| m.keys().cloned()).collect()
    };
    let differ = |a: &Value, b: &Value, left_out: &[&str]| {
        names(a, b).iter().any(|f| !left_out.contains(&f.as_str()) && !same_field(a, b, f))
    };
    if !free {
        return !same(Some(new), Some(old));
    }
    differ(&new["metadata"], &old["metadata"], METADATA)
        || names(&new["spec"], &old["spec"]).iter().any(|field| match field.as_str() {
            "affinity" => differ(&new["spec"]["affinity"], &old["spec"]["affinity"], &["nodeAffinity"]),
            field => !SCHEDULING.contains(&field) && !same_field(&new["spec"], &old["spec"], field),
        })
}
