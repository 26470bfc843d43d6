//! What nodes, drivers and people see.

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::object;

use super::names::{attachment_name, node_name_of};
use super::testing::{DRIVER, World, set_ready};
use crate::volume::testing::{claim, pod, volume, wait_claim};

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
    let new =
        |found: &Option<VolumeAttachment>| found.as_ref().is_some_and(|a| a.metadata.uid != old.metadata.uid);
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
async fn of_nodes_that_come_at_once_one_has_it() {
    let mut world = World::new().await;
    world.drain.start();
    world.drain.drain().await;
    let volumes = ["v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7"];
    for volume in volumes {
        world.storage(volume, "ReadWriteOnce").await;
        for node in ["n1", "n2"] {
            world.pod(&format!("{volume}-{node}"), node, volume).await;
        }
    }
    world.restart().await;
    world.settle("n1", "mark-1").await;
    world.settle("n2", "mark-2").await;
    for volume in volumes {
        let both = (world.present(volume, "n1").await, world.present(volume, "n2").await);
        assert!(matches!(both, (Some(_), None) | (None, Some(_))), "{volume}: {both:?}");
    }
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
    for reason in ["timeout", "out-of-service"] {
        let line = format!("controller_forced_detaches{{reason=\"{reason}\"}} ");
        let counted = || async {
            let mut page = base::metrics::Page::new();
            crate::metrics(&mut page);
            page.finish().contains(&line).then_some(())
        };
        world.cluster.wait_for(&line, counted).await;
    }
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
    let driver: CSIDriver = object(json!({"metadata": {"name": DRIVER}, "spec": {"attachRequired": false}}));
    world.cluster.create_global(&driver).await;
    world.storage("v", "ReadWriteOnce").await;
    world.pod("p", "n1", "v").await;
    for (name, source) in [
        ("other", json!({"hostPath": null, "csi": {"driver": "other.io", "volumeHandle": "o"}})),
        (
            "local",
            json!({"hostPath": null, "csi": {"driver": "local.gantry.io", "volumeHandle": "l",
            "volumeAttributes": {"node": "n1", "kind": "image"}}}),
        ),
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
