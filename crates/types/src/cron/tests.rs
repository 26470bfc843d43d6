use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<CronSchedule, CronError> {
    CronSchedule::parse(text, TimeZone::UTC, |name| (name == "UTC").then_some(TimeZone::UTC))
}

#[test]
fn what_is_none_and_why() {
    for good in [
        "* * * * *",
        "*/5 0-6 1,15 jan-Mar MON",
        "5/15 * * * ?",
        "@hourly",
        "@every 1h30m",
        "@every 1.5s",
        "@every 0",
        "@every -1h",
        "TZ=UTC * * * * *",
        "0 0 1 1 0",
    ] {
        assert_eq!(parse(good).err(), None, "{good}");
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
        ("1/-2 * * * *", "negative number (-2) not allowed: -2"),
        ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ("@often", "unrecognized descriptor: @often"),
        ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ("@every 1hm", "failed to parse duration @every 1hm: time: invalid duration \"1hm\""),
        ("TZ=Nowhere * * * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
    ] {
        assert_eq!(parse(bad).unwrap_err().to_string(), why, "{bad}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "(TZ=)?[@*/, 0-9a-zA-Z?-]{0,30}", other in "\\PC{0,30}") {
        for text in [text, other] {
            if let Ok(schedule) = parse(&text) {
                let _ = schedule.next(Timestamp::UNIX_EPOCH);
            }
        }
    }
}
