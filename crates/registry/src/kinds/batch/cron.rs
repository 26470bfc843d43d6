//! What is wrong with the schedules of CronJobs.

use jiff::tz::TimeZone;
use types::CronSchedule;

use super::time_zones::is_time_zone;

/// Why `schedule` is none, if it is none. Which zones there are matters here, not what time it is in them.
pub(super) fn schedule_fault(schedule: &str) -> Option<String> {
    let named = |zone: &str| (matches!(zone, "" | "Local") || is_time_zone(zone)).then_some(TimeZone::UTC);
    CronSchedule::parse(schedule, TimeZone::UTC, named).err().map(|fault| fault.to_string())
}
