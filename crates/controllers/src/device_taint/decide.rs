use std::time::Duration;

use base::Timestamp;
use client::devices::tolerates;
use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration};

const NO_EXECUTE: &str = "NoExecute";

/// When a pod must leave; the sooner, the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Eviction {
    Now,
    After(Duration),
    Never,
}

/// What is wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taint {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) effect: String,
    pub(super) added: Option<Timestamp>,
    /// The UID of the rule that says so.
    pub(super) rule: Option<String>,
}

impl Taint {
    pub(super) fn of(taint: &DeviceTaint) -> Self {
        Self {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
            effect: taint.effect.clone(),
            added: taint.time_added.as_ref().map(|time| time.0),
            rule: None,
        }
    }
}

/// `since` is when the pod was first found to have to leave: whoever taints a device need not say when
/// (`claimEvictionTime`). `passed` tells how long ago something was.
pub(super) fn decide(
    taint: &Taint,
    tolerations: &[DeviceToleration],
    since: Timestamp,
    passed: impl Fn(Timestamp) -> Duration,
) -> Eviction {
    if taint.effect != NO_EXECUTE {
        return Eviction::Never;
    }
    let tolerated = tolerations.iter().filter(|t| tolerates(t, &taint.key, &taint.value, NO_EXECUTE));
    let mut shortest: Option<u64> = None;
    for toleration in tolerated {
        let Some(seconds) = toleration.toleration_seconds else { return Eviction::Never };
        let seconds = seconds.max(0).unsigned_abs();
        shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)));
    }
    let passed = passed(taint.added.unwrap_or(since));
    match Duration::from_secs(shortest.unwrap_or(0)).saturating_sub(passed) {
        Duration::ZERO => Eviction::Now,
        left => Eviction::After(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_shortest_toleration_counts_from_when_the_taint_came() {
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().unwrap();
        let taint = |effect: &str, added: Value| {
            let json = json!({"key": "k", "value": "v", "effect": effect, "timeAdded": added});
            Taint::of(&testkit::object(json))
        };
        let decide = |taint: &Taint, tolerations: Value| {
            let passed = |since| now.duration_since(since).try_into().unwrap();
            super::decide(taint, &testkit::object::<Vec<DeviceToleration>>(tolerations), now, passed)
        };
        let limited = |seconds: i64| json!({"key": "k", "operator": "Exists", "tolerationSeconds": seconds});
        let (old, fresh) = (taint(NO_EXECUTE, json!("2026-01-01T00:00:00Z")), taint(NO_EXECUTE, json!(null)));
        assert_eq!(decide(&old, json!([])), Eviction::Now);
        assert_eq!(decide(&taint("NoSchedule", json!(null)), json!([])), Eviction::Never);
        assert_eq!(decide(&old, json!([limited(10), {"operator": "Exists"}])), Eviction::Never);
        assert_eq!(
            decide(&old, json!([limited(300), limited(400)])),
            Eviction::After(Duration::from_secs(200))
        );
        assert_eq!(decide(&fresh, json!([limited(300)])), Eviction::After(Duration::from_secs(300)));
        assert_eq!(decide(&old, json!([limited(100)])), Eviction::Now);
        assert_eq!(decide(&fresh, json!([limited(-5)])), Eviction::Now);
        assert_eq!(decide(&old, json!([{"key": "other", "operator": "Exists"}])), Eviction::Now);
        assert!(
            Eviction::Now < Eviction::After(Duration::ZERO)
                && Eviction::After(Duration::MAX) < Eviction::Never
        );
    }
}
