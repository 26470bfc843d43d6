//! What a set says about itself (kubernetes/kubernetes, `pkg/controller/statefulset/stateful_set_control.go`,
//! `updateStatus`).

use std::sync::Arc;

use base::Timestamp;
use client::{Next, PodView, is_deleting};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use super::plan::{Revisions, is_rolling, min_ready, replicas};
use crate::common::history::revision_of;
use crate::common::pods::{available_in, is_ready, phase};

/// `leaving` are pods that are being deleted and that the cache does not show as such yet.
pub(super) fn status(
    set: &StatefulSet,
    revisions: Revisions<'_>,
    collisions: Option<i32>,
    pods: &[Arc<PodView>],
    leaving: &[Arc<PodView>],
    now: Timestamp,
) -> StatefulSetStatus {
    let count = |test: &dyn Fn(&PodView) -> bool| {
        i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let ready = |pod: &PodView| phase(pod) == "Running" && is_ready(pod);
    let available = |pod: &PodView| {
        ready(pod) && available_in(pod, min_ready(set), now).is_some_and(|left| left.is_zero())
    };
    let of = |revision: &str| {
        count(&|pod| {
            revision_of(pod) == Some(revision)
                && !is_deleting(&pod.metadata)
                && leaving.iter().all(|other| other.metadata.uid != pod.metadata.uid)
        })
    };
    let (all, ready, updated) = (count(&|_| true), count(&ready), of(revisions.update));
    let wanted = replicas(set);
    let complete = is_rolling(set) && [all, ready, updated].iter().all(|n| *n == wanted);
    let (current, current_replicas) =
        if complete { (revisions.update, updated) } else { (revisions.current, of(revisions.current)) };
    let positive = |count: i32| (count != 0).then_some(count);
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: all,
        ready_replicas: positive(ready),
        available_replicas: Some(count(&available)),
        current_replicas: positive(current_replicas),
        updated_replicas: positive(updated),
        current_revision: Some(current.to_owned()),
        update_revision: Some(revisions.update.to_owned()),
        collision_count: Some(collisions.unwrap_or(0)),
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
    }
}

/// When the set must be looked at again though nothing changes: pods become available by being ready long enough.
pub(super) fn next(set: &StatefulSet, pods: &[Arc<PodView>], now: Timestamp) -> Next {
    let delays = pods.iter().filter_map(|pod| available_in(pod, min_ready(set), now));
    match delays.filter(|delay| !delay.is_zero()).min() {
        Some(delay) => Next::After(delay),
        None => Next::Done,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_update_is_complete_when_all_are_new_and_ready() {
        let set: StatefulSet =
            testkit::object(json!({"metadata": {"name": "web", "generation": 4}, "spec": {"replicas": 2,
                "selector": {}, "template": {}, "minReadySeconds": 5}}));
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        let pod = |revision: &str, since: &str| -> Arc<PodView> {
            Arc::new(testkit::object(json!({
                "metadata": {"uid": since, "labels": {"controller-revision-hash": revision}},
                "status": {"phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}})))
        };
        let revisions = Revisions { current: "old", update: "new" };
        let pods = [pod("old", "2026-01-01T00:00:00Z"), pod("new", "2026-01-01T00:00:08Z")];
        let half = status(&set, revisions, None, &pods, &[], now);
        assert_eq!((half.replicas, half.ready_replicas, half.available_replicas), (2, Some(2), Some(1)));
        assert_eq!((half.current_replicas, half.updated_replicas), (Some(1), Some(1)));
        assert_eq!(half.current_revision.as_deref(), Some("old"));
        let leaving = status(&set, revisions, None, &pods, &pods[..1], now);
        assert_eq!((leaving.replicas, leaving.current_replicas), (2, None));
        let pods = [pod("new", "2026-01-01T00:00:00Z"), pods[1].clone()];
        let whole = status(&set, revisions, Some(1), &pods, &[], now);
        assert_eq!((whole.current_revision.as_deref(), whole.current_replicas), (Some("new"), Some(2)));
        assert_eq!((whole.collision_count, whole.observed_generation), (Some(1), Some(4)));
        assert_eq!(next(&set, &pods, now), Next::After(std::time::Duration::from_secs(3)));
    }
}
