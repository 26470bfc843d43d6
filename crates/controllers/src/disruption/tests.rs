use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use client::k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit::{Outcome, run_kubelet};

use crate::testing::{cluster, cluster_at};

fn budget(spec: Value) -> PodDisruptionBudget {
    let mut budget =
        json!({"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    budget["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    testkit::object(budget)
}

/// Allowed, healthy, wanted, expected.
fn counts(budget: &PodDisruptionBudget) -> (i32, i32, i32, i32) {
    let status = budget.status.clone().unwrap_or_default();
    let [allowed, healthy, desired, expected] =
        [status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods]
            .map(Option::unwrap_or_default);
    (allowed, healthy, desired, expected)
}

#[tokio::test]
async fn evictions_take_what_the_owners_can_spare() {
    let cluster = cluster().await;
    // Once these are known, others never become ready.
    let first: Arc<Mutex<Vec<String>>> = Arc::default();
    let known = first.clone();
    run_kubelet(&cluster, move |pod| {
        let (known, name) = (known.lock(), pod.metadata.name.as_ref().unwrap());
        if known.is_empty() || known.contains(name) { Outcome::Running } else { Outcome::Unready }
    });
    cluster.create("default", &testkit::deployment("web", 4)).await;
    cluster.create("default", &budget(json!({"maxUnavailable": "30%"}))).await;
    let all = |b: &PodDisruptionBudget| counts(b) == (2, 4, 2, 4);
    let made = cluster.wait_until::<PodDisruptionBudget>("default", "b", "2 of 4 to spare", all).await;
    let condition = made.status.unwrap().conditions.unwrap().remove(0);
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_str()),
        ("DisruptionAllowed", "SufficientPods")
    );

    let pods = cluster.api::<Pod>("default");
    let names: Vec<String> = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|pod| pod.metadata.name.unwrap())
        .collect();
    *first.lock() = names.clone();
    let mut evicted = 0;
    for name in &names {
        evicted += usize::from(pods.evict(name, &EvictParams::default()).await.is_ok());
    }
    assert_eq!(evicted, 2, "a budget of two was spent {evicted} times");
    let spent = |b: &PodDisruptionBudget| {
        counts(b) == (0, 2, 2, 4) && b.status.as_ref().is_some_and(|s| s.disrupted_pods.is_none())
    };
    cluster.wait_until::<PodDisruptionBudget>("default", "b", "to be spent", spent).await;
}

#[tokio::test]
async fn a_pod_that_was_to_go_and_stays_counts_again_after_a_while() {
    let clock = Arc::new(base::ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let cluster = cluster_at(clock.clone()).await;
    run_kubelet(&cluster, |_| Outcome::Running);
    for name in ["p", "q"] {
        cluster.create("default", &testkit::pod(name, "web")).await;
    }
    cluster.create("default", &budget(json!({"minAvailable": 1}))).await;
    cluster
        .wait_until::<PodDisruptionBudget>("default", "b", "one to spare", |b| counts(b) == (1, 2, 1, 2))
        .await;
    let target = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let pods = cluster.api::<Pod>("default");
    pods.patch_status("p", &PatchParams::default(), &Patch::Strategic(target)).await.unwrap();
    let evicted = Patch::Merge(json!({"status": {"disruptedPods": {"p": "2026-01-01T00:00:00Z"}}}));
    let budgets = cluster.api::<PodDisruptionBudget>("default");
    budgets.patch_status("b", &PatchParams::default(), &evicted).await.unwrap();
    cluster
        .wait_until::<PodDisruptionBudget>("default", "b", "none to spare", |b| counts(b) == (0, 1, 1, 2))
        .await;

    clock.advance(std::time::Duration::from_secs(180));
    // Something happens to the pods.
    for name in ["p", "q"] {
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}}));
        pods.patch(name, &PatchParams::default(), &touch).await.unwrap();
    }
    cluster
        .wait_until::<PodDisruptionBudget>("default", "b", "one to spare again", |b| {
            counts(b) == (1, 2, 1, 2)
        })
        .await;
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("the event about it", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.iter().any(|e| e.reason.as_deref() == Some("NotDeleted")).then_some(())
        })
        .await;
    let taken_back = |pod: &Pod| {
        pod.status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .any(|c| c.type_ == "DisruptionTarget" && c.status == "False")
    };
    cluster.wait_until::<Pod>("default", "p", "not to be a target any more", taken_back).await;
}

#[tokio::test]
async fn pods_that_nobody_counts_make_a_share_of_them_unknown() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    let owner: ConfigMap = testkit::object(json!({"metadata": {"name": "owner"}}));
    let uid = cluster.create("default", &owner).await.metadata.uid;
    let mut pod = testkit::pod("p", "web");
    pod.metadata.owner_references = Some(vec![testkit::object(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": true}),
    )]);
    cluster.create("default", &pod).await;
    cluster.create("default", &budget(json!({"minAvailable": "50%"}))).await;
    let failed = |b: &PodDisruptionBudget| {
        b.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| {
            c.reason == "SyncFailed" && c.message == "configmaps does not implement the scale subresource"
        })
    };
    cluster.wait_until::<PodDisruptionBudget>("default", "b", "to fail", failed).await;
}
