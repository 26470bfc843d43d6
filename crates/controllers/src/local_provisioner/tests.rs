use client::k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams};
use testkit::Cluster;
use types::local_volumes::{CLASS, FINALIZER, NODE_LABEL};

use super::*;
use crate::testing::cluster;

type Claim = PersistentVolumeClaim;

fn claim(name: &str, more: Value) -> Claim {
    let mut claim = json!({
        "metadata": {"name": name, "annotations": {"volume.kubernetes.io/storage-provisioner": DRIVER}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    types::patch::merge_patch(&mut claim, more);
    testkit::object(claim)
}

fn on(node: &str) -> Value {
    json!({"metadata": {"annotations": {SELECTED_NODE: node}}})
}

async fn node(cluster: &Cluster, name: &str) {
    let labels = json!({"kubernetes.io/hostname": format!("host-{name}")});
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let node = json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}});
    cluster.create_node(&testkit::object(node)).await;
}

async fn class(cluster: &Cluster, name: &str, more: Value) {
    let mut class = json!({"metadata": {"name": name}, "provisioner": DRIVER, "allowVolumeExpansion": true});
    types::patch::merge_patch(&mut class, more);
    cluster.create_global::<StorageClass>(&testkit::object(class)).await;
}

async fn volume_of(cluster: &Cluster, claim: &Claim) -> PersistentVolume {
    let (name, api) = (provision::name_for(claim), cluster.all::<PersistentVolume>());
    cluster.wait_for("a volume", || async { api.get_opt(&name).await.unwrap() }).await
}

async fn told(cluster: &Cluster, reason: &str, text: &str) {
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for(&format!("{reason}: {text}"), || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let is = |e: &Event| {
                e.reason.as_deref() == Some(reason) && e.message.as_deref().unwrap_or_default().contains(text)
            };
            all.iter().any(is).then_some(())
        })
        .await;
}

/// Plays the binder: both know of each other.
async fn bind(cluster: &Cluster, claim: &Claim, volume: &PersistentVolume) {
    let (name, bound) = (claim.metadata.name.as_deref().unwrap(), volume.metadata.name.as_deref().unwrap());
    let phase = json!({"status": {"phase": "Bound"}});
    let volumes = cluster.all::<PersistentVolume>();
    volumes.patch_status(bound, &PatchParams::default(), &Patch::Merge(&phase)).await.unwrap();
    let claims = cluster.api::<Claim>("default");
    let spec = Patch::Merge(json!({"spec": {"volumeName": bound}}));
    claims.patch(name, &PatchParams::default(), &spec).await.unwrap();
    let status = Patch::Merge(json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}));
    claims.patch_status(name, &PatchParams::default(), &status).await.unwrap();
}

#[tokio::test]
async fn a_claim_gets_a_volume_on_the_node_of_its_first_pod() {
    let cluster = cluster().await;
    node(&cluster, "n1").await;
    let made = cluster.create("default", &claim("data", json!({}))).await;
    assert_eq!(made.spec.as_ref().unwrap().storage_class_name.as_deref(), Some(CLASS), "the default class");
    let api = cluster.api::<Claim>("default");
    api.patch("data", &PatchParams::default(), &Patch::Merge(on("n1"))).await.unwrap();
    let volume = volume_of(&cluster, &made).await;
    let (meta, spec) = (volume.metadata.clone(), volume.spec.clone().unwrap());
    assert_eq!(meta.labels.unwrap()[NODE_LABEL], "n1");
    assert!(meta.finalizers.unwrap().contains(&FINALIZER.to_owned()));
    assert_eq!(meta.annotations.unwrap()[provision::PROVISIONED_BY], DRIVER);
    assert_eq!(spec.capacity.unwrap()["storage"].0, "1Gi");
    assert_eq!(spec.claim_ref.unwrap().uid, made.metadata.uid);
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
    let term = &spec.node_affinity.unwrap().required.unwrap().node_selector_terms[0];
    assert_eq!(term.match_expressions.as_ref().unwrap()[0].values.as_ref().unwrap()[0], "host-n1");
    told(&cluster, "Provisioning", "External provisioner is provisioning volume for claim \"default/data\"")
        .await;
    told(&cluster, "ProvisioningSucceeded", &provision::name_for(&made)).await;
}

#[tokio::test]
async fn a_node_that_does_not_do_is_chosen_anew() {
    let cluster = cluster().await;
    node(&cluster, "n1").await;
    let terms =
        json!([{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["host-n2"]}]}]);
    class(
        &cluster,
        "narrow",
        json!({"volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": terms}),
    )
    .await;
    cluster.create("default", &claim("lost", on("nowhere"))).await;
    let mut narrow = on("n1");
    narrow["spec"] = json!({"storageClassName": "narrow"});
    cluster.create("default", &claim("narrow", narrow)).await;
    told(&cluster, "ProvisioningFailed", "failed to get target node: node \"nowhere\" not found").await;
    told(&cluster, "ProvisioningFailed", "its allowedTopologies do not have node \"n1\"").await;
    for name in ["lost", "narrow"] {
        let free = |c: &Claim| !c.metadata.annotations.as_ref().unwrap().contains_key(SELECTED_NODE);
        cluster.wait_until::<Claim>("default", name, "to be free again", free).await;
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_sentence() {
    let cluster = cluster().await;
    node(&cluster, "n1").await;
    for (name, parameters, text) in [
        ("a", json!({"size": "big"}), "unknown parameter \"size\""),
        ("b", json!({"fsType": "xfs"}), "\"xfs\" cannot be made"),
    ] {
        class(&cluster, name, json!({"parameters": parameters})).await;
        cluster.create("default", &claim(name, json!({"spec": {"storageClassName": name}}))).await;
        told(&cluster, "ProvisioningFailed", text).await;
    }
    class(&cluster, "plain", json!({})).await;
    let gold = json!({"spec": {"storageClassName": "plain", "volumeAttributesClassName": "gold"}});
    cluster.create("default", &claim("gold", gold)).await;
    told(&cluster, "ProvisioningFailed", "\"gold\": volumes of local.gantry.io have no attributes").await;
    // One that need not wait for a pod, and is smaller than any file system.
    class(&cluster, "now", json!({"mountOptions": ["noatime"]})).await;
    let small = json!({"spec": {"storageClassName": "now", "resources": {"requests": {"storage": "1Mi"}}}});
    let small = cluster.create("default", &claim("small", small)).await;
    let spec = volume_of(&cluster, &small).await.spec.unwrap();
    assert_eq!(spec.capacity.unwrap()["storage"].0, "8Mi");
    assert_eq!(spec.mount_options.unwrap(), ["noatime"]);
}

#[tokio::test]
async fn a_claim_grows_and_its_node_has_the_last_word() {
    let cluster = cluster().await;
    node(&cluster, "n1").await;
    let made = cluster.create("default", &claim("data", on("n1"))).await;
    let volume = volume_of(&cluster, &made).await;
    bind(&cluster, &made, &volume).await;
    let api = cluster.api::<Claim>("default");
    let more = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}));
    api.patch("data", &PatchParams::default(), &more).await.unwrap();
    let waits = |c: &Claim| {
        let conditions = c.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == "FileSystemResizePending")
    };
    let waiting = cluster.wait_until::<Claim>("default", "data", "to wait for its node", waits).await;
    let status = waiting.status.unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "1Gi");
    assert_eq!(status.allocated_resources.unwrap()["storage"].0, "2Gi");
    assert_eq!(status.allocated_resource_statuses.unwrap()["storage"], "NodeResizePending");
    let volume = volume_of(&cluster, &made).await;
    assert_eq!(volume.spec.unwrap().capacity.unwrap()["storage"].0, "2Gi");
    for reason in ["Resizing", "FileSystemResizeRequired"] {
        told(&cluster, reason, "").await;
    }
}

#[tokio::test]
async fn directories_grow_at_once() {
    let cluster = cluster().await;
    node(&cluster, "n1").await;
    class(&cluster, "plain", json!({"parameters": {"kind": "directory"}})).await;
    let made =
        cluster.create("default", &claim("data", json!({"spec": {"storageClassName": "plain"}}))).await;
    let volume = volume_of(&cluster, &made).await;
    bind(&cluster, &made, &volume).await;
    let api = cluster.api::<Claim>("default");
    let more = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}));
    api.patch("data", &PatchParams::default(), &more).await.unwrap();
    let grown =
        |c: &Claim| c.status.as_ref().unwrap().capacity.as_ref().is_some_and(|c| c["storage"].0 == "2Gi");
    let done = cluster.wait_until::<Claim>("default", "data", "to have grown", grown).await;
    assert_eq!(done.status.unwrap().conditions, None);
    told(&cluster, "VolumeResizeSuccessful", "Resize volume succeeded").await;
}

#[tokio::test]
async fn classes_of_attributes_are_answered() {
    let cluster = cluster().await;
    node(&cluster, "n1").await;
    class(&cluster, "plain", json!({})).await;
    let made =
        cluster.create("default", &claim("data", json!({"spec": {"storageClassName": "plain"}}))).await;
    let volume = volume_of(&cluster, &made).await;
    bind(&cluster, &made, &volume).await;
    let api = cluster.api::<Claim>("default");
    let gold = Patch::Merge(json!({"spec": {"volumeAttributesClassName": "gold"}}));
    api.patch("data", &PatchParams::default(), &gold).await.unwrap();
    told(&cluster, "VolumeModifyFailed", "have no attributes that can be changed").await;
    let infeasible = |c: &Claim| {
        c.status.as_ref().unwrap().modify_volume_status.as_ref().is_some_and(|m| m.status == "Infeasible")
    };
    cluster.wait_until::<Claim>("default", "data", "to be answered", infeasible).await;
    let back = Patch::Merge(json!({"spec": {"volumeAttributesClassName": null}}));
    api.patch("data", &PatchParams::default(), &back).await.unwrap();
    told(&cluster, "VolumeModifyCancelled", "").await;
}

#[tokio::test]
async fn a_released_volume_goes_when_its_data_has_or_its_node() {
    let cluster = cluster().await;
    node(&cluster, "n1").await;
    let made = cluster.create("default", &claim("data", on("n1"))).await;
    let volume = volume_of(&cluster, &made).await;
    let (name, api) = (volume.metadata.name.clone().unwrap(), cluster.all::<PersistentVolume>());
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let bound = |c: &PersistentVolumeClaim| client::storage::claim_phase(c) == "Bound";
    cluster.wait_until("default", "data", "to be bound", bound).await;
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    cluster
        .wait_for("the volume to be deleted", || async {
            let found =
                api.get_opt(&name).await.unwrap().expect("its node has not said that the data is gone");
            found.metadata.deletion_timestamp
        })
        .await;
    cluster.all::<Node>().delete("n1", &DeleteParams::default()).await.unwrap();
    cluster
        .wait_for("the volume to go with its node", || async {
            api.get_opt(&name).await.unwrap().is_none().then_some(())
        })
        .await;
}
