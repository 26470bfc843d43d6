use client::k8s_openapi::api::core::v1::{Event, Node, PersistentVolume};
use client::snapshots::{BOUND_FINALIZER, SOURCE_FINALIZER};
use client::storage::SELECTED_NODE;
use kube::api::ListParams;
use testkit::Cluster;
use types::local_volumes::{CLASS, DRIVER};

use super::*;
use crate::testing::cluster;

type Claim = PersistentVolumeClaim;

/// A cluster with two nodes.
async fn with_nodes() -> Cluster {
    let cluster = cluster().await;
    for name in ["n1", "n2"] {
        let labels = json!({"kubernetes.io/hostname": format!("host-{name}")});
        let conditions = json!([{"type": "Ready", "status": "True"}]);
        let node =
            json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}});
        cluster.create_node(&testkit::object(node)).await;
    }
    cluster
}

async fn claim(cluster: &Cluster, name: &str, more: Value) -> Claim {
    let mut claim = json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    types::patch::merge_patch(&mut claim, more);
    cluster.create("default", &testkit::object::<Claim>(claim)).await
}

fn is_bound(claim: &Claim) -> bool {
    claim_phase(claim) == "Bound"
}

/// A claim whose volume is on a node.
async fn bound(cluster: &Cluster, name: &str, node: &str) -> Claim {
    claim(cluster, name, json!({"metadata": {"annotations": {SELECTED_NODE: node}}})).await;
    cluster.wait_until("default", name, "to be bound", is_bound).await
}

async fn snapshot(cluster: &Cluster, name: &str, spec: Value) -> VolumeSnapshot {
    cluster
        .create(
            "default",
            &testkit::object::<VolumeSnapshot>(json!({"metadata": {"name": name}, "spec": spec})),
        )
        .await
}

fn of(claim: &str) -> Value {
    json!({"source": {"persistentVolumeClaimName": claim}})
}

fn contents(cluster: &Cluster) -> Api<VolumeSnapshotContent> {
    cluster.all()
}

async fn content_of(cluster: &Cluster, snapshot: &VolumeSnapshot) -> VolumeSnapshotContent {
    let (name, api) = (snapshot::content_name(snapshot), contents(cluster));
    cluster.wait_for("a content", || async { api.get_opt(&name).await.unwrap() }).await
}

/// Plays the node: the snapshot is there.
async fn take(cluster: &Cluster, content: &VolumeSnapshotContent, bytes: i64) {
    let name = content.metadata.name.as_deref().unwrap();
    let status = json!({"status": {"snapshotHandle": "n2/snapshot-x", "creationTime": 1_700_000_000_000_000_000i64,
        "restoreSize": bytes, "readyToUse": true}});
    contents(cluster).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Plays the node: there is no snapshot any more.
async fn let_go(cluster: &Cluster, name: &str) {
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    contents(cluster).patch(name, &PatchParams::default(), &none).await.unwrap();
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

fn restored_from(snapshot: &str, size: &str) -> Value {
    let source = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot});
    json!({"spec": {"dataSource": source, "resources": {"requests": {"storage": size}}}})
}

async fn volume_of_claim(cluster: &Cluster, name: &str) -> PersistentVolume {
    let claim = cluster.wait_until::<Claim>("default", name, "to be bound", is_bound).await;
    cluster.all::<PersistentVolume>().get(volume_of(&claim)).await.unwrap()
}

fn attributes(volume: &PersistentVolume) -> Value {
    json!(volume.spec.as_ref().unwrap().csi.as_ref().unwrap().volume_attributes)
}

#[tokio::test]
async fn a_snapshot_is_made_bound_restored_and_deleted() {
    let cluster = with_nodes().await;
    bound(&cluster, "data", "n2").await;
    let made = snapshot(&cluster, "s", of("data")).await;
    let content = content_of(&cluster, &made).await;
    assert_eq!(content.metadata.labels.as_ref().unwrap()[NODE_LABEL], "n2");
    assert_eq!((content.spec.driver.as_str(), content.spec.deletion_policy.as_str()), (DRIVER, "Delete"));
    assert_eq!(content.spec.volume_snapshot_class_name.as_deref(), Some(CLASS), "the default class");
    told(&cluster, "CreatingSnapshot", "Waiting for a snapshot default/s to be created by the CSI driver.")
        .await;
    let held = |c: &Claim| c.metadata.finalizers.iter().flatten().any(|f| f == CLAIM_FINALIZER);
    cluster.wait_until("default", "data", "to be held", held).await;
    // A claim that comes too early waits.
    claim(&cluster, "again", restored_from("s", "2Gi")).await;
    told(&cluster, "ProvisioningFailed", "error getting handle for DataSource Type VolumeSnapshot by Name s")
        .await;
    take(&cluster, &content, 1 << 30).await;
    let ready = cluster.wait_until("default", "s", "to be ready", VolumeSnapshot::is_ready).await;
    let status = ready.status.clone().unwrap();
    assert_eq!(status.bound_volume_snapshot_content_name, content.metadata.name);
    assert_eq!(
        (status.restore_size.as_deref(), status.creation_time.as_deref()),
        (Some("1Gi"), Some("2023-11-14T22:13:20Z"))
    );
    told(&cluster, "SnapshotCreated", "Snapshot default/s was successfully created by the CSI driver.").await;
    told(&cluster, "SnapshotReady", "Snapshot default/s is ready to use.").await;
    cluster.wait_until("default", "data", "to be let go", |c: &Claim| !held(c)).await;
    let protected = |s: &VolumeSnapshot| {
        let all = s.metadata.finalizers.clone().unwrap_or_default();
        [SOURCE_FINALIZER, BOUND_FINALIZER].iter().all(|f| all.iter().any(|had| had == f))
    };
    cluster.wait_until("default", "s", "to be protected", protected).await;
    // It went on by itself: without a pod, on the node of the data.
    let volume = volume_of_claim(&cluster, "again").await;
    assert_eq!(attributes(&volume), json!({"node": "n2", "kind": "image", "snapshot": "snapshot-x"}));
    let spec = volume.spec.unwrap();
    assert_eq!(spec.capacity.unwrap()["storage"].0, "2Gi");
    let term = &spec.node_affinity.unwrap().required.unwrap().node_selector_terms[0];
    assert_eq!(term.match_expressions.as_ref().unwrap()[0].values.as_ref().unwrap()[0], "host-n2");
    // A smaller one is refused, and keeps the snapshot until it goes.
    claim(&cluster, "small", restored_from("s", "1Mi")).await;
    let text = "requested volume size 1048576 is less than the size 1073741824 for the source snapshot s";
    told(&cluster, "ProvisioningFailed", text).await;
    let snapshots = cluster.api::<VolumeSnapshot>("default");
    snapshots.delete("s", &DeleteParams::default()).await.unwrap();
    told(&cluster, "SnapshotDeletePending", "Snapshot is being used to restore a PVC").await;
    let name = content.metadata.name.unwrap();
    assert!(contents(&cluster).get(&name).await.unwrap().metadata.deletion_timestamp.is_none());
    cluster.api::<Claim>("default").delete("small", &DeleteParams::default()).await.unwrap();
    let going = cluster
        .wait_for("the content to be deleted", || async {
            Some(contents(&cluster).get(&name).await.unwrap())
                .filter(|c| c.metadata.deletion_timestamp.is_some())
        })
        .await;
    assert!(going.may_go() && going.is_held(), "its node lets it go");
    assert!(snapshots.get_opt("s").await.unwrap().is_some(), "the content goes first");
    let_go(&cluster, &name).await;
    cluster.wait_gone::<VolumeSnapshot>("default", "s").await;
}

#[tokio::test]
async fn a_retained_snapshot_stays_and_is_found_again() {
    let cluster = with_nodes().await;
    let class = json!({"metadata": {"name": "keeps"}, "driver": DRIVER, "deletionPolicy": "Retain"});
    cluster.create_global::<VolumeSnapshotClass>(&testkit::object(class)).await;
    bound(&cluster, "data", "n2").await;
    let mut spec = of("data");
    spec["volumeSnapshotClassName"] = "keeps".into();
    let made = snapshot(&cluster, "s", spec).await;
    let content = content_of(&cluster, &made).await;
    take(&cluster, &content, 1 << 30).await;
    cluster.wait_until("default", "s", "to be ready", VolumeSnapshot::is_ready).await;
    let snapshots = cluster.api::<VolumeSnapshot>("default");
    snapshots.delete("s", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone::<VolumeSnapshot>("default", "s").await;
    let kept = contents(&cluster).get(&snapshot::content_name(&made)).await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_none());
    // By another content, which a user makes, and which need not know of nodes.
    let handle = "n1/snapshot-x";
    let given = json!({"metadata": {"name": "given"}, "spec": {"driver": DRIVER, "deletionPolicy": "Retain",
        "source": {"snapshotHandle": handle}, "volumeSnapshotRef": {"namespace": "default", "name": "again"}}});
    cluster.create_global::<VolumeSnapshotContent>(&testkit::object(given)).await;
    snapshot(&cluster, "again", json!({"source": {"volumeSnapshotContentName": "given"}})).await;
    let found = cluster
        .wait_for("the content to be bound", || async {
            let found = contents(&cluster).get("given").await.unwrap();
            let bound = found.spec.volume_snapshot_ref.uid.is_some() && found.is_held();
            Some(found).filter(|found| bound && content::label(found) == Some("n1"))
        })
        .await;
    assert_eq!(found.spec.source.snapshot_handle.as_deref(), Some(handle));
    // Its node is no more: nobody else could let it go.
    snapshots.delete("again", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone::<VolumeSnapshot>("default", "again").await;
    contents(&cluster).delete("given", &DeleteParams::default()).await.unwrap();
    assert!(contents(&cluster).get_opt("given").await.unwrap().is_some());
    cluster.all::<Node>().delete("n1", &DeleteParams::default()).await.unwrap();
    cluster
        .wait_for("the content to go with its node", || async {
            contents(&cluster).get_opt("given").await.unwrap().is_none().then_some(())
        })
        .await;
}

#[tokio::test]
async fn what_is_missing_is_told_and_waited_for() {
    let cluster = with_nodes().await;
    let mut spec = of("late");
    spec["volumeSnapshotClassName"] = "later".into();
    snapshot(&cluster, "s", spec).await;
    told(&cluster, "GetSnapshotClassFailed", "\"later\" not found").await;
    let class = json!({"metadata": {"name": "later"}, "driver": DRIVER, "deletionPolicy": "Delete"});
    cluster.create_global::<VolumeSnapshotClass>(&testkit::object(class)).await;
    told(&cluster, "SnapshotContentCreationFailed", "cannot get claim from snapshot").await;
    claim(&cluster, "late", json!({})).await;
    told(&cluster, "SnapshotContentCreationFailed", "the PVC late is not yet bound to a PV").await;
    let waits = cluster.api::<VolumeSnapshot>("default").get("s").await.unwrap();
    assert!(waits.status.unwrap().error.unwrap().message.unwrap().contains("not yet bound"));
    let select = Patch::Merge(json!({"metadata": {"annotations": {SELECTED_NODE: "n2"}}}));
    cluster.api::<Claim>("default").patch("late", &PatchParams::default(), &select).await.unwrap();
    let bound = |s: &VolumeSnapshot| !s.bound_content().is_empty();
    let done = cluster.wait_until("default", "s", "to go on by itself", bound).await;
    assert_eq!(done.status.unwrap().error, None);
}

#[tokio::test]
async fn clones_are_made_where_their_source_is() {
    let cluster = with_nodes().await;
    let clone = |size: &str| {
        let source = json!({"kind": "PersistentVolumeClaim", "name": "data"});
        json!({"spec": {"dataSourceRef": source, "resources": {"requests": {"storage": size}}}})
    };
    claim(&cluster, "early", clone("1Gi")).await;
    told(&cluster, "ProvisioningFailed", "error getting PVC data (namespace \"default\") from api server")
        .await;
    bound(&cluster, "data", "n2").await;
    let volume = volume_of_claim(&cluster, "early").await;
    let source = volume_of_claim(&cluster, "data").await.metadata.name;
    assert_eq!(attributes(&volume), json!({"node": "n2", "kind": "image", "clone": source}));
    claim(&cluster, "small", clone("1Mi")).await;
    let text = "error, new PVC request must be greater than or equal in size to the specified PVC data source, \
                requested 1048576 but source is 1073741824";
    told(&cluster, "ProvisioningFailed", text).await;
    // Where the scheduler would rather have it makes no difference.
    let mut elsewhere = clone("1Gi");
    elsewhere["metadata"] = json!({"annotations": {SELECTED_NODE: "n1"}});
    claim(&cluster, "elsewhere", elsewhere).await;
    assert_eq!(attributes(&volume_of_claim(&cluster, "elsewhere").await)["node"], "n2");
    let mut block = clone("1Gi");
    block["spec"]["volumeMode"] = "Block".into();
    claim(&cluster, "block", block).await;
    told(&cluster, "ProvisioningFailed", "must have the same volume mode for cloning").await;
    // Populators look after their own kinds.
    let other = json!({"apiGroup": "books.example.com", "kind": "Book", "name": "b"});
    let other = json!({"metadata": {"annotations": {SELECTED_NODE: "n1"}}, "spec": {"dataSourceRef": other}});
    claim(&cluster, "other", other).await;
    told(&cluster, "Provisioning", "Assuming an external populator will provision the volume").await;
}
