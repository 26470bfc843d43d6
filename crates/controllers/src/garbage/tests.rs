use client::controller_of;
use client::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use client::k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use testkit::{Cluster, Outcome, object, run_kubelet};

use crate::testing::cluster;

async fn pods(cluster: &Cluster) -> Vec<Pod> {
    cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items
}

async fn running(cluster: &Cluster, name: &str, count: i32) {
    cluster
        .wait_until::<Deployment>("default", name, "to run", |d| {
            d.status.as_ref().and_then(|s| s.available_replicas) == Some(count)
        })
        .await;
}

#[tokio::test]
async fn a_deployment_takes_everything_along_in_the_background() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::deployment("web", 3)).await;
    running(&cluster, "web", 3).await;
    cluster.api::<Deployment>("default").delete("web", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone::<Deployment>("default", "web").await;
    cluster
        .wait_for("all of it to go", || async {
            let sets = cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items;
            (sets.is_empty() && pods(&cluster).await.is_empty()).then_some(())
        })
        .await;
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let cluster = cluster().await;
    // Pods linger until the kubelet below says goodbye.
    for n in 0..2 {
        let mut node = testkit::node(&format!("n{n}"), 4, 4, 10);
        node.spec = None;
        cluster.create_global(&node).await;
    }
    let mut set = testkit::replica_set("web", 2);
    let template = set.spec.as_mut().unwrap().template.as_mut().unwrap();
    template.spec.as_mut().unwrap().node_name = Some("n1".into());
    cluster.create("default", &set).await;
    cluster.wait_for("two pods", || async { (pods(&cluster).await.len() == 2).then_some(()) }).await;
    let sets = cluster.api::<ReplicaSet>("default");
    sets.delete("web", &DeleteParams::foreground()).await.unwrap();
    cluster
        .wait_for("the pods to be deleted", || async {
            pods(&cluster).await.iter().all(|p| p.metadata.deletion_timestamp.is_some()).then_some(())
        })
        .await;
    let held = sets.get("web").await.unwrap();
    assert_eq!(held.metadata.finalizers, Some(vec!["foregroundDeletion".to_owned()]));
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.wait_gone::<ReplicaSet>("default", "web").await;
    assert!(pods(&cluster).await.is_empty());
}

#[tokio::test]
async fn orphans_stay() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::replica_set("web", 2)).await;
    cluster.wait_for("two pods", || async { (pods(&cluster).await.len() == 2).then_some(()) }).await;
    let orphan =
        DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..Default::default() };
    cluster.api::<ReplicaSet>("default").delete("web", &orphan).await.unwrap();
    cluster.wait_gone::<ReplicaSet>("default", "web").await;
    let left = pods(&cluster).await;
    assert_eq!(left.len(), 2);
    assert!(
        left.iter().all(|p| controller_of(&p.metadata).is_none() && p.metadata.deletion_timestamp.is_none())
    );
}

#[tokio::test]
async fn absent_owners_are_told_from_those_that_are_there() {
    let cluster = cluster().await;
    let map = |name: &str, owners: serde_json::Value| -> ConfigMap {
        object(json!({"metadata": {"name": name, "ownerReferences": owners}}))
    };
    let owner = cluster.create("default", &map("owner", json!(null))).await;
    let reference =
        |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let alive = reference("owner", owner.metadata.uid.as_deref().unwrap());
    // The name fits and the UID does not: the owner was made anew since.
    let gone = reference("owner", "11111111-2222-3333-4444-555555555555");
    cluster.create("default", &map("kept", json!([alive, gone]))).await;
    cluster.create("default", &map("lost", json!([gone]))).await;
    cluster.wait_gone::<ConfigMap>("default", "lost").await;
    let kept = cluster
        .wait_until::<ConfigMap>("default", "kept", "to have one owner", |m| {
            m.metadata.owner_references.as_ref().is_some_and(|o| o.len() == 1)
        })
        .await;
    assert_eq!(kept.metadata.owner_references.unwrap()[0].uid, owner.metadata.uid.unwrap());
}

/// Whoever refers to an owner in another namespace loses what does so, and harms nobody else.
#[tokio::test]
async fn an_owner_in_another_namespace_is_none() {
    let cluster = cluster().await;
    cluster.create_global(&object::<Namespace>(json!({"metadata": {"name": "other"}}))).await;
    cluster.wait_until::<ServiceAccount>("other", "default", "to be made", |_| true).await;
    let map = |name: &str, owners: serde_json::Value| -> ConfigMap {
        object(json!({"metadata": {"name": name, "ownerReferences": owners}}))
    };
    let owner = cluster.create("default", &map("owner", json!(null))).await;
    let uid = owner.metadata.uid.as_deref().unwrap();
    let reference =
        |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let foreign = cluster.create("other", &map("foreign", json!([reference("owner", uid)]))).await;
    cluster.wait_gone::<ConfigMap>("other", "foreign").await;
    let events = cluster.api::<Event>("other");
    let said = cluster
        .wait_for("the event", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.into_iter().find(|e| e.reason.as_deref() == Some("OwnerRefInvalidNamespace"))
        })
        .await;
    assert_eq!(said.involved_object.uid, foreign.metadata.uid);
    let message = format!(
        "ownerRef [v1/ConfigMap, namespace: other, name: owner, uid: {uid}] does not exist in namespace \"other\""
    );
    assert_eq!(said.message, Some(message));
    // Its owner was found absent there, and is not absent here.
    let gone = reference("owner", "11111111-2222-3333-4444-555555555555");
    cluster.create("default", &map("child", json!([reference("owner", uid), gone]))).await;
    let child = cluster
        .wait_for("the child to go or to have one owner", || async {
            match cluster.api::<ConfigMap>("default").get_opt("child").await.unwrap() {
                None => Some(None),
                Some(m) => {
                    m.metadata.owner_references.as_ref().is_some_and(|o| o.len() == 1).then_some(Some(m))
                }
            }
        })
        .await;
    assert!(child.is_some(), "the child of a living owner was deleted");
}
