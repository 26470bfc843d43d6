//! Jobs and CronJobs (kubernetes/kubernetes, `pkg/registry/batch/job/strategy.go`,
//! `pkg/apis/batch/validation/validation.go`).

mod cron;
mod cron_job;
mod job;
mod job_policies;
mod time_zones;

use types::Path;

pub(super) use cron_job::CronJob;
pub(super) use job::Job;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

#[cfg(test)]
mod tests;
