//! The ways in which jobs end.

use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;

use super::*;
use crate::testing::cluster_at;

#[tokio::test]
async fn fails_after_too_many_failures() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Exited(1));
    cluster.create("default", &testkit::job("work", json!({"backoffLimit": 2}))).await;
    let job = over(&cluster, "work").await;
    assert_eq!((status(&job).failed, status(&job).succeeded), (Some(3), None));
    assert_eq!(conditions(&job), ["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"]);
    assert!(status(&job).completion_time.is_none());
    assert_eq!(pods(&cluster).await.len(), 3);
    said(&cluster, "BackoffLimitExceeded", "Job has reached the specified backoff limit").await;
}

#[tokio::test]
async fn takes_its_time_after_a_failure() {
    let clock = ManualClock::new("2026-02-01T00:00:00Z".parse().unwrap());
    let cluster = cluster_at(Arc::new(clock.clone())).await;
    cluster.create("default", &testkit::job("work", json!({}))).await;
    let first = cluster.wait_for("a pod", || async { pods(&cluster).await.pop() }).await;
    let failed = json!({"status": {"phase": "Failed", "conditions":
        [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-02-01T00:00:00Z"}]}});
    let name = first.metadata.name.unwrap();
    let api = cluster.api::<Pod>("default");
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(failed)).await.unwrap();
    cluster.wait_until::<Job>("default", "work", "to count", |job| status(job).failed == Some(1)).await;
    assert_eq!(pods(&cluster).await.len(), 1, "the next pod comes after ten seconds");
    clock.advance(Duration::from_secs(10));
    change(&cluster, "work", json!({"metadata": {"annotations": {"look": "again"}}})).await;
    cluster.wait_for("the next pod", || async { (pods(&cluster).await.len() == 2).then_some(()) }).await;
}

#[tokio::test]
async fn fails_when_it_takes_too_long() {
    let clock = ManualClock::new("2026-02-01T00:00:00Z".parse().unwrap());
    let cluster = cluster_at(Arc::new(clock.clone())).await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::job("work", json!({"activeDeadlineSeconds": 3000}))).await;
    cluster.wait_until::<Job>("default", "work", "to run", |job| status(job).ready == Some(1)).await;
    clock.advance(Duration::from_secs(3000));
    change(&cluster, "work", json!({"metadata": {"annotations": {"look": "again"}}})).await;
    let job = over(&cluster, "work").await;
    assert_eq!(conditions(&job), ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"]);
    assert_eq!((status(&job).failed, status(&job).active, status(&job).ready), (Some(1), None, Some(0)));
    said(&cluster, "DeadlineExceeded", "Job was active longer than specified deadline").await;
    cluster.wait_for("no pods", || async { pods(&cluster).await.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn each_index_has_its_own_limit() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |pod| Outcome::Exited(i32::from(number(pod) == Some(1))));
    let spec =
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 2});
    cluster.create("default", &testkit::job("work", spec)).await;
    let job = over(&cluster, "work").await;
    let is = status(&job);
    assert_eq!((is.completed_indexes.as_deref(), is.failed_indexes.as_deref()), (Some("0,2"), Some("1")));
    assert_eq!((is.succeeded, is.failed), (Some(2), Some(3)));
    assert_eq!(conditions(&job), ["FailureTarget FailedIndexes", "Failed FailedIndexes"]);
    let all = pods(&cluster).await;
    let mut failures: Vec<&str> = all
        .iter()
        .filter(|pod| number(pod) == Some(1))
        .map(|pod| pod.metadata.annotations.as_ref().unwrap()[FAILURES].as_str())
        .collect();
    failures.sort_unstable();
    assert_eq!(failures, ["0", "1", "2"]);
}

#[tokio::test]
async fn fails_with_too_many_lost_indexes() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |pod| if number(pod) == Some(5) { Outcome::Running } else { Outcome::Exited(1) });
    let spec = json!({"completions": 6, "parallelism": 6, "completionMode": "Indexed",
        "backoffLimitPerIndex": 0, "maxFailedIndexes": 2});
    cluster.create("default", &testkit::job("work", spec)).await;
    let job = over(&cluster, "work").await;
    assert_eq!(conditions(&job)[1], "Failed MaxFailedIndexesExceeded");
    assert_eq!(status(&job).active, None);
}

#[tokio::test]
async fn one_exit_code_may_be_enough() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |pod| match number(pod) {
        Some(0) => Outcome::Exited(42),
        _ => Outcome::Running,
    });
    let rules = json!([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "podFailurePolicy": {"rules": rules}});
    cluster.create("default", &testkit::job("work", spec)).await;
    let job = over(&cluster, "work").await;
    assert_eq!(conditions(&job), ["FailureTarget PodFailurePolicy", "Failed PodFailurePolicy"]);
    let why = status(&job).conditions.unwrap()[1].message.clone().unwrap();
    assert!(why.starts_with("Container main for pod default/work-0-"), "{why}");
    assert!(why.ends_with(" failed with exit code 42 matching FailJob rule at index 0"), "{why}");
    said(&cluster, "PodFailurePolicy", &why).await;
}

#[tokio::test]
async fn some_failures_do_not_count() {
    let cluster = cluster().await;
    let tries = std::sync::atomic::AtomicU32::new(0);
    run_kubelet(&cluster, move |pod| match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Failed") => Outcome::Exited(7),
        Some("Succeeded") => Outcome::Exited(0),
        _ if tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3 => Outcome::Exited(7),
        _ => Outcome::Exited(0),
    });
    let rules = json!([{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}}]);
    let spec = json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}});
    cluster.create("default", &testkit::job("work", spec)).await;
    let job = over(&cluster, "work").await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(1), None));
    assert_eq!(pods(&cluster).await.len(), 4);
}

#[tokio::test]
async fn some_successes_may_be_enough() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |pod| match number(pod) {
        Some(0) => Outcome::Exited(0),
        _ => Outcome::Running,
    });
    let spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    cluster.create("default", &testkit::job("work", spec)).await;
    let job = over(&cluster, "work").await;
    assert_eq!(conditions(&job), ["SuccessCriteriaMet SuccessPolicy", "Complete SuccessPolicy"]);
    let is = status(&job);
    assert_eq!((is.succeeded, is.failed, is.active, is.terminating), (Some(1), None, None, Some(0)));
    assert_eq!(is.conditions.unwrap()[1].message.as_deref(), Some("Matched rules at index 0"));
    cluster.wait_for("the others to go", || async { (pods(&cluster).await.len() == 1).then_some(()) }).await;
}
