use client::storage;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::Cluster;

use super::*;
use crate::testing::cluster;
use crate::volume::testing::*;

async fn wait_going(cluster: &Cluster, name: &str) {
    let going = |c: &PersistentVolumeClaim| is_deleting(&c.metadata);
    cluster.wait_until("default", name, "to be going", going).await;
}

#[tokio::test]
async fn a_claim_stays_as_long_as_a_pod_uses_it() {
    let cluster = cluster().await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let pods = cluster.api::<Pod>("default");
    for name in ["used", "waiting", "unused"] {
        cluster.create("default", &claim(name, json!({}))).await;
    }
    let mut user = pod("user", &["used"]);
    user.spec.as_mut().unwrap().node_name = Some("n1".into());
    cluster.create("default", &user).await;
    // It will never start: its agent would see that the claim is going.
    cluster.create("default", &pod("late", &["waiting"])).await;
    for name in ["used", "waiting", "unused"] {
        claims.delete(name, &DeleteParams::default()).await.unwrap();
    }
    cluster.wait_gone::<PersistentVolumeClaim>("default", "unused").await;
    cluster.wait_gone::<PersistentVolumeClaim>("default", "waiting").await;
    wait_going(&cluster, "used").await;
    // A pod at its end holds its claims still.
    let over = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("user", &PatchParams::default(), &over).await.unwrap();
    wait_going(&cluster, "used").await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    pods.delete("user", &now).await.unwrap();
    cluster.wait_gone::<PersistentVolumeClaim>("default", "used").await;
}

#[tokio::test]
async fn a_volume_stays_as_long_as_a_claim_has_it() {
    let cluster = cluster().await;
    let (claims, volumes) = (cluster.api::<PersistentVolumeClaim>("default"), cluster.all());
    let gone = |name: &'static str| {
        let volumes: Api<k8s_openapi::api::core::v1::PersistentVolume> = volumes.clone();
        let cluster = &cluster;
        async move {
            let look = || async { volumes.get_opt(name).await.unwrap().is_none().then_some(()) };
            cluster.wait_for("the volume to go", look).await;
        }
    };
    for name in ["bound", "free"] {
        cluster.create_global(&volume(name, json!({}))).await;
    }
    cluster.create("default", &claim("c", json!({"volumeName": "bound"}))).await;
    wait_claim(&cluster, "c", "Bound").await;
    for name in ["bound", "free"] {
        volumes.delete(name, &DeleteParams::default()).await.unwrap();
    }
    gone("free").await;
    assert!(volumes.get_opt("bound").await.unwrap().is_some());
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    gone("bound").await;
}

#[tokio::test]
async fn finalizers_come_to_those_that_have_none() {
    let cluster = cluster().await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    cluster.create("default", &claim("c", json!({}))).await;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    claims.patch("c", &PatchParams::default(), &none).await.unwrap();
    let has = |c: &PersistentVolumeClaim| c.finalizers() == ["kubernetes.io/pvc-protection"];
    cluster.wait_until("default", "c", "to be protected again", has).await;
}

#[tokio::test]
async fn a_class_of_attributes_stays_as_long_as_something_is_of_it() {
    let cluster = cluster().await;
    let class: VolumeAttributesClass = testkit::object(
        json!({"metadata": {"name": "gold"}, "driverName": "x.io", "parameters": {"iops": "1"}}),
    );
    cluster.create_global(&class).await;
    let csi = json!({"hostPath": null, "csi": {"driver": "x.io", "volumeHandle": "h"}, "volumeAttributesClassName": "gold"});
    cluster.create_global(&volume("v", csi)).await;
    cluster.create("default", &claim("c", json!({"volumeAttributesClassName": "gold"}))).await;
    let bound = wait_claim(&cluster, "c", "Bound").await;
    assert_eq!(bound.status.unwrap().current_volume_attributes_class_name.as_deref(), Some("gold"));
    let classes = cluster.all::<VolumeAttributesClass>();
    classes.delete("gold", &DeleteParams::default()).await.unwrap();
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    let released = wait_phase(&cluster, "v", "Released").await;
    assert!(storage::claim_of(&released).is_some());
    assert!(classes.get_opt("gold").await.unwrap().is_some());
    cluster
        .all::<k8s_openapi::api::core::v1::PersistentVolume>()
        .delete("v", &DeleteParams::default())
        .await
        .unwrap();
    let look = || async { classes.get_opt("gold").await.unwrap().is_none().then_some(()) };
    cluster.wait_for("the class to go", look).await;
}
