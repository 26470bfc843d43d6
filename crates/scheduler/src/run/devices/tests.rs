use client::k8s_openapi::api::core::v1::{Event, Pod};
use client::k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, node, object};

use super::super::tests::{cluster, node_of, scheduled};

const DRIVER: &str = "gpu.example.com";

async fn slice(cluster: &Cluster, node: &str, devices: Value) {
    let slice: ResourceSlice = object(json!({"metadata": {"name": format!("{node}-slice")}, "spec": {
        "driver": DRIVER, "nodeName": node, "devices": devices,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}}));
    cluster.create_global(&slice).await;
}

async fn claim(cluster: &Cluster, name: &str) {
    let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
    let claim: ResourceClaim =
        object(json!({"metadata": {"name": name}, "spec": {"devices": {"requests": requests}}}));
    cluster.create("default", &claim).await;
}

async fn pod(cluster: &Cluster, name: &str, claim: &str) {
    let pod: Pod = object(json!({"metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}}],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]}}));
    cluster.create("default", &pod).await;
}

async fn start() -> Cluster {
    let cluster = cluster().await;
    cluster.create_node(&node("n1", 4, 8, 10)).await;
    let class: DeviceClass = object(json!({"metadata": {"name": "gpu"}, "spec": {}}));
    cluster.create_global(&class).await;
    cluster
}

fn says<'a>(what: &'a str) -> impl Fn(&Pod) -> bool + 'a {
    move |pod| scheduled(pod).is_some_and(|(is, why)| is == "False" && why.contains(what))
}

fn has_devices(claim: &ResourceClaim) -> bool {
    !client::devices::results(claim).is_empty()
}

#[tokio::test]
async fn pods_wait_for_devices_and_for_each_other() {
    let cluster = start().await;
    claim(&cluster, "shared").await;
    claim(&cluster, "late").await;
    pod(&cluster, "first", "shared").await;
    cluster.wait_until("default", "first", "to be told why", says("cannot allocate all claims")).await;
    slice(&cluster, "n1", json!([{"name": "x"}])).await;
    assert_eq!(node_of(&cluster, "first").await, "n1");
    let given = cluster.wait_until("default", "shared", "its device", has_devices).await;
    assert!(client::devices::is_protected(&given.metadata));
    let consumers: Vec<&str> = client::devices::consumers(&given).iter().map(|c| c.name.as_str()).collect();
    assert_eq!(consumers, ["first"]);
    assert!(client::devices::allocation(&given).unwrap().allocation_timestamp.is_some());
    // The claim can be shared, its device cannot be had by another claim.
    pod(&cluster, "second", "shared").await;
    assert_eq!(node_of(&cluster, "second").await, "n1");
    pod(&cluster, "third", "late").await;
    cluster.wait_until("default", "third", "to be told why", says("cannot allocate all claims")).await;
    // Somebody frees the first claim.
    let free = json!({"status": {"allocation": null, "reservedFor": null}});
    let claims = cluster.api::<ResourceClaim>("default");
    claims.patch_status("shared", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    assert_eq!(node_of(&cluster, "third").await, "n1");
}

#[tokio::test]
async fn a_device_may_have_to_get_ready_first() {
    let cluster = start().await;
    let device = |name: &str| {
        json!({"name": name, "bindsToNode": true,
        "bindingConditions": ["attached"], "bindingFailureConditions": ["broken"]})
    };
    slice(&cluster, "n1", json!([device("x"), device("y")])).await;
    let condition = |device: &str, condition: &str| {
        let now = base::Clock::now(&*cluster.clock).to_string();
        json!({"status": {"devices": [{"driver": DRIVER, "pool": "n1", "device": device, "conditions": [
            {"type": condition, "status": "True", "reason": "R", "message": "", "lastTransitionTime": now}]}]}})
    };
    let claims = cluster.api::<ResourceClaim>("default");
    let bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());

    claim(&cluster, "good").await;
    pod(&cluster, "p", "good").await;
    let given = cluster.wait_until("default", "good", "its device", has_devices).await;
    let waiting = cluster.api::<Pod>("default").get("p").await.unwrap();
    assert!(!bound(&waiting), "its device is not ready");
    let expected = |pod: &Pod| pod.status.as_ref().is_some_and(|s| s.nominated_node_name.is_some());
    let told = cluster.wait_until("default", "p", "to be expected on its node", expected).await;
    assert_eq!(told.status.unwrap().nominated_node_name.as_deref(), Some("n1"));
    let events = cluster.api::<Event>("default");
    let pending = || async {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let said = |e: &Event| {
            e.reason.as_deref() == Some("BindingConditionsPending")
                && e.message.as_deref() == Some("waiting for binding conditions for device on node n1")
        };
        all.iter().any(said).then_some(())
    };
    cluster.wait_for("the event", pending).await;
    let device = client::devices::results(&given)[0].device.clone();
    let ready = Patch::Merge(condition(&device, "attached"));
    claims.patch_status("good", &PatchParams::default(), &ready).await.unwrap();
    assert_eq!(node_of(&cluster, "p").await, "n1");
    let there = cluster.api::<Pod>("default").get("p").await.unwrap();
    assert_eq!(there.status.unwrap().nominated_node_name, None, "it has its node");

    claim(&cluster, "bad").await;
    pod(&cluster, "q", "bad").await;
    let given = cluster.wait_until("default", "bad", "its device", has_devices).await;
    let device = client::devices::results(&given)[0].device.clone();
    let broken = Patch::Merge(condition(&device, "broken"));
    claims.patch_status("bad", &PatchParams::default(), &broken).await.unwrap();
    let why = "running PreBind plugin \"DynamicResources\": claim bad binding failed: reason=R, message=\"\"";
    cluster.wait_until("default", "q", "to be told why", says(why)).await;
    // It is not bound to what is broken: the device is given back, and looked for anew.
    let anew = |claim: &ResourceClaim| {
        let said = claim.status.iter().flat_map(|s| s.devices.iter().flatten());
        said.into_iter().all(|device| device.conditions.as_ref().is_none_or(Vec::is_empty))
    };
    cluster.wait_until("default", "bad", "to be free", anew).await;
    let given = cluster.wait_until("default", "bad", "a device", has_devices).await;
    let waiting = cluster.api::<Pod>("default").get("q").await.unwrap();
    assert!(!bound(&waiting), "its device is not ready");
    let device = client::devices::results(&given)[0].device.clone();
    let ready = Patch::Merge(condition(&device, "attached"));
    claims.patch_status("bad", &PatchParams::default(), &ready).await.unwrap();
    assert_eq!(node_of(&cluster, "q").await, "n1");
}

#[tokio::test]
async fn a_claim_is_made_for_extended_resources() {
    let cluster = start().await;
    let class: DeviceClass = object(
        json!({"metadata": {"name": "extended"}, "spec": {"extendedResourceName": "example.com/gpu"}}),
    );
    cluster.create_global(&class).await;
    slice(&cluster, "n1", json!([{"name": "x"}, {"name": "y"}])).await;
    let amounts = json!({"requests": {"example.com/gpu": "2"}, "limits": {"example.com/gpu": "2"}});
    let pod: Pod = object(json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "i", "resources": amounts}]}}));
    cluster.create("default", &pod).await;
    assert_eq!(node_of(&cluster, "p").await, "n1");
    let pod = cluster.api::<Pod>("default").get("p").await.unwrap();
    let status = pod.status.unwrap().extended_resource_claim_status.expect("what was made for it");
    assert!(status.resource_claim_name.starts_with("p-extended-resources-"));
    assert_eq!(status.request_mappings[0].container_name, "c");
    let claim = cluster.api::<ResourceClaim>("default").get(&status.resource_claim_name).await.unwrap();
    assert_eq!(client::devices::results(&claim).len(), 2);
    assert_eq!(client::devices::consumers(&claim)[0].name, "p");
}
