//! How long a pod may stay on a tainted node (kubernetes/kubernetes, `pkg/controller/tainteviction/taint_eviction.go`).

use client::{PodView, tolerates};
use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::core::v1::Taint;

use crate::common::pods::condition;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    Never,
    After(Duration),
    Now,
}

/// `since` is when the pod was first found to have to leave: whoever taints a node need not say when. `passed` tells
/// how long ago something was.
pub(super) fn decide(
    pod: &PodView,
    taints: &[Taint],
    since: Timestamp,
    passed: impl Fn(Timestamp) -> Duration,
) -> Eviction {
    let tolerations = pod.spec.tolerations.as_deref().unwrap_or_default();
    let mut soonest: Option<Duration> = None;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let value = taint.value.as_deref().unwrap_or_default();
        let mut tolerated =
            tolerations.iter().filter(|t| tolerates(t, &taint.key, value, &taint.effect)).peekable();
        if tolerated.peek().is_none() {
            return Eviction::Now;
        }
        // The shortest of those with a limit counts; without a limit the pod may stay.
        let Some(seconds) = tolerated.filter_map(|t| t.toleration_seconds).min() else { continue };
        // One that came to a node that had been tainted before has its whole time all the same.
        let since = taint.time_added.as_ref().map_or(since, |t| t.0.max(came(pod).unwrap_or(since)));
        let left = Duration::from_secs(seconds.max(0).unsigned_abs()).saturating_sub(passed(since));
        soonest = Some(soonest.map_or(left, |soonest| soonest.min(left)));
    }
    match soonest {
        None => Eviction::Never,
        Some(left) if left.is_zero() => Eviction::Now,
        Some(left) => Eviction::After(left),
    }
}

/// Since when the pod is on its node.
fn came(pod: &PodView) -> Option<Timestamp> {
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    let bound = || condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    // One that was made for its node was there from the beginning.
    started.or_else(bound).or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_shortest_toleration_counts() {
        let taint: Taint =
            testkit::object(json!({"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}));
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().unwrap();
        let passed = |since| now.duration_since(since).try_into().unwrap();
        let decide_from = |start: &str, tolerations: Value| {
            let pod: PodView =
                testkit::object(json!({"spec": {"containers": [], "tolerations": tolerations},
                "status": {"startTime": start}}));
            super::decide(&pod, std::slice::from_ref(&taint), now, passed)
        };
        let limited = |seconds: i64| json!({"key": "k", "operator": "Exists", "tolerationSeconds": seconds});
        let decide = |tolerations: Value| decide_from("2025-12-31T00:00:00Z", tolerations);
        assert_eq!(decide(json!([])), Eviction::Now);
        assert_eq!(decide(json!([{"operator": "Exists"}])), Eviction::Never);
        assert_eq!(decide(json!([limited(300), limited(400)])), Eviction::After(Duration::from_secs(200)));
        assert_eq!(decide(json!([limited(100)])), Eviction::Now);
        let late = decide_from("2026-01-01T00:01:30Z", json!([limited(60)]));
        assert_eq!(
            late,
            Eviction::After(Duration::from_secs(50)),
            "it came when the node was tainted already"
        );
    }
}
