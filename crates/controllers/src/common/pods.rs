//! Questions about pods.

use std::time::Duration;

use base::Timestamp;
use client::{ConditionView, PodView};

pub(crate) fn phase(pod: &PodView) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has run to its end.
pub(crate) fn is_finished(pod: &PodView) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts: neither at its end nor on its way out.
pub(crate) fn is_active(pod: &PodView) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

pub(crate) fn condition<'a>(pod: &'a PodView, kind: &str) -> Option<&'a ConditionView> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_.as_deref() == Some(kind))
}

pub(crate) fn is_ready(pod: &PodView) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status.as_deref() == Some("True"))
}

/// Since when the pod is ready, if it is.
pub(crate) fn ready_since(pod: &PodView) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status.as_deref() == Some("True"))?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// How long until the pod has been ready for `min_ready` seconds; `None` if it is not ready.
pub(crate) fn available_in(pod: &PodView, min_ready: i32, now: Timestamp) -> Option<Duration> {
    if min_ready <= 0 {
        return is_ready(pod).then_some(Duration::ZERO);
    }
    let ready_for = now.duration_since(ready_since(pod)?);
    let missing = i128::from(min_ready) * 1_000_000_000 - ready_for.as_nanos();
    Some(Duration::from_nanos(u64::try_from(missing.max(0)).unwrap_or(u64::MAX)))
}

/// How often the pod's containers have restarted, at most.
pub(crate) fn restarts(pod: &PodView) -> i32 {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|c| c.restart_count).max().unwrap_or(0)
}
