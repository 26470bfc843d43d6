//! What a set says about itself.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Next, PodView};
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::kinds::Replicating;
use crate::common::pod_control::Failure;
use crate::common::pods::{available_in, is_active, is_finished, is_ready};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Kubernetes/kubernetes, `pkg/controller/replicaset/replica_set_utils.go`, `calculateStatus`.
pub(super) fn status(
    set: &impl Replicating,
    pods: &[Arc<PodView>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let count = |test: &dyn Fn(&PodView) -> bool| {
        i32::try_from(pods.iter().filter(|pod| is_active(pod) && test(pod)).count()).unwrap_or(i32::MAX)
    };
    let going = pods.iter().filter(|pod| !is_finished(pod) && pod.metadata.deletion_timestamp.is_some());
    let wanted = set.template().and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    let fully_labeled = |pod: &PodView| {
        wanted.into_iter().flatten().all(|(k, v)| pod.labels.as_ref().and_then(|l| l.get(k)) == Some(v))
    };
    let old = set.status().unwrap_or_default();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: positive(count(&fully_labeled)),
        ready_replicas: positive(count(&is_ready)),
        available_replicas: positive(count(&|pod| {
            available_in(pod, set.min_ready_seconds(), now) == Some(Duration::ZERO)
        })),
        terminating_replicas: Some(going.count() as i32),
        observed_generation: set.meta().generation,
        conditions: conditions(old.conditions.unwrap_or_default(), failure, now),
    }
}

/// Zero is left out, as the server does.
fn positive(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    match failure {
        None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
        // The first failure is kept until it is over.
        Some(_) if conditions.iter().any(|c| c.type_ == REPLICA_FAILURE) => {}
        Some(failure) => {
            let (reason, error) = match failure {
                Failure::Create(error) => ("FailedCreate", error),
                Failure::Delete(error) => ("FailedDelete", error),
            };
            conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(error.said()),
                last_transition_time: Some(Time(now)),
            });
        }
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// When the set must be looked at again though nothing changes: pods become available by being ready long enough.
pub(super) fn next(set: &impl Replicating, pods: &[Arc<PodView>], now: Timestamp) -> Next {
    let waiting = pods.iter().filter(|pod| is_active(pod));
    let delays = waiting.filter_map(|pod| available_in(pod, set.min_ready_seconds(), now));
    match delays.filter(|delay| !delay.is_zero()).min() {
        Some(delay) => Next::After(delay),
        None => Next::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_become_available_in_time() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let pod = |ready: &str, since: &str| -> Arc<PodView> {
            Arc::new(testkit::object(
                json!({"metadata": {"labels": {"app": "x"}}, "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]}}),
            ))
        };
        let pods = [
            pod("True", "2026-01-01T00:00:00Z"),
            pod("True", "2026-01-01T00:00:08Z"),
            pod("False", "2026-01-01T00:00:00Z"),
        ];
        let mut set = testkit::replica_set("x", 3);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(5);
        let refusal = kube::core::Status::failure("exceeded quota", "Forbidden").boxed();
        let failure = kube::Error::Api(refusal);
        let failure =
            Failure::Create(crate::Error::Api { attempt: "create a pod of x".into(), source: failure });
        let status = status(&set, &pods, Some(&failure), now);
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas),
            (3, Some(2), Some(1))
        );
        let said = &status.conditions.unwrap()[0];
        assert_eq!(said.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(said.message.as_deref(), Some("exceeded quota"), "in the server's words alone");
        assert_eq!(next(&set, &pods, now), Next::After(Duration::from_secs(3)));
    }
}
