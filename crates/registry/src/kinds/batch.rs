//! Jobs and CronJobs (kubernetes/kubernetes, `pkg/registry/batch/job/strategy.go`,
//! `pkg/apis/batch/validation/validation.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{
    FieldErrors, LabelSelector, Path, at, dns_label, ensure_object, set_default,
    validate_domain_prefixed_path,
};

use super::check::*;
use super::pod_spec::{
    Kind, default_pod_spec, default_text, each, validate_selected, validate_template, warnings,
};
use super::{cron, job_policies, time_zones};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

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
fn default_job_template(spec: &mut Value) {
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
fn validate_job_spec(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
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

pub(super) struct Job;

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

pub(super) struct CronJob;

impl CronJob {
    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let before = old.map(|o| &o["spec"]);
        let path = SPEC.child("schedule");
        match text(spec, "schedule") {
            "" => errors.required(&path, ""),
            schedule => {
                faults(cron::schedule_fault(schedule), schedule, &path, errors);
                let allowed = before.is_some_and(|b| text(b, "schedule").contains("TZ"));
                if schedule.contains("TZ") && allowed && has(spec, "timeZone") {
                    let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
                    errors.invalid(&path, schedule, why);
                } else if schedule.contains("TZ") && !allowed {
                    let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                    errors.invalid(&path, schedule, why);
                }
            }
        }
        not_negative(spec, "startingDeadlineSeconds", &SPEC, errors);
        if before.is_none_or(|b| b.get("timeZone") != spec.get("timeZone")) {
            validate_time_zone(spec, errors);
        }
        required_one_of(spec, "concurrencyPolicy", &SPEC, &["Allow", "Forbid", "Replace"], errors);
        let path = SPEC.child("jobTemplate");
        let path = path.child("spec");
        let job = &spec["jobTemplate"]["spec"];
        validate_job_spec(job, &path, errors);
        if has(job, "selector") {
            let why = "`selector` will be auto-generated";
            errors.invalid(&path.child("selector"), job["selector"].clone(), why);
        }
        if flag(job, "manualSelector") {
            errors.not_supported(&path.child("manualSelector"), true, &["nil", "false"]);
        }
        not_negative(spec, "successfulJobsHistoryLimit", &SPEC, errors);
        not_negative(spec, "failedJobsHistoryLimit", &SPEC, errors);
    }
}

fn validate_time_zone(spec: &Value, errors: &mut FieldErrors) {
    let Some(zone) = spec.get("timeZone").and_then(Value::as_str) else { return };
    let path = SPEC.child("timeZone");
    if zone.is_empty() {
        return errors.invalid(&path, "", "timeZone must be nil or non-empty string");
    }
    let unknown = format!("unknown time zone {zone}");
    let odd = |part: &str| {
        matches!(part, "." | "..")
            || part.starts_with('-')
            || !(1..=14).contains(&part.len())
            || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if zone.split('/').any(odd) {
        return errors.invalid(&path, zone, &unknown);
    }
    if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(&path, zone, why);
    }
    if !time_zones::is_time_zone(zone) && zone != "Local" {
        errors.invalid(&path, zone, &unknown);
    }
}

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        default_text(spec, "concurrencyPolicy", "Allow");
        set_default(spec, "suspend", false);
        set_default(spec, "successfulJobsHistoryLimit", 3);
        set_default(spec, "failedJobsHistoryLimit", 1);
        default_job_template(ensure_object(ensure_object(spec, "jobTemplate"), "spec"));
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        self.validate(object, None, errors);
        let name = text(&object["metadata"], "name");
        if name.len() > 52 {
            let why = "must be no more than 52 characters";
            errors.invalid(&Path::new("metadata").child("name"), name, why);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate(new, Some(old), errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let spec = &object["spec"];
        let mut found = Vec::new();
        if has(spec, "timeZone") && text(spec, "schedule").contains("TZ") {
            found.push("cannot use both timeZone field and TZ or CRON_TZ in schedule".to_owned());
        }
        let path = SPEC.child("jobTemplate");
        let path = path.child("spec");
        found.extend(warnings::template(&spec["jobTemplate"]["spec"]["template"], &path.child("template")));
        found
    }

    fn columns(&self) -> &'static [Column] {
        table::CRON_JOB
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::cron_job_cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(strategy: &dyn Strategy, spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "a", "uid": "u"}, "spec": spec});
        strategy.default(&mut object);
        strategy.prepare_create(&mut object);
        let mut errors = FieldErrors::new();
        strategy.validate_create(&object, &mut errors);
        errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    fn job(more: Value) -> Value {
        let mut spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
        for (k, v) in more.as_object().into_iter().flatten() {
            spec[k] = v.clone();
        }
        spec
    }

    #[test]
    fn jobs() {
        for (more, want) in [
            (json!({}), vec![]),
            (
                json!({"parallelism": -1}),
                vec!["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"completionMode": "Odd"}),
                vec![
                    "spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\"",
                ],
            ),
            (
                json!({"completionMode": "Indexed", "parallelism": 2}),
                vec!["spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                json!({"backoffLimitPerIndex": 1}),
                vec!["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
            ),
            (
                json!({"maxFailedIndexes": 1, "completionMode": "Indexed", "completions": 3}),
                vec!["spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"],
            ),
            (
                json!({"managedBy": "me"}),
                vec![
                    "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
            (
                json!({"successPolicy": {"rules": []}}),
                vec!["spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode"],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [{"succeededIndexes": "0-5"}]}}),
                vec![
                    "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-5\": error parsing succeededIndexes: too large index: \"5\"",
                ],
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "Ignore"}]}}),
                vec![
                    "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                ],
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0, 0]}}]}}),
                vec![
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Duplicate value: 0",
                ],
            ),
        ] {
            assert_eq!(refused(&Job, job(more.clone())), want, "{more}");
        }
        let mut always = job(json!({}));
        always["template"]["spec"]["restartPolicy"] = "Always".into();
        assert_eq!(
            refused(&Job, always),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
    }

    #[test]
    fn a_suspended_job_may_go_elsewhere() {
        let made = |suspend: bool| {
            let mut job =
                json!({"metadata": {"name": "a", "uid": "u"}, "spec": job(json!({"suspend": suspend}))});
            Job.default(&mut job);
            Job.prepare_create(&mut job);
            job
        };
        for (suspend, field, value, fine) in [
            (true, "nodeSelector", json!({"a": "b"}), true),
            (true, "priority", json!(1), false),
            (false, "nodeSelector", json!({"a": "b"}), false),
        ] {
            let (old, mut new) = (made(suspend), made(suspend));
            new["spec"]["template"]["spec"][field] = value;
            let mut errors = FieldErrors::new();
            Job.validate_update(&new, &old, &mut errors);
            assert_eq!(errors.is_empty(), fine, "{suspend} {field}: {errors}");
        }
    }

    #[test]
    fn cron_jobs() {
        let cron = |more: Value| {
            let mut spec = json!({"schedule": "* * * * *", "jobTemplate": {"spec": job(json!({}))}});
            for (k, v) in more.as_object().into_iter().flatten() {
                spec[k] = v.clone();
            }
            refused(&CronJob, spec)
        };
        for (more, want) in [
            (json!({}), vec![]),
            (json!({"timeZone": "Europe/Berlin"}), vec![]),
            (
                json!({"timeZone": "Europe/Atlantis"}),
                vec!["spec.timeZone: Invalid value: \"Europe/Atlantis\": unknown time zone Europe/Atlantis"],
            ),
            (
                json!({"timeZone": ""}),
                vec!["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
            ),
            (
                json!({"schedule": "* * *"}),
                vec!["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"],
            ),
            (
                json!({"schedule": "TZ=UTC * * * * *"}),
                vec![
                    "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            (
                json!({"concurrencyPolicy": "Odd"}),
                vec![
                    "spec.concurrencyPolicy: Unsupported value: \"Odd\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
            (
                json!({"startingDeadlineSeconds": -1}),
                vec!["spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ] {
            assert_eq!(cron(more.clone()), want, "{more}");
        }
    }
}
