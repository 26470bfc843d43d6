use client::controller_of;
use kube::api::DeleteParams;
use serde_json::json;

use super::*;
use crate::testing::cluster;
use crate::volume::testing::{claim, wait_for_event};

fn pod(name: &str) -> Pod {
    let template = json!({"metadata": {"labels": {"of": "pod"}}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    let mut pod = testkit::pod(name, name);
    let volumes = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]);
    pod.spec.as_mut().unwrap().volumes = Some(testkit::object(volumes));
    pod
}

#[tokio::test]
async fn a_pod_gets_its_own_claim_and_takes_it_along() {
    let cluster = cluster().await;
    let made = cluster.create("default", &pod("p")).await;
    let is_there = |_: &PersistentVolumeClaim| true;
    let claim =
        cluster.wait_until::<PersistentVolumeClaim>("default", "p-scratch", "to be made", is_there).await;
    assert_eq!(controller_of(&claim.metadata).map(|owner| &owner.uid), made.metadata.uid.as_ref());
    assert_eq!(claim.metadata.labels.as_ref().unwrap()["of"], "pod");
    // While the pod stays, the claim is made anew.
    let first = claim.metadata.uid.clone();
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    claims.delete("p-scratch", &DeleteParams::default()).await.unwrap();
    let another = |c: &PersistentVolumeClaim| c.metadata.uid != first;
    cluster.wait_until("default", "p-scratch", "to be made anew", another).await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    cluster.api::<Pod>("default").delete("p", &now).await.unwrap();
    cluster.wait_gone::<PersistentVolumeClaim>("default", "p-scratch").await;
}

#[tokio::test]
async fn a_claim_that_is_not_the_pods_is_left_alone() {
    let cluster = cluster().await;
    let foreign = cluster.create("default", &claim("q-scratch", json!({}))).await;
    let informer = cluster.informers.of::<PersistentVolumeClaim>();
    let seen = || async { informer.store().by_name("default", "q-scratch") };
    cluster.wait_for("the claim to be seen", seen).await;
    cluster.create("default", &pod("q")).await;
    let why = "ephemeral volume scratch: PVC default/q-scratch was not created for pod default/q (pod is not owner)";
    wait_for_event(&cluster, "q", "FailedBinding", why).await;
    let still = cluster.api::<PersistentVolumeClaim>("default").get("q-scratch").await.unwrap();
    assert_eq!(still.metadata.uid, foreign.metadata.uid);
}
