use base::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::common::claim::owner_reference;

/// When the run was due, in the schedule's time zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The name that the run of a moment has, so that there is one at most.
pub(super) fn name(cron: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", cron.name_any(), time.as_second().div_euclid(60))
}

/// The job of a run.
pub(super) fn job(cron: &CronJob, time: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let from = template.metadata.unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.into(), text(time, zone));
    let metadata = ObjectMeta {
        name: Some(name(cron, time)),
        namespace: cron.namespace(),
        labels: from.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![owner_reference(cron)]),
        ..ObjectMeta::default()
    };
    Job { metadata, spec: template.spec, status: None }
}

fn text(time: Timestamp, zone: &TimeZone) -> String {
    if *zone == TimeZone::UTC {
        return time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_is_named_after_its_minute() {
        let cron: CronJob = testkit::object(
            json!({"metadata": {"name": "tick", "namespace": "n", "uid": "u"},
            "spec": {"schedule": "", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}}}),
        );
        let time = "2026-07-01T08:00:00Z".parse().unwrap();
        let made = job(&cron, time, &TimeZone::UTC);
        assert_eq!(made.metadata.name.as_deref(), Some("tick-29714880"));
        assert_eq!(made.metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(made.metadata.annotations.as_ref().unwrap()[SCHEDULED], "2026-07-01T08:00:00Z");
        assert_eq!(made.metadata.owner_references.unwrap()[0].kind, "CronJob");
        let berlin = super::super::schedule::time_zone("Europe/Berlin").unwrap();
        assert_eq!(text(time, &berlin), "2026-07-01T10:00:00+02:00");
    }
}
