use client::k8s_openapi::api::apps::v1::ReplicaSet;
use client::k8s_openapi::api::core::v1::{Event, Pod, ReplicationController};
use client::{controller_of, is_controlled_by};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use testkit::{Outcome, run_kubelet};

use crate::testing::cluster;

fn counts(set: &ReplicaSet) -> (i32, i32) {
    let status = set.status.clone().unwrap_or_default();
    (status.replicas, status.available_replicas.unwrap_or(0))
}

#[tokio::test]
async fn makes_and_removes_pods_and_says_so() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::replica_set("web", 5)).await;
    let set =
        cluster.wait_until::<ReplicaSet>("default", "web", "5 available", |s| counts(s) == (5, 5)).await;
    let pods = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 5);
    let owner = controller_of(&pods[0].metadata).unwrap();
    assert_eq!((owner.kind.as_str(), owner.block_owner_deletion), ("ReplicaSet", Some(true)));
    assert_eq!(Some(&owner.uid), set.metadata.uid.as_ref());

    let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
    cluster.api::<ReplicaSet>("default").patch("web", &PatchParams::default(), &two).await.unwrap();
    cluster.wait_until::<ReplicaSet>("default", "web", "2 left", |s| counts(s) == (2, 2)).await;
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("events of creation and deletion", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let of = |reason: &str| all.iter().filter(|e| e.reason.as_deref() == Some(reason)).count();
            (of("SuccessfulCreate") == 5 && of("SuccessfulDelete") == 3).then_some(())
        })
        .await;
}

#[tokio::test]
async fn adopts_orphans_and_lets_go_of_misfits() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::pod("orphan", "web")).await;
    let set = cluster.create("default", &testkit::replica_set("web", 1)).await;
    let uid = set.metadata.uid.unwrap();
    cluster
        .wait_until::<Pod>("default", "orphan", "to be adopted", |p| is_controlled_by(&p.metadata, &uid))
        .await;
    cluster.wait_until::<ReplicaSet>("default", "web", "1 available", |s| counts(s) == (1, 1)).await;
    let pods = cluster.api::<Pod>("default");
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 1);

    let other = Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}));
    pods.patch("orphan", &PatchParams::default(), &other).await.unwrap();
    cluster
        .wait_until::<Pod>("default", "orphan", "to be released", |p| controller_of(&p.metadata).is_none())
        .await;
    cluster
        .wait_for("a replacement", || async {
            let all = pods.list(&ListParams::default()).await.unwrap().items;
            (all.iter().filter(|p| is_controlled_by(&p.metadata, &uid)).count() == 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_pod_that_cannot_be_made_shows_in_the_conditions() {
    let cluster = cluster().await;
    let mut set = testkit::replica_set("web", 10);
    let template = set.spec.as_mut().unwrap().template.as_mut().unwrap();
    template.spec.as_mut().unwrap().service_account_name = Some("nobody".into());
    cluster.create("default", &set).await;
    let set = cluster
        .wait_until::<ReplicaSet>("default", "web", "to fail", |s| {
            s.status.as_ref().is_some_and(|s| s.conditions.is_some())
        })
        .await;
    let condition = &set.status.unwrap().conditions.unwrap()[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref()),
        ("ReplicaFailure", Some("FailedCreate"))
    );
    assert!(condition.message.as_deref().unwrap().contains("nobody"), "{condition:?}");
}

#[tokio::test]
async fn a_replication_controller_is_treated_alike() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::pod("orphan", "rc")).await;
    let template = json!({"metadata": {"labels": {"app": "rc"}},
        "spec": {"containers": [{"name": "main", "image": "app:v1"}]}});
    let rc: ReplicationController = testkit::object(json!({"metadata": {"name": "rc"},
        "spec": {"replicas": 3, "selector": {"app": "rc"}, "template": template}}));
    let uid = cluster.create("default", &rc).await.metadata.uid.unwrap();
    let numbers = |rc: &ReplicationController| {
        let status = rc.status.clone().unwrap_or_default();
        (status.replicas, status.ready_replicas, status.available_replicas, status.fully_labeled_replicas)
    };
    let wait = |count: i32| {
        let want = (count, Some(count), Some(count), Some(count));
        cluster.wait_until::<ReplicationController>("default", "rc", "so many", move |rc| numbers(rc) == want)
    };
    wait(3).await;
    let pods = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        let owner = controller_of(&pod.metadata).unwrap();
        assert_eq!(
            (owner.api_version.as_str(), owner.kind.as_str(), &owner.uid),
            ("v1", "ReplicationController", &uid)
        );
    }
    let one = Patch::Merge(json!({"spec": {"replicas": 1}}));
    cluster.api::<ReplicationController>("default").patch("rc", &PatchParams::default(), &one).await.unwrap();
    wait(1).await;
}
