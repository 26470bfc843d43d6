use client::k8s_openapi::api::core::v1::{Event, Pod};
use client::k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, object};

use crate::testing::cluster;

async fn template(cluster: &Cluster, name: &str) {
    let template: ResourceClaimTemplate = object(json!({"metadata": {"name": name}, "spec": {
        "metadata": {"labels": {"from": "template"}},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}}));
    cluster.create("default", &template).await;
}

fn pod(name: &str, claim: Value) -> Pod {
    let mut pod = testkit::pod(name, name);
    pod.spec.as_mut().unwrap().resource_claims = Some(vec![object(claim)]);
    pod
}

fn made_for(pod: &Pod) -> Option<String> {
    let made = pod.status.as_ref()?.resource_claim_statuses.as_ref()?.first()?;
    made.resource_claim_name.clone()
}

/// Does what the scheduler would do.
async fn allocate(cluster: &Cluster, claim: &str, pods: &[&Pod]) {
    let claims = cluster.api::<ResourceClaim>("default");
    let protect = json!({"metadata": {"finalizers": [client::devices::FINALIZER]}});
    claims.patch(claim, &PatchParams::default(), &Patch::Merge(protect)).await.unwrap();
    let consumers: Vec<Value> = pods
        .iter()
        .map(|pod| json!({"resource": "pods", "name": pod.name_any(), "uid": pod.metadata.uid}))
        .collect();
    let result = json!({"request": "r", "driver": "gpu.example.com", "pool": "p", "device": "d"});
    let status =
        json!({"status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": consumers}});
    claims.patch_status(claim, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn finish(cluster: &Cluster, pod: &str) {
    let over = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    cluster.api::<Pod>("default").patch_status(pod, &PatchParams::default(), &over).await.unwrap();
}

#[tokio::test]
async fn a_pod_gets_a_claim_of_its_template_until_it_is_over() {
    let cluster = cluster().await;
    let class: DeviceClass = object(json!({"metadata": {"name": "gpu"}, "spec": {}}));
    cluster.create_global(&class).await;
    let late = pod("p", json!({"name": "gpu", "resourceClaimTemplateName": "t"}));
    cluster.create("default", &late).await;
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("why there is no claim", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.into_iter().find(|e| {
                e.reason.as_deref() == Some("FailedResourceClaimCreation")
                    && e.message
                        .as_deref()
                        .is_some_and(|m| m.starts_with("PodResourceClaim gpu: resource claim template"))
            })
        })
        .await;
    template(&cluster, "t").await;
    let is_told = |pod: &Pod| made_for(pod).is_some();
    let told = cluster.wait_until("default", "p", "to be told of its claim", is_told).await;
    let name = made_for(&told).unwrap();
    assert!(name.starts_with("p-gpu-"), "{name}");
    let claim = cluster.api::<ResourceClaim>("default").get(&name).await.unwrap();
    assert_eq!(claim.labels()["from"], "template");
    assert_eq!(claim.annotations()[client::devices::POD_CLAIM], "gpu");
    assert!(client::is_controlled_by(&claim.metadata, told.metadata.uid.as_deref().unwrap()));
    assert_eq!(
        cluster.api::<ResourceClaim>("default").list(&ListParams::default()).await.unwrap().items.len(),
        1
    );

    allocate(&cluster, &name, &[&told]).await;
    finish(&cluster, "p").await;
    cluster.wait_gone::<ResourceClaim>("default", &name).await;
}

#[tokio::test]
async fn a_shared_claim_is_freed_by_the_last_pod_and_stays() {
    let cluster = cluster().await;
    let claim: ResourceClaim = object(json!({"metadata": {"name": "shared"}, "spec": {"devices": {
        "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}));
    cluster.create("default", &claim).await;
    let mut pods = Vec::new();
    for name in ["p", "q"] {
        let pod = pod(name, json!({"name": "gpu", "resourceClaimName": "shared"}));
        pods.push(cluster.create("default", &pod).await);
    }
    allocate(&cluster, "shared", &[&pods[0], &pods[1]]).await;
    finish(&cluster, "p").await;
    let consumers = |claim: &ResourceClaim| -> Vec<String> {
        client::devices::consumers(claim).iter().map(|c| c.name.clone()).collect()
    };
    let one_left = |claim: &ResourceClaim| consumers(claim) == ["q"];
    let claim = cluster.wait_until("default", "shared", "to be left by one", one_left).await;
    assert!(client::devices::allocation(&claim).is_some());
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    cluster.api::<Pod>("default").delete("q", &now).await.unwrap();
    let is_free = |claim: &ResourceClaim| {
        client::devices::allocation(claim).is_none() && !client::devices::is_protected(&claim.metadata)
    };
    cluster.wait_until("default", "shared", "to be free", is_free).await;
}

#[tokio::test]
async fn a_deleted_claim_goes_once_nobody_has_it() {
    let cluster = cluster().await;
    let claim: ResourceClaim = object(json!({"metadata": {"name": "c"}, "spec": {"devices": {
        "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}));
    cluster.create("default", &claim).await;
    let made = pod("p", json!({"name": "gpu", "resourceClaimName": "c"}));
    let made = cluster.create("default", &made).await;
    allocate(&cluster, "c", &[&made]).await;
    cluster.api::<ResourceClaim>("default").delete("c", &DeleteParams::default()).await.unwrap();
    let kept = cluster.api::<ResourceClaim>("default").get("c").await.unwrap();
    assert!(client::is_deleting(&kept.metadata));
    finish(&cluster, "p").await;
    cluster.wait_gone::<ResourceClaim>("default", "c").await;
}
