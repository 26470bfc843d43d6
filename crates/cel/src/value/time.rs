//! Points and spans of time. Ours rather than a library's because CEL's years run from 1 to 9999 to the last
//! nanosecond; only the offsets of named time zones come from `jiff`.

use std::fmt;

use crate::error::{EvalError, Outcome, fail};

const NANOS: i128 = 1_000_000_000;
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// A point in time, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub i64);

/// A point in time as a calendar and a clock on some wall show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub nanos: u32,
    /// Days since Sunday.
    pub weekday: i64,
    /// Days since January 1st.
    pub year_day: i64,
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Timestamp {
    /// So many seconds and nanoseconds after 1970 began, if that is in the years 1 to 9999.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        (FIRST..=LAST).contains(&seconds).then_some(Self { seconds, nanos: nanos.min(999_999_999) })
    }

    /// Seconds since 1970 began.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds beyond the second.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    fn total(self) -> i128 {
        i128::from(self.seconds) * NANOS + i128::from(self.nanos)
    }

    fn from_total(total: i128) -> Option<Self> {
        Self::new(i64::try_from(total.div_euclid(NANOS)).ok()?, total.rem_euclid(NANOS) as u32)
    }

    pub(crate) fn add(self, by: Duration) -> Outcome<Self> {
        let sum = Self::from_total(self.total() + i128::from(by.0));
        sum.ok_or_else(|| EvalError::failed("timestamp overflow"))
    }

    pub(crate) fn since(self, earlier: Self) -> Outcome<Duration> {
        let nanos = i64::try_from(self.total() - earlier.total());
        nanos.map(Duration).map_err(|_| EvalError::failed("duration overflow"))
    }

    /// Parses RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let part = b.get(from..to)?;
            part.iter()
                .all(u8::is_ascii_digit)
                .then(|| part.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
        };
        let is = |at: usize, c: u8| b.get(at) == Some(&c);
        if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let right = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if !right {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0u32;
        if is(at, b'.') || is(at, b',') {
            let digits = b[at + 1..].iter().take_while(|d| d.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for i in 0..9 {
                let digit = if i < digits { b[at + 1 + i] - b'0' } else { 0 };
                nanos = nanos * 10 + u32::from(digit);
            }
            at += 1 + digits;
        }
        let offset = match b.get(at)? {
            b'Z' if b.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == at + 6 && is(at + 3, b':') => {
                let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Self::new(seconds, nanos)
    }

    /// Parses a day, which begins at midnight in UTC.
    pub(crate) fn parse_date(text: &str) -> Option<Self> {
        (text.len() == 10).then(|| Self::parse(&format!("{text}T00:00:00Z")))?
    }

    /// What calendar and clock show in a time zone: a name of the IANA's, `UTC`, or `+01:00`.
    pub(crate) fn civil(self, zone: Option<&str>) -> Outcome<Civil> {
        let local = self.seconds + zone.map_or(Ok(0), |zone| self.offset(zone))?;
        let days = local.div_euclid(86_400);
        let rest = local.rem_euclid(86_400);
        let (year, month, day) = civil_from_days(days);
        Ok(Civil {
            year,
            month,
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            nanos: self.nanos,
            weekday: (days + 4).rem_euclid(7),
            year_day: days - days_from_civil(year, 1, 1),
        })
    }

    /// Seconds east of UTC (cel-go, `common/types/timestamp.go`, `timeZone`).
    fn offset(self, zone: &str) -> Outcome<i64> {
        let unknown = || EvalError::failed(format!("unknown time zone {zone}"));
        if matches!(zone, "" | "UTC") {
            return Ok(0);
        }
        if let Some((hours, minutes)) = zone.split_once(':') {
            let fault =
                |part: &str| EvalError::failed(format!("strconv.Atoi: parsing {part:?}: invalid syntax"));
            let h: i64 = hours.parse().map_err(|_| fault(hours))?;
            let m: i64 = minutes.parse().map_err(|_| fault(minutes))?;
            if h.abs() > 23 || !(0..60).contains(&m) {
                return Err(unknown());
            }
            return Ok(h * 3600 + if hours.starts_with('-') { -m } else { m } * 60);
        }
        if zone.starts_with('/') || zone.contains("..") || zone.contains('\\') {
            return Err(unknown());
        }
        let tz = jiff::tz::TimeZone::get(zone).map_err(|_| unknown())?;
        let (least, most) = (jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
        let at = jiff::Timestamp::from_second(self.seconds.clamp(least, most)).map_err(|_| unknown())?;
        Ok(tz.to_offset(at).seconds().into())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(c) = self.civil(None) else { return Err(fmt::Error) };
        write!(f, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second)?;
        fraction(f, u64::from(c.nanos), 9)?;
        f.write_str("Z")
    }
}

/// A dot and the digits that are not trailing zeros.
fn fraction(f: &mut fmt::Formatter<'_>, value: u64, digits: usize) -> fmt::Result {
    if value == 0 {
        return Ok(());
    }
    let text = format!("{value:0digits$}");
    write!(f, ".{}", text.trim_end_matches('0'))
}

impl Duration {
    /// Parses what Go's `time.ParseDuration` does: `1h30m`, `-1.5s`, `10ms`.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(Self(0));
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let whole_len = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (whole, after) = rest.split_at(whole_len);
            let (part, after) = match after.strip_prefix('.') {
                Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
                None => ("", after),
            };
            if whole.is_empty() && part.is_empty() {
                return None;
            }
            let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let unit: i128 = match &after[..unit_len] {
                "ns" => 1,
                "us" | "µs" | "μs" => 1000,
                "ms" => 1_000_000,
                "s" => NANOS,
                "m" => 60 * NANOS,
                "h" => 3600 * NANOS,
                _ => return None,
            };
            let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
            total = total.checked_add(whole.checked_mul(unit)?)?;
            let mut scale = unit;
            for digit in part.bytes() {
                if scale == 0 {
                    break;
                }
                // Digits weigh a tenth of the one before; what is finer than a nanosecond is dropped.
                total += i128::from(digit - b'0') * scale / 10;
                scale /= 10;
            }
            rest = &after[unit_len..];
        }
        i64::try_from(if negative { -total } else { total }).ok().map(Self)
    }

    /// Whole seconds as text, as CEL's `string()` shows a duration.
    pub(crate) fn seconds_text(self) -> String {
        struct Seconds(i64);
        impl fmt::Display for Seconds {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let magnitude = self.0.unsigned_abs();
                write!(f, "{}{}", if self.0 < 0 { "-" } else { "" }, magnitude / 1_000_000_000)?;
                fraction(f, magnitude % 1_000_000_000, 9)?;
                f.write_str("s")
            }
        }
        Seconds(self.0).to_string()
    }

    pub(crate) fn add(self, other: Self) -> Outcome<Self> {
        self.0.checked_add(other.0).map_or_else(|| fail("duration overflow"), |n| Ok(Self(n)))
    }

    pub(crate) fn sub(self, other: Self) -> Outcome<Self> {
        self.0.checked_sub(other.0).map_or_else(|| fail("duration overflow"), |n| Ok(Self(n)))
    }

    pub(crate) fn negate(self) -> Outcome<Self> {
        self.0.checked_neg().map_or_else(|| fail("duration overflow"), |n| Ok(Self(n)))
    }
}

/// As Go shows it: `1h30m0s`.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let small = |f: &mut fmt::Formatter<'_>, unit: u64, digits, name| {
            write!(f, "{}", n / unit)?;
            fraction(f, n % unit, digits)?;
            f.write_str(name)
        };
        match n {
            0 => f.write_str("0s"),
            1..1000 => write!(f, "{n}ns"),
            1000..1_000_000 => small(f, 1000, 3, "µs"),
            1_000_000..1_000_000_000 => small(f, 1_000_000, 6, "ms"),
            _ => {
                let seconds = n / 1_000_000_000;
                if seconds >= 3600 {
                    write!(f, "{}h", seconds / 3600)?;
                }
                if seconds >= 60 {
                    write!(f, "{}m", seconds / 60 % 60)?;
                }
                write!(f, "{}", seconds % 60)?;
                fraction(f, n % 1_000_000_000, 9)?;
                f.write_str("s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timestamps() {
        for (text, want) in [
            ("2009-02-13T23:31:30Z", Some("2009-02-13T23:31:30Z")),
            ("2009-02-13T23:31:30.120Z", Some("2009-02-13T23:31:30.12Z")),
            ("2011-10-05T14:48:00.000+02:00", Some("2011-10-05T12:48:00Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
            ("9999-12-31T23:59:59.999999999Z", Some("9999-12-31T23:59:59.999999999Z")),
            ("2023-02-29T00:00:00Z", None),
            ("2024-02-29T00:00:00Z", Some("2024-02-29T00:00:00Z")),
            ("0000-00-00T00:00:00Z", None),
            ("2009-02-13", None),
        ] {
            assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("1h30m", Some("1h30m0s")),
            ("-1.5s", Some("-1.5s")),
            ("1000000s", Some("277h46m40s")),
            ("10ms", Some("10ms")),
            ("1us", Some("1µs")),
            ("0", Some("0s")),
            ("1.1234567891s", Some("1.123456789s")),
            ("1", None),
            ("1d", None),
            ("", None),
            ("320000000000s", None),
        ] {
            assert_eq!(Duration::parse(text).map(|t| t.to_string()).as_deref(), want, "{text}");
        }
        assert_eq!(Duration(1_500_000_000).seconds_text(), "1.5s");
    }

    proptest! {
        #[test]
        fn round_trip(seconds in FIRST..=LAST, nanos in 0u32..1_000_000_000) {
            let t = Timestamp::new(seconds, nanos).unwrap();
            prop_assert_eq!(Timestamp::parse(&t.to_string()), Some(t));
        }

        #[test]
        fn duration_round_trip(nanos: i64) {
            prop_assert_eq!(Duration::parse(&Duration(nanos).to_string()), Some(Duration(nanos)));
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}|[0-9TZ:.+-]{15,30}|[0-9.hmsnuµ]{0,20}") {
            let _ = (Timestamp::parse(&text), Duration::parse(&text));
        }
    }
}
