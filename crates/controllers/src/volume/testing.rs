//! Claims, volumes and what is waited for, for the tests of this folder.

use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use serde_json::{Value, json};
use testkit::{Cluster, object};

/// A claim for 1Gi that will take no class, unless it says otherwise.
pub(crate) fn claim(name: &str, spec: Value) -> PersistentVolumeClaim {
    let mut all = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}}});
    types::patch::merge_patch(&mut all, spec);
    object(json!({"metadata": {"name": name, "namespace": "default"}, "spec": all}))
}

/// A volume of 1Gi that is kept.
pub(crate) fn volume(name: &str, spec: Value) -> PersistentVolume {
    let mut all = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/data"}});
    types::patch::merge_patch(&mut all, spec);
    object(json!({"metadata": {"name": name}, "spec": all}))
}

/// A class of this name.
pub(crate) fn class(name: &str, provisioner: &str, delayed: bool) -> StorageClass {
    let mode = if delayed { "WaitForFirstConsumer" } else { "Immediate" };
    object(json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode}))
}

/// A pod that uses claims.
pub(crate) fn pod(name: &str, claims: &[&str]) -> Pod {
    let volumes =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
    let volumes: Vec<Value> = volumes.collect();
    let mut pod = testkit::pod(name, name);
    pod.spec.as_mut().expect("a specification").volumes = Some(object(json!(volumes)));
    pod
}

pub(crate) async fn wait_claim(cluster: &Cluster, name: &str, phase: &str) -> PersistentVolumeClaim {
    let is = |claim: &PersistentVolumeClaim| client::storage::claim_phase(claim) == phase;
    cluster.wait_until("default", name, &format!("to be {phase}"), is).await
}

pub(crate) async fn wait_volume(
    cluster: &Cluster,
    name: &str,
    what: &str,
    wish: impl Fn(&PersistentVolume) -> bool,
) -> PersistentVolume {
    let api = cluster.all::<PersistentVolume>();
    cluster
        .wait_for(&format!("volume {name} {what}"), || async {
            api.get_opt(name).await.expect("a readable answer").filter(|volume| wish(volume))
        })
        .await
}

pub(crate) async fn wait_phase(cluster: &Cluster, name: &str, phase: &str) -> PersistentVolume {
    let is = |volume: &PersistentVolume| client::storage::volume_phase(volume) == phase;
    wait_volume(cluster, name, &format!("to be {phase}"), is).await
}

pub(crate) async fn wait_for_event(cluster: &Cluster, about: &str, reason: &str, message: &str) -> Event {
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for(&format!("{about}: {reason}: {message}"), || async {
            let all = events.list(&ListParams::default()).await.expect("events").items;
            all.into_iter().find(|event| {
                event.involved_object.name.as_deref() == Some(about)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref() == Some(message)
            })
        })
        .await
}
