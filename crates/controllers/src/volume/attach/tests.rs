//! The test plays the driver's external attacher, which holds attachments by a finalizer, and the node.

use std::sync::Arc;
use std::time::Duration;

use base::{Drain, ManualClock};
use client::Informers;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, object};

use super::names::{attachment_name, node_name_of};
use crate::testing::config;
use crate::volume::testing::{claim, pod, volume, wait_claim, wait_for_event};
use crate::{Config, run};

const DRIVER: &str = "d.io";
const OTHERS: &str = "serviceaccount-controller,persistentvolume-binder-controller,ephemeral-volume-controller";

struct World {
    cluster: Cluster,
    clock: ManualClock,
    drain: Drain,
}

impl World {
    /// A cluster with the nodes `n1` and `n2`, of whose controllers only those run that this takes.
    async fn new() -> Self {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
        run(&Config { selected: OTHERS.parse().unwrap(), ..config(&cluster) });
        cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
        for name in ["n1", "n2"] {
            let mut node = testkit::node(name, 4, 4, 10);
            let managed = ("volumes.kubernetes.io/controller-managed-attach-detach".into(), "true".into());
            node.metadata.annotations = Some([managed].into());
            cluster.create_global(&node).await;
            set_ready(&cluster, name, "True").await;
        }
        let drain = begin(&cluster);
        Self { cluster, clock, drain }
    }

    /// Ends the controller and begins it anew, with nothing but what is in the API.
    async fn restart(&mut self) {
        self.drain.start();
        self.drain.drain().await;
        self.drain = begin(&self.cluster);
    }

    /// Lets time pass for everybody at once.
    async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    }

    /// A volume of the driver with a claim that has it.
    async fn storage(&self, name: &str, mode: &str) {
        let csi = json!({"hostPath": null, "csi": {"driver": DRIVER, "volumeHandle": name}, "accessModes": [mode]});
        self.cluster.create_global(&volume(name, csi)).await;
        let spec = json!({"volumeName": name, "accessModes": [mode]});
        self.cluster.create("default", &claim(name, spec)).await;
        wait_claim(&self.cluster, name, "Bound").await;
    }

    async fn pod(&self, name: &str, node: &str, claim: &str) {
        let mut pod = pod(name, &[claim]);
        pod.spec.as_mut().unwrap().node_name = Some(node.into());
        self.cluster.create("default", &pod).await;
    }

    async fn end(&self, pod: &str) {
        let now = DeleteParams::default().grace_period(0);
        self.cluster.api::<Pod>("default").delete(pod, &now).await.unwrap();
    }

    async fn attachment(
        &self,
        volume: &str,
        node: &str,
        what: &str,
        wish: impl Fn(&Option<VolumeAttachment>) -> bool,
    ) -> Option<VolumeAttachment> {
        let (name, api) = (attachment_name(DRIVER, volume, node), self.cluster.all::<VolumeAttachment>());
        let what = format!("the attachment of {volume} to {node} {what}");
        self.cluster
            .wait_for(&what, || async {
                let found = api.get_opt(&name).await.unwrap();
                wish(&found).then_some(found)
            })
            .await
    }

    async fn made(&self, volume: &str, node: &str) -> VolumeAttachment {
        self.attachment(volume, node, "to be made", Option::is_some).await.unwrap()
    }

    async fn deleting(&self, volume: &str, node: &str) {
        let is = |found: &Option<VolumeAttachment>| {
            found.as_ref().is_some_and(|a| a.metadata.deletion_timestamp.is_some())
        };
        self.attachment(volume, node, "to be deleted", is).await;
    }

    /// What is there right now.
    async fn present(&self, volume: &str, node: &str) -> Option<VolumeAttachment> {
        let name = attachment_name(DRIVER, volume, node);
        self.cluster.all::<VolumeAttachment>().get_opt(&name).await.unwrap()
    }

    async fn is_kept(&self, volume: &str, node: &str) -> bool {
        self.present(volume, node).await.is_some_and(|a| a.metadata.deletion_timestamp.is_none())
    }

    /// The driver attaches, once it is asked to.
    async fn attach(&self, volume: &str, node: &str) {
        let name = self.made(volume, node).await.name_any();
        let (api, params) = (self.cluster.all::<VolumeAttachment>(), PatchParams::default());
        let hold = json!({"metadata": {"finalizers": ["external-attacher/d-io"]}});
        api.patch(&name, &params, &Patch::Merge(hold)).await.unwrap();
        let done = json!({"status": {"attached": true, "attachError": null}});
        api.patch_status(&name, &params, &Patch::Merge(done)).await.unwrap();
    }

    /// The driver has detached.
    async fn detached(&self, volume: &str, node: &str) {
        self.deleting(volume, node).await;
        let name = attachment_name(DRIVER, volume, node);
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.cluster.all::<VolumeAttachment>().patch(&name, &PatchParams::default(), &free).await.unwrap();
    }

    async fn reported(&self, node: &str) -> Vec<String> {
        let node = self.cluster.all::<Node>().get(node).await.unwrap();
        let all = node.status.unwrap().volumes_attached.unwrap_or_default();
        assert!(all.iter().all(|volume| volume.device_path.is_empty()));
        all.into_iter().map(|volume| volume.name).collect()
    }

    async fn wait_reported(&self, node: &str, volumes: &[&str]) {
        let expected: Vec<String> = volumes.iter().map(|volume| node_name_of(DRIVER, volume)).collect();
        let what = format!("{node} to be told of {volumes:?}");
        self.cluster.wait_for(&what, || async { (self.reported(node).await == expected).then_some(()) }).await;
    }

    /// The node says what it uses.
    async fn uses(&self, node: &str, volumes: &[&str]) {
        let all: Vec<String> = volumes.iter().map(|volume| node_name_of(DRIVER, volume)).collect();
        let used = if all.is_empty() { Value::Null } else { json!(all) };
        self.status(node, json!({"volumesInUse": used})).await;
    }

    async fn status(&self, node: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.cluster.all::<Node>().patch_status(node, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Returns when everything that is so at present has been looked at: volumes that come later are attached.
    async fn settle(&self, node: &str, mark: &str) {
        self.storage(mark, "ReadWriteMany").await;
        self.pod(mark, node, mark).await;
        self.made(mark, node).await;
    }

    async fn told(&self, pod: &str, reason: &str, message: &str) {
        wait_for_event(&self.cluster, pod, reason, message).await;
    }
}

fn begin(cluster: &Cluster) -> Drain {
    let drain = Drain::new();
    let informers = Informers::new(cluster.informers.client().clone(), drain.clone());
    let selected = "persistentvolume-attach-detach-controller".parse().unwrap();
    run(&Config { informers, drain: drain.clone(), selected, ..config(cluster) });
    drain
}

async fn set_ready(cluster: &Cluster, node: &str, status: &str) {
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    let api = cluster.all::<Node>();
    api.patch_status(node, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

#[tokio::test]
async fn a_volume_is_attached_and_goes_when_its_node_has_let_go() {
    let world = World::new().await;
    world.storage("v", "ReadWriteOnce").await;
    world.pod("p", "n1", "v").await;
    let made = world.made("v", "n1").await;
    assert_eq!((made.spec.attacher.as_str(), made.spec.node_name.as_str()), (DRIVER, "n1"));
    assert_eq!(made.spec.source.persistent_volume_name.as_deref(), Some("v"));
    assert!(world.reported("n1").await.is_empty(), "it is not attached yet");
    world.attach("v", "n1").await;
    world.wait_reported("n1", &["v"]).await;
    world.told("p", "SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume \"v\" ").await;

    world.uses("n1", &["v"]).await;
    world.end("p").await;
    world.settle("n1", "mark").await;
    assert!(world.is_kept("v", "n1").await, "the node uses it still");
    assert_eq!(world.reported("n1").await, [node_name_of(DRIVER, "v")]);
    world.uses("n1", &[]).await;
    world.deleting("v", "n1").await;
    assert!(world.reported("n1").await.is_empty(), "the node was told before");

    // A pod that comes back waits until it is detached, and is not told that it has it.
    world.pod("again", "n1", "v").await;
    world.settle("n1", "mark-2").await;
    let old = world.present("v", "n1").await.unwrap();
    assert!(world.reported("n1").await.is_empty());
    world.detached("v", "n1").await;
    let new = |found: &Option<VolumeAttachment>| found.as_ref().is_some_and(|a| a.metadata.uid != old.metadata.uid);
    world.attachment("v", "n1", "to be made anew", new).await;
}

#[tokio::test]
async fn one_node_after_the_other_has_a_volume() {
    let world = World::new().await;
    world.storage("v", "ReadWriteOnce").await;
    world.storage("shared", "ReadWriteMany").await;
    world.pod("a", "n1", "v").await;
    world.made("v", "n1").await;
    world.pod("b", "n2", "v").await;
    let why = "Multi-Attach error for volume \"v\" Volume is already used by pod(s) a";
    world.told("b", "FailedAttachVolume", why).await;
    world.attach("v", "n1").await;
    world.wait_reported("n1", &["v"]).await;
    world.end("a").await;
    world.deleting("v", "n1").await;
    world.pod("c", "n2", "v").await;
    let why = "Multi-Attach error for volume \"v\" Volume is already exclusively attached to one node and can't be attached to another";
    world.told("c", "FailedAttachVolume", why).await;
    assert!(world.present("v", "n2").await.is_none(), "it is not detached yet");
    world.detached("v", "n1").await;
    world.attach("v", "n2").await;
    world.told("b", "SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume \"v\" ").await;

    for (pod, node) in [("x", "n1"), ("y", "n2")] {
        world.pod(pod, node, "shared").await;
        world.attach("shared", node).await;
    }
    world.wait_reported("n2", &["shared", "v"]).await;
    world.wait_reported("n1", &["shared"]).await;
}

#[tokio::test]
async fn a_node_that_is_ill_or_down_is_not_waited_for_for_ever() {
    let world = World::new().await;
    for (volume, node) in [("ill", "n1"), ("down", "n2")] {
        world.storage(volume, "ReadWriteOnce").await;
        world.pod(volume, node, volume).await;
        world.attach(volume, node).await;
        world.wait_reported(node, &[volume]).await;
        world.uses(node, &[volume]).await;
        world.end(volume).await;
    }
    world.settle("n1", "mark-1").await;
    world.settle("n2", "mark-2").await;
    world.pass(400).await;
    world.settle("n1", "mark-3").await;
    assert!(world.is_kept("ill", "n1").await, "the node is well, and uses it");
    set_ready(&world.cluster, "n1", "Unknown").await;
    world.deleting("ill", "n1").await;
    assert!(world.reported("n1").await.is_empty());

    assert!(world.is_kept("down", "n2").await, "the node is well, and uses it");
    let taint = json!({"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"});
    let taint = Patch::Merge(json!({"spec": {"taints": [taint]}}));
    world.cluster.all::<Node>().patch("n2", &PatchParams::default(), &taint).await.unwrap();
    world.deleting("down", "n2").await;
    let mut page = base::metrics::Page::new();
    crate::metrics(&mut page);
    let page = page.finish();
    for reason in ["timeout", "out-of-service"] {
        let line =
            format!("attach_detach_controller_attachdetach_controller_forced_detaches{{reason=\"{reason}\"}} ");
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    let held = "attachdetach_controller_total_volumes{plugin_name=\"kubernetes.io/csi:d.io\",state=\"actual_state_of_world\"}";
    assert!(page.contains(held), "{page}");
}

#[tokio::test]
async fn an_ill_node_has_six_minutes() {
    let world = World::new().await;
    world.storage("v", "ReadWriteOnce").await;
    world.pod("p", "n1", "v").await;
    world.attach("v", "n1").await;
    world.wait_reported("n1", &["v"]).await;
    world.uses("n1", &["v"]).await;
    set_ready(&world.cluster, "n1", "Unknown").await;
    world.end("p").await;
    world.settle("n1", "mark").await;
    assert!(world.is_kept("v", "n1").await);
    // Nothing else happens: that time passes is enough.
    world.pass(361).await;
    world.deleting("v", "n1").await;
}

#[tokio::test]
async fn what_a_node_that_is_gone_had_is_detached_when_its_pods_are_gone() {
    let world = World::new().await;
    world.storage("v", "ReadWriteOnce").await;
    world.pod("p", "n1", "v").await;
    world.attach("v", "n1").await;
    world.wait_reported("n1", &["v"]).await;
    world.uses("n1", &["v"]).await;
    world.cluster.all::<Node>().delete("n1", &DeleteParams::default()).await.unwrap();
    world.settle("n2", "mark").await;
    assert!(world.is_kept("v", "n1").await, "its pod may run");
    world.end("p").await;
    world.deleting("v", "n1").await;
}

#[tokio::test]
async fn a_controller_that_starts_again_goes_on() {
    let mut world = World::new().await;
    for volume in ["kept", "over", "begun"] {
        world.storage(volume, "ReadWriteOnce").await;
        world.pod(volume, "n1", volume).await;
        world.made(volume, "n1").await;
    }
    world.attach("kept", "n1").await;
    world.attach("over", "n1").await;
    world.wait_reported("n1", &["kept", "over"]).await;
    world.drain.start();
    world.drain.drain().await;
    world.end("over").await;
    world.attach("begun", "n1").await;
    world.pod("other", "n2", "kept").await;
    world.restart().await;
    world.deleting("over", "n1").await;
    world.wait_reported("n1", &["begun", "kept"]).await;
    assert!(world.is_kept("kept", "n1").await && world.is_kept("begun", "n1").await);
    let why = "Multi-Attach error for volume \"kept\" Volume is already used by pod(s) kept";
    world.told("other", "FailedAttachVolume", why).await;
    assert!(world.present("kept", "n2").await.is_none());
}

#[tokio::test]
async fn what_need_not_be_attached_is_not() {
    let world = World::new().await;
    let driver: CSIDriver =
        object(json!({"metadata": {"name": DRIVER}, "spec": {"attachRequired": false}}));
    world.cluster.create_global(&driver).await;
    world.storage("v", "ReadWriteOnce").await;
    world.pod("p", "n1", "v").await;
    for (name, source) in [
        ("other", json!({"hostPath": null, "csi": {"driver": "other.io", "volumeHandle": "o"}})),
        ("local", json!({"hostPath": null, "csi": {"driver": "local.gantry.io", "volumeHandle": "l",
            "volumeAttributes": {"node": "n1", "kind": "image"}}})),
        ("path", json!({})),
    ] {
        world.cluster.create_global(&volume(name, source)).await;
        world.cluster.create("default", &claim(name, json!({"volumeName": name}))).await;
        wait_claim(&world.cluster, name, "Bound").await;
    }
    let mut all = pod("all", &["v", "local", "path", "other"]);
    all.spec.as_mut().unwrap().node_name = Some("n1".into());
    world.cluster.create("default", &all).await;
    let attachments = world.cluster.all::<VolumeAttachment>();
    let other = attachment_name("other.io", "o", "n1");
    world
        .cluster
        .wait_for("the attachment of the other driver", || async {
            attachments.get_opt(&other).await.unwrap()
        })
        .await;
    let made = attachments.list(&Default::default()).await.unwrap().items;
    assert_eq!(made.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [other]);
    // From now on it is needed.
    world.cluster.all::<CSIDriver>().delete(DRIVER, &DeleteParams::default()).await.unwrap();
    world.made("v", "n1").await;
}

#[tokio::test]
async fn people_are_told_of_drivers_that_fail_or_are_slow() {
    let world = World::new().await;
    for volume in ["fails", "slow"] {
        world.storage(volume, "ReadWriteOnce").await;
        world.pod(volume, "n1", volume).await;
        world.made(volume, "n1").await;
    }
    let error = json!({"status": {"attached": false, "attachError": {"message": "no room", "time": "2026-01-01T00:00:00Z"}}});
    let name = attachment_name(DRIVER, "fails", "n1");
    let attachments = world.cluster.all::<VolumeAttachment>();
    attachments.patch_status(&name, &PatchParams::default(), &Patch::Merge(error)).await.unwrap();
    let why = "AttachVolume.Attach failed for volume \"fails\" : no room";
    world.told("fails", "FailedAttachVolume", why).await;
    // Both have been seen: their time has begun.
    world.settle("n1", "mark").await;
    world.pass(121).await;
    let why = "AttachVolume.Attach failed for volume \"slow\" : timed out waiting for external-attacher of d.io CSI driver to attach volume slow";
    world.told("slow", "FailedAttachVolume", why).await;
    // The driver tries again by itself.
    world.attach("fails", "n1").await;
    world.wait_reported("n1", &["fails"]).await;
}

#[tokio::test]
async fn claims_that_pods_bring_along_count_and_attachments_of_others_do_not() {
    let world = World::new().await;
    let csi = json!({"hostPath": null, "csi": {"driver": DRIVER, "volumeHandle": "v"}});
    world.cluster.create_global(&volume("v", csi)).await;
    let foreign: VolumeAttachment = object(json!({"metadata": {"name": "by-hand"},
        "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "nothing"}}}));
    world.cluster.create_global(&foreign).await;
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}}}});
    let mut own = pod("own", &[]);
    let spec = own.spec.as_mut().unwrap();
    spec.node_name = Some("n1".into());
    spec.volumes = Some(object(json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": template}}])));
    world.cluster.create("default", &own).await;
    world.cluster.wait_until::<PersistentVolumeClaim>("default", "own-data", "to be made", |_| true).await;
    world.attach("v", "n1").await;
    world.wait_reported("n1", &["v"]).await;
    // A pod that has ended needs nothing any more.
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    world.cluster.api::<Pod>("default").patch_status("own", &PatchParams::default(), &ended).await.unwrap();
    world.deleting("v", "n1").await;
    assert!(world.cluster.all::<VolumeAttachment>().get_opt("by-hand").await.unwrap().is_some());
}
