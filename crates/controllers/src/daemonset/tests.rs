use std::collections::BTreeMap;

use client::k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use client::k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, Outcome, run_kubelet};

use crate::testing::{cluster, first_fails};

fn set(more: Value) -> DaemonSet {
    let mut spec = json!({"selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "main", "image": "app:v1"}]}}});
    types::patch::merge_patch(&mut spec, more);
    testkit::object(json!({"metadata": {"name": "d"}, "spec": spec}))
}

async fn nodes(cluster: &Cluster, names: &[&str]) {
    for name in names {
        cluster.create_node(&testkit::node(name, 4, 4, 110)).await;
    }
}

async fn wait(cluster: &Cluster, what: &str, wish: impl Fn(&DaemonSetStatus) -> bool) -> DaemonSet {
    let wish = |set: &DaemonSet| {
        set.status.as_ref().is_some_and(|s| s.observed_generation == set.metadata.generation && wish(s))
    };
    cluster.wait_until::<DaemonSet>("default", "d", what, wish).await
}

fn complete(count: i32) -> impl Fn(&DaemonSetStatus) -> bool {
    move |s| {
        s.desired_number_scheduled == count
            && s.updated_number_scheduled.unwrap_or(0) == count
            && s.number_available.unwrap_or(0) == count
            && s.number_misscheduled == 0
    }
}

async fn patch(cluster: &Cluster, spec: Value) {
    let patch = Patch::Strategic(json!({"spec": spec}));
    cluster.api::<DaemonSet>("default").patch("d", &PatchParams::default(), &patch).await.unwrap();
}

async fn patch_node(cluster: &Cluster, name: &str, patch: Value) {
    cluster.all::<Node>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// The pods by the node that they are for.
async fn pods(cluster: &Cluster) -> BTreeMap<String, Pod> {
    let pods = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
    let node = |pod: &Pod| {
        let view = testkit::object(json!(pod));
        super::pods::node_of(&view).unwrap().to_owned()
    };
    pods.into_iter().map(|pod| (node(&pod), pod)).collect()
}

#[tokio::test]
async fn each_node_that_fits_has_a_pod() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    nodes(&cluster, &["a", "b", "c"]).await;
    patch_node(&cluster, "c", json!({"metadata": {"labels": {"disk": "ssd"}}})).await;
    cluster.create("default", &set(json!({}))).await;
    let made = wait(&cluster, "3 available", complete(3)).await;
    assert_eq!(pods(&cluster).await.keys().collect::<Vec<_>>(), ["a", "b", "c"]);

    // Nodes come, change and go.
    nodes(&cluster, &["e"]).await;
    wait(&cluster, "4 available", complete(4)).await;
    let taint = json!({"spec": {"taints": [{"key": "own", "effect": "NoExecute"}]}});
    patch_node(&cluster, "e", taint).await;
    wait(&cluster, "e to be left", complete(3)).await;
    cluster
        .wait_for("its pod to go", || async { (!pods(&cluster).await.contains_key("e")).then_some(()) })
        .await;
    patch_node(&cluster, "b", json!({"spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]}})).await;
    let kept = wait(&cluster, "b not to be wanted", |s| s.desired_number_scheduled == 2).await;
    assert_eq!(kept.status.unwrap().number_misscheduled, 1);
    assert!(pods(&cluster).await.contains_key("b"));

    patch(&cluster, json!({"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}})).await;
    wait(&cluster, "c alone", complete(1)).await;
    cluster
        .wait_for("only one pod", || async { (pods(&cluster).await.keys().eq(["c"])).then_some(()) })
        .await;
    assert_eq!(made.metadata.generation, Some(1));
}

#[tokio::test]
async fn updates_roll_and_roll_back() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    nodes(&cluster, &["a", "b", "c"]).await;
    cluster.create("default", &set(json!({}))).await;
    wait(&cluster, "3 available", complete(3)).await;
    let image =
        |image: &str| json!({"template": {"spec": {"containers": [{"name": "main", "image": image}]}}});
    patch(&cluster, image("app:v2")).await;
    wait(&cluster, "3 new", complete(3)).await;
    let images = || async {
        let of = |pod: Pod| pod.spec.unwrap().containers[0].image.clone().unwrap();
        pods(&cluster).await.into_values().map(of).collect::<Vec<_>>()
    };
    cluster.wait_for("new images", || async { (images().await == ["app:v2"; 3]).then_some(()) }).await;

    // As `kubectl rollout undo` does: the first revision's patch.
    let api = cluster.api::<ControllerRevision>("default");
    let all = api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), 2);
    let first = all.iter().find(|r| r.revision == 1).unwrap();
    let back = Patch::Strategic(first.data.clone().unwrap().0);
    cluster.api::<DaemonSet>("default").patch("d", &PatchParams::default(), &back).await.unwrap();
    wait(&cluster, "3 as at first", complete(3)).await;
    cluster.wait_for("old images", || async { (images().await == ["app:v1"; 3]).then_some(()) }).await;
    let name = first.metadata.name.as_deref().unwrap();
    assert_eq!(api.get(name).await.unwrap().revision, 3);

    patch(&cluster, json!({"revisionHistoryLimit": 0})).await;
    cluster
        .wait_for("one revision", || async {
            (api.list(&ListParams::default()).await.unwrap().items.len() == 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_surge_keeps_each_node_served() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    nodes(&cluster, &["a", "b"]).await;
    let surge = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    cluster.create("default", &set(surge)).await;
    wait(&cluster, "2 available", complete(2)).await;
    patch(&cluster, json!({"template": {"metadata": {"annotations": {"a": "b"}}}})).await;
    wait(&cluster, "2 new", complete(2)).await;
    cluster
        .wait_for("the old to go", || async {
            let all = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
            (all.len() == 2).then_some(())
        })
        .await;
}

#[tokio::test]
async fn on_delete_waits_for_somebody_to_delete() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    nodes(&cluster, &["a", "b"]).await;
    cluster.create("default", &set(json!({"updateStrategy": {"type": "OnDelete"}}))).await;
    wait(&cluster, "2 available", complete(2)).await;
    patch(&cluster, json!({"template": {"metadata": {"annotations": {"a": "b"}}}})).await;
    wait(&cluster, "none new", |s| s.updated_number_scheduled.is_none() && s.number_ready == 2).await;
    let name = pods(&cluster).await["a"].metadata.name.clone().unwrap();
    cluster.api::<Pod>("default").delete(&name, &DeleteParams::default()).await.unwrap();
    wait(&cluster, "1 new", |s| s.updated_number_scheduled == Some(1) && s.number_ready == 2).await;
}

#[tokio::test]
async fn failed_pods_are_replaced_and_named() {
    let cluster = cluster().await;
    run_kubelet(&cluster, first_fails());
    nodes(&cluster, &["a"]).await;
    cluster.create("default", &set(json!({}))).await;
    wait(&cluster, "1 available", complete(1)).await;
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("an event", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.iter().any(|e| e.reason.as_deref() == Some("FailedDaemonPod")).then_some(())
        })
        .await;
}
