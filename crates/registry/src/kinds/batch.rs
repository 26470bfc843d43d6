//! Jobs and CronJobs (kubernetes/kubernetes, `pkg/registry/batch/job/strategy.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, ensure_object, set_default, str_at};

use super::container::{not_negative, one_of};
use super::pod_spec::validate_template;
use super::workload::default_job_spec;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct Job;

impl Strategy for Job {
    fn default(&self, object: &mut Value) {
        default_job_spec(ensure_object(object, "spec"));
        if let Some(labels) = at(object, &["spec", "template", "metadata", "labels"]).cloned() {
            set_default(ensure_object(object, "metadata"), "labels", labels);
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
        let spec = &object["spec"];
        for field in
            ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
        {
            not_negative(spec, field, &SPEC, errors);
        }
        one_of(spec, "completionMode", &SPEC, &["Indexed", "NonIndexed"], errors);
        let policy = str_at(spec, &["template", "spec", "restartPolicy"]);
        if policy == Some("Always") {
            let template = SPEC.child("template");
            let pod = template.child("spec");
            errors.required(&pod.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
        }
        validate_template(spec, &["Always", "OnFailure", "Never"], errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        for field in ["selector", "completionMode", "template"] {
            // A suspended job's template may still change; so may a job's that has not started.
            if field == "template" && old["spec"]["suspend"] == true {
                continue;
            }
            if new["spec"][field] != old["spec"][field] {
                errors.immutable(&SPEC.child(field), &new["spec"][field]);
            }
        }
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

pub(super) struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "concurrencyPolicy", "Allow");
        set_default(spec, "suspend", false);
        set_default(spec, "successfulJobsHistoryLimit", 3);
        set_default(spec, "failedJobsHistoryLimit", 1);
        default_job_spec(ensure_object(ensure_object(spec, "jobTemplate"), "spec"));
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        match str_at(spec, &["schedule"]) {
            None => errors.required(&SPEC.child("schedule"), ""),
            Some(schedule) => {
                let fields = schedule.split_whitespace().count();
                if !schedule.starts_with('@') && fields != 5 {
                    let fault = format!("expected exactly 5 fields, found {fields}: [{schedule}]");
                    errors.invalid(&SPEC.child("schedule"), schedule, &fault);
                }
            }
        }
        one_of(spec, "concurrencyPolicy", &SPEC, &["Allow", "Forbid", "Replace"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::CRON_JOB
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::cron_job_cells(object, now)
    }
}
