//! Schedules of CronJobs as `robfig/cron/v3`, `ParseStandard`, reads them, and its words for what it cannot read.

mod parse;

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Why a text is no schedule, in the library's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum CronError {
    #[error("empty spec string")]
    Empty,
    #[error("provided bad location {0}: unknown time zone {0}")]
    Zone(String),
    #[error("expected exactly 5 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    Fields(Vec<String>),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {text}: time: invalid duration {duration:?}")]
    Duration { text: String, duration: String },
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("beginning of range ({start}) below minimum ({least}): {part}")]
    Below { start: u32, least: u32, part: String },
    #[error("end of range ({end}) above maximum ({most}): {part}")]
    Above { end: u32, most: u32, part: String },
    #[error("beginning of range ({start}) beyond end of range ({end}): {part}")]
    Backwards { start: u32, end: u32, part: String },
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    #[error("negative number ({number}) not allowed: {text}")]
    Negative { number: i64, text: String },
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
}

/// Points in time that come again.
#[derive(Clone, Debug, PartialEq)]
pub struct CronSchedule {
    zone: TimeZone,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Every(Duration),
    /// Minute, hour, day of the month, month, day of the week.
    Fields([Field; 5]),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Whether everything is allowed, which matters where two fields speak of days.
    star: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1 << value) != 0)
    }
}

impl CronSchedule {
    /// A schedule in this time zone, unless it names one itself: that is what `named` knows.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(
        text: &str,
        zone: TimeZone,
        named: impl FnOnce(&str) -> Option<TimeZone>,
    ) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError::Empty);
        }
        if let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let zone = named(name).ok_or_else(|| CronError::Zone(name.to_owned()))?;
            return Ok(Self { zone, rule: parse::rule(rest.trim())? });
        }
        Ok(Self { zone, rule: parse::rule(text)? })
    }

    /// The first moment after this one, if there is one in the next five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let fields = match &self.rule {
            Rule::Every(delay) => {
                return Timestamp::from_second(after.as_second()).ok()?.checked_add(*delay).ok();
            }
            Rule::Fields(fields) => fields,
        };
        let [minutes, hours, _, months, _] = fields;
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at = Timestamp::from_second(minute * 60).ok()?;
        let last = at.to_zoned(self.zone.clone()).year().saturating_add(5);
        loop {
            let local = at.to_zoned(self.zone.clone());
            if local.year() > last {
                return None;
            }
            if !months.has(local.month()) {
                let next = local.date().last_of_month().tomorrow().ok()?;
                at = self.begin_of(next)?;
            } else if !is_day(fields, local.date()) {
                at = self.begin_of(local.date().tomorrow().ok()?)?;
            } else if hours.has(local.hour()) && minutes.has(local.minute()) {
                return Some(at);
            } else {
                // Clocks are set forward and back between minutes, not only between hours.
                at = at.checked_add(Duration::from_secs(60)).ok()?;
            }
        }
    }

    fn begin_of(&self, day: Date) -> Option<Timestamp> {
        Some(day.to_zoned(self.zone.clone()).ok()?.start_of_day().ok()?.timestamp())
    }
}

/// Where the day of the month and that of the week are both given, one of them is enough.
fn is_day([_, _, month, _, week]: &[Field; 5], date: Date) -> bool {
    let of_month = month.has(date.day());
    let of_week = week.has(date.weekday().to_sunday_zero_offset());
    if month.star || week.star { of_month && of_week } else { of_month || of_week }
}

#[cfg(test)]
mod tests;
