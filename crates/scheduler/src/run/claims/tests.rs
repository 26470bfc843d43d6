//! The scheduler against the real API server; the test plays binder and provisioner.

use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::api::storage::v1::StorageClass;
use client::storage::{self, annotation};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, node, object};

use super::super::tests::{cluster, node_of, scheduled};
use super::*;

async fn claim(cluster: &Cluster, name: &str, class: &str) -> PersistentVolumeClaim {
    let claim = json!({"metadata": {"name": name}, "spec": {"storageClassName": class,
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create("default", &object::<PersistentVolumeClaim>(claim)).await
}

async fn class(cluster: &Cluster, name: &str, provisioner: &str) {
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.create_global(&object::<StorageClass>(class)).await;
}

async fn volume(cluster: &Cluster, name: &str, class: &str, node: &str) {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
    let volume = json!({"metadata": {"name": name}, "spec": {"storageClassName": class,
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "local": {"path": "/data"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
    cluster.create_global(&object::<PersistentVolume>(volume)).await;
    let free = Patch::Merge(json!({"status": {"phase": "Available"}}));
    cluster.all::<PersistentVolume>().patch_status(name, &PatchParams::default(), &free).await.unwrap();
}

async fn pod(cluster: &Cluster, name: &str, claim: &str) {
    let mut pod = testkit::pod(name, name);
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    pod.spec.as_mut().unwrap().volumes = Some(object(volumes));
    cluster.create("default", &pod).await;
}

async fn told(cluster: &Cluster, name: &str, what: &str) {
    let told = |p: &Pod| scheduled(p).is_some_and(|(_, why)| why.contains(what));
    cluster.wait_until("default", name, &format!("to be told {what}"), told).await;
}

/// What the binder does.
async fn bind(cluster: &Cluster, claim: &str, volume: &str) {
    let change = json!({"metadata": {"annotations": {storage::BIND_COMPLETED: "yes"}}, "spec": {"volumeName": volume}});
    patch_claim(cluster, claim, change).await;
}

async fn patch_claim(cluster: &Cluster, claim: &str, change: Value) {
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    claims.patch(claim, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

async fn wait_reserved(cluster: &Cluster, volume: &str, claim: &str) {
    let api = cluster.all::<PersistentVolume>();
    cluster
        .wait_for(&format!("volume {volume} to be set aside for {claim}"), || async {
            let volume = api.get(volume).await.unwrap();
            let reference = storage::claim_of(&volume)?;
            (reference.name.as_deref() == Some(claim) && reference.uid.is_some()).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_pod_goes_where_its_volume_is() {
    let cluster = cluster().await;
    for name in ["n1", "n2"] {
        cluster.create_node(&node(name, 4, 4, 10)).await;
    }
    pod(&cluster, "p", "c").await;
    told(&cluster, "p", "persistentvolumeclaim \"c\" not found").await;
    class(&cluster, "by-hand", storage::NO_PROVISIONER).await;
    claim(&cluster, "c", "by-hand").await;
    told(&cluster, "p", "2 node(s) didn't find available persistent volumes to bind").await;
    volume(&cluster, "v", "by-hand", "n2").await;
    wait_reserved(&cluster, "v", "c").await;
    let waiting = cluster.api::<Pod>("default").get("p").await.unwrap();
    assert_eq!(waiting.spec.unwrap().node_name, None, "its claim is not bound yet");
    let expected = waiting.status.unwrap().nominated_node_name;
    assert_eq!(expected.as_deref(), Some("n2"), "it is said where it is about to go");
    bind(&cluster, "c", "v").await;
    assert_eq!(node_of(&cluster, "p").await, "n2");
    let there = cluster.api::<Pod>("default").get("p").await.unwrap();
    assert_eq!(there.status.unwrap().nominated_node_name, None, "it is there");

    // Another pod with the same claim has no choice.
    pod(&cluster, "q", "c").await;
    assert_eq!(node_of(&cluster, "q").await, "n2");
}

#[tokio::test]
async fn a_volume_is_made_where_the_pod_goes_or_the_pod_goes_elsewhere() {
    let cluster = cluster().await;
    class(&cluster, "made", "x.io/y").await;
    claim(&cluster, "c", "made").await;
    cluster.create_node(&node("n1", 4, 4, 10)).await;
    pod(&cluster, "p", "c").await;
    let selected = |on: &'static str| {
        move |c: &PersistentVolumeClaim| annotation(&c.metadata, storage::SELECTED_NODE) == Some(on)
    };
    cluster.wait_until("default", "c", "to name its node", selected("n1")).await;
    // The provisioner has no room there, and says so by taking the node's name away.
    cluster.create_node(&node("n2", 4, 4, 10)).await;
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    let nodes = cluster.all::<client::k8s_openapi::api::core::v1::Node>();
    nodes.patch("n1", &PatchParams::default(), &cordon).await.unwrap();
    let informer = cluster.informers.of::<client::k8s_openapi::api::core::v1::Node>();
    let seen = || async {
        let node = informer.store().by_name("", "n1")?;
        node.spec.as_ref()?.unschedulable.filter(|on| *on)
    };
    cluster.wait_for("the cordon to be seen", seen).await;
    patch_claim(&cluster, "c", json!({"metadata": {"annotations": {storage::SELECTED_NODE: null}}})).await;
    cluster.wait_until("default", "c", "to name another node", selected("n2")).await;
    volume(&cluster, "v", "made", "n2").await;
    bind(&cluster, "c", "v").await;
    assert_eq!(node_of(&cluster, "p").await, "n2");
}

#[tokio::test]
async fn two_pods_race_for_one_volume_and_one_that_is_deleted_frees_it() {
    let cluster = cluster().await;
    cluster.create_node(&node("n1", 4, 4, 10)).await;
    class(&cluster, "by-hand", storage::NO_PROVISIONER).await;
    for name in ["a", "b"] {
        claim(&cluster, name, "by-hand").await;
    }
    volume(&cluster, "v", "by-hand", "n1").await;
    let informer = cluster.informers.of::<PersistentVolume>();
    let seen = || async {
        let volume = informer.store().by_name("", "v")?;
        (storage::volume_phase(&volume) == "Available").then_some(())
    };
    cluster.wait_for("the volume to be seen", seen).await;
    pod(&cluster, "a", "a").await;
    wait_reserved(&cluster, "v", "a").await;
    pod(&cluster, "b", "b").await;
    told(&cluster, "b", "didn't find available persistent volumes to bind").await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    cluster.api::<Pod>("default").delete("a", &now).await.unwrap();
    // What is written stays; that nobody needs it any more, the binder would find out when the claim goes.
    let free = Patch::Merge(json!({"spec": {"claimRef": null}}));
    cluster.all::<PersistentVolume>().patch("v", &PatchParams::default(), &free).await.unwrap();
    wait_reserved(&cluster, "v", "b").await;
    bind(&cluster, "b", "v").await;
    assert_eq!(node_of(&cluster, "b").await, "n1");
}

#[tokio::test]
async fn who_waits_for_too_long_is_tried_again() {
    let cluster = cluster().await;
    cluster.create_node(&node("n1", 4, 4, 10)).await;
    class(&cluster, "made", "x.io/y").await;
    claim(&cluster, "c", "made").await;
    pod(&cluster, "p", "c").await;
    let named = |c: &PersistentVolumeClaim| annotation(&c.metadata, storage::SELECTED_NODE) == Some("n1");
    cluster.wait_until("default", "c", "to name its node", named).await;
    let patience = crate::config::Profile::standard().bind_timeout;
    let why = "running PreBind plugin \"VolumeBinding\": binding volumes: context deadline exceeded";
    let pods = cluster.api::<Pod>("default");
    // The claim is seen to name its node before the scheduler begins to wait, so time may have to pass again.
    for _ in 0..600 {
        let pod = pods.get("p").await.unwrap();
        if scheduled(&pod).is_some_and(|(_, said)| said.contains(why)) {
            break;
        }
        // Only for a moment: the store's threads would not be waited for otherwise.
        tokio::time::pause();
        tokio::time::advance(patience + std::time::Duration::from_secs(1)).await;
        tokio::time::resume();
        let next = cluster.api.store().wait_for(cluster.api.store().revision() + 1);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), next).await;
    }
    told(&cluster, "p", why).await;
    volume(&cluster, "v", "made", "n1").await;
    bind(&cluster, "c", "v").await;
    assert_eq!(node_of(&cluster, "p").await, "n1");
}
