//! What a cron job knows of its jobs.

use std::sync::Arc;

use client::is_deleting;
use k8s_openapi::api::batch::v1::{CronJobSpec, CronJobStatus, Job};
use kube::ResourceExt;

use crate::job::ending;

pub(super) fn is_active(status: &CronJobStatus, job: &Job) -> bool {
    status.active.iter().flatten().any(|active| active.uid == job.metadata.uid)
}

pub(super) fn remove(status: &mut CronJobStatus, job: &Job) {
    remove_uid(status, job.metadata.uid.as_deref());
}

pub(super) fn remove_uid(status: &mut CronJobStatus, uid: Option<&str>) {
    if let Some(active) = &mut status.active {
        active.retain(|job| job.uid.as_deref() != uid);
    }
}

/// When the last success was.
pub(super) fn note_success(status: &mut CronJobStatus, job: &Job) {
    let end = ending(job).filter(|end| end.type_ == "Complete");
    let Some(time) = end.and_then(|_| job.status.as_ref()?.completion_time.clone()) else { return };
    if status.last_successful_time.as_ref().is_none_or(|last| last.0 < time.0) {
        status.last_successful_time = Some(time);
    }
}

/// The oldest of the jobs that are over, beyond those that are kept of each sort.
pub(super) fn too_many(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits =
        [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
    let mut going = Vec::new();
    for (end, limit) in limits {
        let Some(keep) = limit else { continue };
        let ended =
            |job: &&Arc<Job>| ending(job).is_some_and(|c| c.type_ == end) && !is_deleting(&job.metadata);
        let mut over: Vec<Arc<Job>> = jobs.iter().filter(ended).cloned().collect();
        over.sort_by_cached_key(|job| {
            let start = job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
            // What never began comes last.
            (start.is_none(), start, job.name_any())
        });
        over.truncate(over.len().saturating_sub(keep.max(0).unsigned_abs() as usize));
        going.extend(over);
    }
    going
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_oldest_of_each_sort_go() {
        let job = |name: &str, end: &str, hour: u32| -> Arc<Job> {
            Arc::new(testkit::object(json!({"metadata": {"name": name},
                "status": {"startTime": format!("2026-01-01T{hour:02}:00:00Z"),
                    "conditions": [{"type": end, "status": "True"}]}})))
        };
        let jobs = [
            job("new", "Complete", 9),
            job("old", "Complete", 1),
            job("lost", "Failed", 2),
            job("open", "Suspended", 0),
            job("older", "Complete", 0),
        ];
        let names = |ok: Option<i32>, failed: Option<i32>| -> Vec<String> {
            let spec = CronJobSpec {
                successful_jobs_history_limit: ok,
                failed_jobs_history_limit: failed,
                ..CronJobSpec::default()
            };
            too_many(&spec, &jobs).iter().map(|job| job.name_any()).collect()
        };
        assert_eq!(names(Some(1), Some(1)), ["older", "old"]);
        assert_eq!(names(Some(2), Some(0)), ["older", "lost"]);
        assert!(names(None, None).is_empty());
    }
}
