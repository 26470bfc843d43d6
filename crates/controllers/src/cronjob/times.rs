//! Which run is due (kubernetes/kubernetes, `pkg/controller/cronjob/utils.go`, `mostRecentScheduleTime`).

use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use types::CronSchedule;

/// A look comes this long after the moment that it is for: clocks differ a little (upstream: `nextScheduleDelta`).
const DELTA: Duration = Duration::from_millis(100);
/// More missed runs than this are worth a warning.
const MANY: i64 = 100;

/// Two runs of it would come at the same time, or none ever.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct NoInterval;

/// What has come about since the last run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// The latest time that has passed.
    pub(super) latest: Option<Timestamp>,
    /// About how many times have passed.
    count: i64,
    since: Timestamp,
}

impl Missed {
    pub(super) fn are_many(&self) -> bool {
        self.count > MANY
    }
}

/// What has been missed; with a deadline, only what may still be begun.
pub(super) fn missed(
    cron: &CronJob,
    schedule: &CronSchedule,
    now: Timestamp,
    in_time: bool,
) -> Result<Missed, NoInterval> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    let mut since = last.unwrap_or(created);
    if let Some(deadline) = deadline(cron).filter(|_| in_time) {
        since = since.max(now.checked_sub(deadline).unwrap_or(Timestamp::MIN));
    }
    let first = schedule.next(since).ok_or(NoInterval)?;
    if now < first {
        return Ok(Missed { latest: None, count: 0, since });
    }
    let second = schedule.next(first).ok_or(NoInterval)?;
    if now < second {
        return Ok(Missed { latest: Some(first), count: 0, since });
    }
    let interval = second.as_second() - first.as_second();
    if interval < 1 {
        return Err(NoInterval);
    }
    // Counting by the first interval is rough, but takes no longer after years than after hours. Beginning two
    // intervals before the end keeps `@every` in step and finds the latest time of most irregular schedules.
    let count = (now.as_second() - first.as_second()) / interval + 1;
    let near = Timestamp::from_second(first.as_second() + (count - 2) * interval).unwrap_or(first);
    let (mut latest, mut at) = (None, schedule.next(near));
    while let Some(time) = at.filter(|time| *time <= now) {
        latest = Some(time);
        at = schedule.next(time);
    }
    Ok(Missed { latest, count, since })
}

/// How late a run may begin.
pub(super) fn deadline(cron: &CronJob) -> Option<Duration> {
    let seconds = cron.spec.starting_deadline_seconds?;
    Some(Duration::from_secs(seconds.max(0).unsigned_abs()))
}

/// How long until the next run.
pub(super) fn until_next(cron: &CronJob, schedule: &CronSchedule, now: Timestamp) -> Option<Duration> {
    let from = match missed(cron, schedule, now, false) {
        Ok(Missed { latest: Some(latest), .. }) => latest,
        Ok(Missed { count: 0, since, .. }) => since,
        Ok(_) | Err(NoInterval) => now,
    };
    let delay = schedule.next(from)?.checked_add(DELTA).ok()?.duration_since(now);
    Some(Duration::try_from(delay).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::super::schedule::parse;
    use super::*;
    use jiff::tz::TimeZone;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(text: &str) -> CronSchedule {
        parse(text, TimeZone::UTC).unwrap()
    }

    fn cron(last: Option<&str>, deadline: Option<i64>) -> CronJob {
        testkit::object(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": "", "jobTemplate": {}, "startingDeadlineSeconds": deadline},
            "status": {"lastScheduleTime": last}}))
    }

    #[test]
    fn the_latest_time_that_has_passed() {
        for (text, last, deadline, now, latest, many) in [
            ("*/10 * * * *", None, None, "2026-01-01T00:09:59Z", None, false),
            ("*/10 * * * *", None, None, "2026-01-01T00:10:00Z", Some("2026-01-01T00:10:00Z"), false),
            ("*/10 * * * *", Some("2026-01-01T00:10:00Z"), None, "2026-01-01T00:11:00Z", None, false),
            ("*/10 * * * *", None, None, "2026-01-01T01:15:00Z", Some("2026-01-01T01:10:00Z"), false),
            ("* * * * *", None, None, "2026-02-01T00:00:10Z", Some("2026-02-01T00:00:00Z"), true),
            ("* * * * *", None, Some(200), "2026-02-01T00:00:10Z", Some("2026-02-01T00:00:00Z"), false),
            ("0 0 * * *", None, Some(60), "2026-02-01T12:00:00Z", None, false),
            ("30 6-16/4 * * 1-5", None, None, "2026-01-05T15:00:00Z", Some("2026-01-05T14:30:00Z"), false),
            ("@every 7m", None, None, "2026-01-01T00:30:00Z", Some("2026-01-01T00:28:30Z"), false),
        ] {
            let missed = missed(&cron(last, deadline), &schedule(text), at(now), true).unwrap();
            assert_eq!((missed.latest, missed.are_many()), (latest.map(at), many), "{text} {now}");
        }
        assert_eq!(
            missed(&cron(None, None), &schedule("0 0 31 2 *"), at("2026-02-01T00:00:00Z"), true),
            Err(NoInterval)
        );
    }

    #[test]
    fn the_next_look() {
        for (last, now, wait) in [
            (None, "2026-01-01T00:04:00Z", 360),
            (Some("2026-01-01T00:10:00Z"), "2026-01-01T00:10:00Z", 600),
            // The run at half past is due already; the one after it is next.
            (Some("2026-01-01T00:10:00Z"), "2026-01-01T00:31:00Z", 540),
        ] {
            let wait = Duration::from_secs(wait) + DELTA;
            let next = until_next(&cron(last, None), &schedule("*/10 * * * *"), at(now));
            assert_eq!(next, Some(wait), "{last:?} {now}");
        }
    }
}
