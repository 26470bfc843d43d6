//! Schedules of CronJobs as `robfig/cron/v3`, `ParseStandard`, reads them, and its words for what it cannot read.

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Least and most of each field, and the names that stand for numbers from the least on.
const FIELDS: [(u32, u32, &[&str]); 5] =
    [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];

/// Why `schedule` is none, if it is none.
pub(super) fn schedule_fault(schedule: &str) -> Option<String> {
    let mut rest = schedule;
    if rest.is_empty() {
        return Some("empty spec string".into());
    }
    if let Some(zone) = rest.strip_prefix("TZ=").or_else(|| rest.strip_prefix("CRON_TZ=")) {
        let (zone, after) = zone.split_once(' ').unwrap_or((zone, ""));
        if !matches!(zone, "" | "Local") && !super::time_zones::is_time_zone(zone) {
            return Some(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        rest = after.trim();
    }
    if rest.starts_with('@') {
        return descriptor_fault(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(FIELDS).find_map(|(field, bounds)| {
        // Empty parts count for nothing, as with Go's FieldsFunc.
        field.split(',').filter(|part| !part.is_empty()).find_map(|part| range_fault(part, bounds))
    })
}

fn descriptor_fault(text: &str) -> Option<String> {
    match text {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => None,
        _ => match text.strip_prefix("@every ") {
            Some(duration) if is_duration(duration) => None,
            Some(duration) => {
                Some(format!("failed to parse duration {text}: time: invalid duration {duration:?}"))
            }
            None => Some(format!("unrecognized descriptor: {text}")),
        },
    }
}

/// Whether it is a duration to Go, such as `1h30m` or `1.5s`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut some = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let good = number.bytes().any(|b| b.is_ascii_digit()) && number.matches('.').count() <= 1;
        let unit = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"]
            .iter()
            .find(|u| after.strip_prefix(**u).is_some_and(|r| !r.starts_with(|c: char| c.is_alphabetic())));
        let (true, Some(unit)) = (good, unit) else { return false };
        rest = &after[unit.len()..];
        some = true;
    }
    some
}

fn range_fault(text: &str, (least, most, names): (u32, u32, &[&str])) -> Option<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let number = |text: &str| -> Result<u32, String> {
        if let Some(at) = names.iter().position(|n| n.eq_ignore_ascii_case(text)) {
            return Ok(least + at as u32);
        }
        plain_number(text)
    };
    let outcome = (|| -> Result<Option<String>, String> {
        let (start, mut end) = if matches!(ends[0], "*" | "?") {
            (least, most)
        } else {
            let start = number(ends[0])?;
            match ends.len() {
                1 => (start, start),
                2 => (start, number(ends[1])?),
                _ => return Err(format!("too many hyphens: {text}")),
            }
        };
        let step = match parts.len() {
            1 => 1,
            2 => {
                let step = plain_number(parts[1])?;
                // A single number with a step goes on to the end.
                if ends.len() == 1 {
                    end = most;
                }
                step
            }
            _ => return Err(format!("too many slashes: {text}")),
        };
        if start < least {
            return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
        }
        if end > most {
            return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {text}"));
        }
        Ok(None)
    })();
    outcome.unwrap_or_else(Some)
}

fn plain_number(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) if n <= i64::from(u32::MAX) => Ok(n as u32),
        _ => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan-Mar MON",
            "5/15 * * * ?",
            "@hourly",
            "@every 1h30m",
            "@every 1.5s",
            "TZ=UTC * * * * *",
            "0 0 1 1 0",
        ] {
            assert_eq!(schedule_fault(good), None, "{good}");
        }
        for (bad, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("TZ=Nowhere * * * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
        ] {
            assert_eq!(schedule_fault(bad).as_deref(), Some(why), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(TZ=)?[@*/, 0-9a-zA-Z?-]{0,30}", other in "\\PC{0,30}") {
            let _ = (schedule_fault(&text), schedule_fault(&other));
        }
    }
}
