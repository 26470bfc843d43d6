//! How long to wait after failures (kubernetes/kubernetes, `pkg/controller/job/backoff_utils.go`).

use std::time::Duration;

use base::Timestamp;
use client::PodView;

use super::ask::earlier_failures;
use crate::common::pods::condition;

/// After the first failure, and at most.
const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(600);

/// The failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    failures: u32,
    last: Option<Timestamp>,
}

impl Record {
    /// The record after some more pods have ended.
    pub(super) fn after<'a>(
        self,
        succeeded: impl Iterator<Item = &'a PodView>,
        failed: impl Iterator<Item = &'a PodView>,
    ) -> Self {
        let success = succeeded.map(finished_at).max();
        let before = if success.is_some() { Self::default() } else { self };
        let failures = failed.map(finished_at).filter(|at| success.is_none_or(|success| *at > success));
        failures.fold(before, |record, at| Self {
            failures: record.failures + 1,
            last: record.last.max(Some(at)),
        })
    }

    /// How long until the next pod may be made.
    pub(super) fn remaining(self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// How long until a failed pod may be replaced by another one of its index.
pub(super) fn remaining_of_index(failed: &PodView, now: Timestamp) -> Duration {
    let (counted, ignored) = earlier_failures(failed);
    let failures = counted.saturating_add(ignored).saturating_add(1).unsigned_abs();
    remaining(failures, finished_at(failed), now)
}

fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let delay = 2u32.checked_pow(doublings).map_or(MOST, |times| FIRST.saturating_mul(times).min(MOST));
    let passed = now.duration_since(last);
    if passed.unsigned_abs() > delay {
        // Long ago, or in a future that is too far for clocks that differ: the clock was set back since. What would
        // otherwise be waited for is that it comes to that time again.
        return Duration::ZERO;
    }
    delay.saturating_sub(Duration::try_from(passed).unwrap_or(Duration::ZERO))
}

/// When the pod ended, as well as can be told.
pub(super) fn finished_at(pod: &PodView) -> Timestamp {
    let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let ends: Option<Vec<Timestamp>> =
        containers.iter().map(|c| c.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0)).collect();
    if let Some(last) = ends.into_iter().flatten().max() {
        return last;
    }
    let unready = condition(pod, "Ready").filter(|c| c.status.as_deref() == Some("False"));
    if let Some(since) = unready.and_then(|c| c.last_transition_time.as_ref()) {
        return since.0;
    }
    if let Some(at) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0).unsigned_abs();
        return at.0.checked_sub(Duration::from_secs(grace)).unwrap_or(at.0);
    }
    pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(second: u32) -> PodView {
        let at = format!("2026-01-01T00:00:{second:02}Z");
        testkit::object(json!({"status": {"containerStatuses": [
            {"name": "a", "state": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}},
            {"name": "b", "state": {"terminated": {"finishedAt": at}}}]}}))
    }

    fn at(second: u32) -> Timestamp {
        format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60).parse().unwrap()
    }

    #[test]
    fn a_clock_that_steps_holds_nothing_back() {
        let now = |text: &str| text.parse::<Timestamp>().unwrap();
        let last = now("2026-01-01T05:00:00Z");
        assert_eq!(remaining(1, last, now("2026-01-01T05:00:04Z")), Duration::from_secs(6));
        // Clocks may differ a little; they do not by hours.
        assert_eq!(remaining(1, last, now("2026-01-01T04:59:57Z")), FIRST);
        for step in ["2026-01-01T00:00:00Z", "2026-01-01T10:00:00Z"] {
            assert_eq!(remaining(1, last, now(step)), Duration::ZERO, "{step}");
        }
    }

    #[test]
    fn waits_twice_as_long_after_each_failure_since_the_last_success() {
        let none = std::iter::empty;
        let pods: Vec<PodView> = [1, 5, 9].map(pod).into();
        let one = Record::default().after(none(), pods[..1].iter());
        assert_eq!(one.remaining(at(1)), FIRST);
        assert_eq!(one.remaining(at(4)), Duration::from_secs(7));
        assert_eq!(one.remaining(at(40)), Duration::ZERO);
        let three = one.after(none(), pods[1..].iter());
        assert_eq!(three.remaining(at(9)), FIRST * 4);
        let ten = (0..10).fold(three, |record, _| record.after(none(), pods[..1].iter()));
        assert_eq!(ten.remaining(at(9)), MOST);
        // The success at 5 wipes out what was before it.
        assert_eq!(three.after(pods[1..2].iter(), pods.iter()).remaining(at(9)), FIRST);
        assert_eq!(three.after(pods[2..].iter(), none()), Record::default());
        assert_eq!(Record { failures: 200, last: Some(at(0)) }.remaining(at(0)), MOST);
    }

    #[test]
    fn when_a_pod_ended() {
        let of = |value| finished_at(&testkit::object(value));
        let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:07Z"});
        let running = json!([{"name": "a", "state": {"running": {}}}]);
        assert_eq!(finished_at(&pod(9)), at(9));
        assert_eq!(of(json!({"status": {"containerStatuses": running, "conditions": [ready]}})), at(7));
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:40Z", "deletionGracePeriodSeconds": 30});
        assert_eq!(of(json!({"metadata": deleted})), at(10));
        assert_eq!(of(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:03Z"}})), at(3));
    }
}
