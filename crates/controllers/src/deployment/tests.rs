use client::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use client::k8s_openapi::api::core::v1::{Event, Pod, ResourceQuota};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, Outcome, run_kubelet};

use crate::testing::cluster;

fn is_rolled_out(d: &Deployment) -> bool {
    let (wanted, status) = (d.spec.as_ref().unwrap().replicas, d.status.clone().unwrap_or_default());
    let conditions = status.conditions.unwrap_or_default();
    status.observed_generation == d.metadata.generation
        && status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && conditions.iter().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"))
}

async fn change(cluster: &Cluster, patch: Value) -> Deployment {
    let api = cluster.api::<Deployment>("default");
    api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap()
}

async fn sets(cluster: &Cluster) -> Vec<ReplicaSet> {
    let mut sets = cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items;
    sets.sort_by_key(|s| super::revision::revision(&s.metadata));
    sets
}

fn image(version: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": version}]}}}})
}

#[tokio::test]
async fn rolls_out_back_and_forgets_old_revisions() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    let mut deployment = testkit::deployment("web", 4);
    deployment.spec.as_mut().unwrap().revision_history_limit = Some(2);
    cluster.create("default", &deployment).await;
    cluster.wait_until("default", "web", "to be rolled out", is_rolled_out).await;
    let first = sets(&cluster).await.remove(0);
    assert!(first.metadata.labels.as_ref().unwrap().contains_key("pod-template-hash"));

    for version in ["app:v2", "app:v3"] {
        change(&cluster, image(version)).await;
        cluster.wait_until("default", "web", "to be rolled out anew", is_rolled_out).await;
    }
    // What `kubectl rollout undo` does.
    let undone = change(&cluster, image("app:v1")).await;
    assert_eq!(super::revision::revision(&undone.metadata), 3);
    let deployment = cluster.wait_until("default", "web", "to be rolled back", is_rolled_out).await;
    assert_eq!(super::revision::revision(&deployment.metadata), 4);
    let all = sets(&cluster).await;
    assert_eq!(all.len(), 3);
    let newest = all.last().unwrap();
    assert_eq!(newest.metadata.uid, first.metadata.uid, "the first set serves again");
    let annotations = newest.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");

    change(&cluster, image("app:v5")).await;
    cluster
        .wait_for("the oldest revision to go", || async {
            let revisions: Vec<_> =
                sets(&cluster).await.iter().map(|s| super::revision::revision(&s.metadata)).collect();
            (revisions == [3, 4, 5]).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_broken_version_leaves_the_old_one_running_and_times_out() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |pod| {
        let image = pod.spec.as_ref().and_then(|s| s.containers[0].image.as_deref());
        if image == Some("app:broken") { Outcome::Unready } else { Outcome::Running }
    });
    let mut deployment = testkit::deployment("web", 4);
    deployment.spec.as_mut().unwrap().progress_deadline_seconds = Some(1);
    cluster.create("default", &deployment).await;
    cluster.wait_until("default", "web", "to be rolled out", is_rolled_out).await;
    change(&cluster, image("app:broken")).await;
    // Times of conditions are whole seconds, so the deadline may pass before the first new pod: it is
    // late already then, gets on, and is late again. Only where that ends is certain.
    let late = cluster
        .wait_until::<Deployment>("default", "web", "to be late with two new pods", |d| {
            let status = d.status.clone().unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            (status.available_replicas, status.updated_replicas) == (Some(3), Some(2))
                && conditions.iter().any(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded"))
        })
        .await;
    let status = late.status.unwrap();
    let condition = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Progressing").unwrap();
    assert!(condition.message.unwrap().ends_with("has timed out progressing."));
}

#[tokio::test]
async fn pauses_scales_and_recreates() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::deployment("web", 2)).await;
    cluster.wait_until("default", "web", "to be rolled out", is_rolled_out).await;
    change(
        &cluster,
        json!({"spec": {"paused": true, "replicas": 3,
        "template": {"spec": {"containers": [{"name": "main", "image": "app:v2"}]}}}}),
    )
    .await;
    cluster
        .wait_until::<Deployment>("default", "web", "to scale though paused", |d| {
            let status = d.status.clone().unwrap_or_default();
            status.available_replicas == Some(3) && status.updated_replicas.is_none()
        })
        .await;
    assert_eq!(sets(&cluster).await.len(), 1);

    let recreate =
        json!({"spec": {"paused": false, "strategy": {"type": "Recreate", "rollingUpdate": null}}});
    change(&cluster, recreate).await;
    cluster.wait_until("default", "web", "to be recreated", is_rolled_out).await;
    let pods = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
    let images: Vec<_> = pods.iter().map(|p| p.spec.as_ref().unwrap().containers[0].image.clone()).collect();
    assert_eq!(images, vec![Some("app:v2".to_owned()); 3]);
}

fn progressing(d: &Deployment) -> Option<(&str, &str)> {
    let conditions = d.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "Progressing")?;
    Some((&condition.status, condition.reason.as_deref()?))
}

#[tokio::test]
async fn says_when_its_set_cannot_be_made() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    let none: ResourceQuota = testkit::object(
        json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/replicasets.apps": "0"}}}),
    );
    cluster.create("default", &none).await;
    cluster
        .wait_until::<ResourceQuota>("default", "none", "to count", |q| {
            q.status.as_ref().is_some_and(|s| s.hard.is_some())
        })
        .await;
    cluster.create("default", &testkit::deployment("web", 1)).await;
    let refused = ("False", "ReplicaSetCreateError");
    cluster.wait_until("default", "web", "to say so", |d| progressing(d) == Some(refused)).await;
    let events = cluster.api::<Event>("default");
    let message = cluster
        .wait_for("the event", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.into_iter().find(|e| e.reason.as_deref() == Some("ReplicaSetCreateError"))?.message
        })
        .await;
    assert!(message.starts_with("Failed to create new replica set \"web-"), "{message}");
    assert!(message.contains("exceeded quota: none"), "{message}");
    cluster.api::<ResourceQuota>("default").delete("none", &DeleteParams::default()).await.unwrap();
    cluster.wait_until("default", "web", "to be rolled out", is_rolled_out).await;
}

#[tokio::test]
async fn a_paused_one_bears_the_revision_it_went_back_to() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::deployment("web", 1)).await;
    cluster.wait_until("default", "web", "to be rolled out", is_rolled_out).await;
    change(&cluster, image("app:v2")).await;
    cluster.wait_until("default", "web", "to be rolled out anew", is_rolled_out).await;
    change(&cluster, json!({"spec": {"paused": true}})).await;
    change(&cluster, image("app:v1")).await;
    let revision = |d: &Deployment| super::revision::revision(&d.metadata);
    cluster.wait_until("default", "web", "its third revision", |d| revision(d) == 3).await;
    // Without a deadline nothing is said of progress.
    change(&cluster, json!({"spec": {"paused": false, "progressDeadlineSeconds": i32::MAX}})).await;
    cluster
        .wait_until("default", "web", "nothing of progress", |d: &Deployment| {
            let status = d.status.clone().unwrap_or_default();
            status.observed_generation == d.metadata.generation && progressing(d).is_none()
        })
        .await;
}
