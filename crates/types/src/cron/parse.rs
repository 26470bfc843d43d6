//! From text to rules.

use std::time::Duration;

use super::{CronError, Field, Rule};

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Least and most of a field, and the names that stand for numbers from the least on.
type Bounds = (u32, u32, &'static [&'static str]);

const FIELDS: [Bounds; 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];

pub(super) fn rule(text: &str) -> Result<Rule, CronError> {
    let text = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    if let Some(every) = text.strip_prefix("@every ") {
        let bad = || CronError::Duration { text: text.to_owned(), duration: every.to_owned() };
        return duration(every).map(Rule::Every).ok_or_else(bad);
    }
    if text.starts_with('@') {
        return Err(CronError::Descriptor(text.to_owned()));
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    let Ok(parts) = <[&str; 5]>::try_from(parts.as_slice()) else {
        return Err(CronError::Fields(parts.into_iter().map(str::to_owned).collect()));
    };
    let mut fields = [Field::default(); 5];
    for ((field, text), bounds) in fields.iter_mut().zip(parts).zip(FIELDS) {
        // Empty parts count for nothing, as with Go's FieldsFunc.
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let range = range(part, bounds)?;
            field.bits |= range.bits;
            field.star |= range.star;
        }
    }
    Ok(Rule::Fields(fields))
}

fn range(text: &str, (least, most, names): Bounds) -> Result<Field, CronError> {
    let part = || text.to_owned();
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        named.map_or_else(|| plain_number(text), |at| Ok(least + at as u32))
    };
    let (ends, step) = match *text.split('/').collect::<Vec<_>>() {
        [ends] => (ends, None),
        [ends, step] => (ends, Some(step)),
        _ => return Err(CronError::Slashes(part())),
    };
    let ends: Vec<&str> = ends.split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (start, mut end) = match *ends {
        _ if star => (least, most),
        [one] => (number(one)?, number(one)?),
        [first, last] => (number(first)?, number(last)?),
        _ => return Err(CronError::Hyphens(part())),
    };
    let step = match step {
        None => 1,
        Some(step) => {
            let step = plain_number(step)?;
            // A single number with a step goes on to the end.
            if ends.len() == 1 {
                end = most;
            }
            step
        }
    };
    if start < least {
        return Err(CronError::Below { start, least, part: part() });
    }
    if end > most {
        return Err(CronError::Above { end, most, part: part() });
    }
    if start > end {
        return Err(CronError::Backwards { start, end, part: part() });
    }
    if step == 0 {
        return Err(CronError::Step(part()));
    }
    let bits = (start..=end).step_by(step as usize).fold(0, |bits, value| bits | 1 << value);
    Ok(Field { bits, star: star && step == 1 })
}

fn plain_number(text: &str) -> Result<u32, CronError> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(CronError::Negative { number, text: text.to_owned() }),
        Ok(number) => u32::try_from(number).map_err(|_| CronError::Number(text.to_owned())),
        Err(_) => Err(CronError::Number(text.to_owned())),
    }
}

/// A duration as Go writes it, such as `1h30m` or `1.5s`: in whole seconds and at least one.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut total = 0.0;
    if rest == "0" {
        return Some(Duration::from_secs(1));
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let fits = |unit: &str| after.strip_prefix(unit).is_some_and(|r| !r.starts_with(char::is_alphabetic));
        let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| fits(unit))?;
        total += number.parse::<f64>().ok()? * seconds;
        rest = &after[unit.len()..];
    }
    let seconds = if text.starts_with('-') { 0 } else { Duration::try_from_secs_f64(total).ok()?.as_secs() };
    Some(Duration::from_secs(seconds.max(1)))
}
