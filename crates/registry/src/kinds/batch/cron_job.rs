//! CronJobs (kubernetes/kubernetes, `pkg/apis/batch/validation/validation.go`, `validateCronJobSpec`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, ensure_object, set_default};

use super::super::check::*;
use super::super::pod_spec::{default_text, warnings};
use super::job::{default_job_template, validate_job_spec};
use super::{SPEC, cron, time_zones};
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct CronJob;

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
