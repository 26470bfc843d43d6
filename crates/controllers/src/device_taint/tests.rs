use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;
use client::k8s_openapi::api::core::v1::{Event, Pod};
use client::k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, node, object};

use crate::testing::cluster_at;

const DRIVER: &str = "gpu.example.com";

/// A pod on a node that has a claim with the device.
async fn user(cluster: &Cluster, name: &str, device: &str, tolerations: Value) {
    let claim: ResourceClaim = object(json!({"metadata": {"name": name}, "spec": {"devices": {
        "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}));
    cluster.create("default", &claim).await;
    let mut pod = testkit::pod(name, name);
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = Some("n1".into());
    spec.resource_claims = Some(vec![object(json!({"name": "gpu", "resourceClaimName": name}))]);
    let pod = cluster.create("default", &pod).await;
    let consumer = json!({"resource": "pods", "name": name, "uid": pod.metadata.uid});
    let result =
        json!({"request": "r", "driver": DRIVER, "pool": "n1", "device": device, "tolerations": tolerations});
    let status =
        json!({"status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": [consumer]}});
    let claims = cluster.api::<ResourceClaim>("default");
    claims.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

fn disrupted(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("DeletionByDeviceTaintManager"))
}

async fn pass(clock: &ManualClock, seconds: u64) {
    clock.advance(Duration::from_secs(seconds));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn pods_leave_a_tainted_device_when_they_must() {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = cluster_at(Arc::new(clock.clone())).await;
    cluster.create_node(&node("n1", 4, 8, 10)).await;
    let slice: ResourceSlice = object(json!({"metadata": {"name": "s"}, "spec": {"driver": DRIVER,
        "nodeName": "n1", "devices": [{"name": "bad"}, {"name": "good"}],
        "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}}}));
    cluster.create_global(&slice).await;
    user(&cluster, "touchy", "bad", json!([])).await;
    user(&cluster, "elsewhere", "good", json!([])).await;
    let patient = json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 100}]);
    user(&cluster, "patient", "bad", patient).await;
    user(&cluster, "stoic", "bad", json!([{"operator": "Exists"}])).await;

    let taint = json!({"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"});
    let tainted = json!({"spec": {"devices": [{"name": "bad", "taints": [taint]}, {"name": "good"}]}});
    let slices = Api::<ResourceSlice>::all(cluster.client.clone());
    slices.patch("s", &PatchParams::default(), &Patch::Merge(tainted)).await.unwrap();
    let pods = cluster.api::<Pod>("default");
    let is_leaving = |name: &'static str| {
        let pods = pods.clone();
        move || {
            let pods = pods.clone();
            async move {
                match pods.get_opt(name).await.unwrap() {
                    None => Some(true),
                    Some(pod) if pod.metadata.deletion_timestamp.is_some() => Some(disrupted(&pod)),
                    Some(_) => None,
                }
            }
        }
    };
    assert!(cluster.wait_for("the touchy one to leave", is_leaving("touchy")).await, "it is told why");
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("the event", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.into_iter().find(|e| {
                e.reason.as_deref() == Some(super::EVENT)
                    && e.message.as_deref() == Some("Marking for deletion")
            })
        })
        .await;
    for name in ["patient", "stoic", "elsewhere"] {
        assert!(is_leaving(name)().await.is_none(), "{name}");
    }
    let mut passed = 0;
    while is_leaving("patient")().await.is_none() {
        assert!(passed < 1000, "the patient one stays");
        if passed == 50 {
            // Whoever corrects the clock does not make it wait until the same time comes again.
            clock.set("2025-12-31T18:00:00Z".parse().unwrap());
        }
        pass(&clock, 10).await;
        passed += 10;
        let seen = cluster.api.store().revision();
        let _ = tokio::time::timeout(Duration::from_millis(20), cluster.api.store().wait_for(seen + 1)).await;
    }
    assert!(passed >= 100, "it left after {passed} s");
    for name in ["stoic", "elsewhere"] {
        assert!(is_leaving(name)().await.is_none(), "{name}");
    }
}
