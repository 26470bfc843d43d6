//! A cluster for the tests of this folder. The test plays the driver's external attacher, which holds attachments by a finalizer, and the node.

use std::sync::Arc;
use std::time::Duration;

use base::{Drain, ManualClock};
use client::Informers;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::Cluster;

use super::names::{attachment_name, node_name_of};
use crate::testing::config;
use crate::volume::testing::{claim, pod, volume, wait_claim, wait_for_event};
use crate::{Config, run};

pub(super) const DRIVER: &str = "d.io";
const OTHERS: &str =
    "serviceaccount-controller,persistentvolume-binder-controller,ephemeral-volume-controller";

pub(super) struct World {
    pub(super) cluster: Cluster,
    clock: ManualClock,
    pub(super) drain: Drain,
}

impl World {
    /// A cluster with the nodes `n1` and `n2`, of whose controllers only those run that this takes.
    pub(super) async fn new() -> Self {
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
    pub(super) async fn restart(&mut self) {
        self.drain.start();
        self.drain.drain().await;
        self.drain = begin(&self.cluster);
    }

    /// Lets time pass for everybody at once.
    pub(super) async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    }

    /// A volume of the driver with a claim that has it.
    pub(super) async fn storage(&self, name: &str, mode: &str) {
        let csi =
            json!({"hostPath": null, "csi": {"driver": DRIVER, "volumeHandle": name}, "accessModes": [mode]});
        self.cluster.create_global(&volume(name, csi)).await;
        let spec = json!({"volumeName": name, "accessModes": [mode]});
        self.cluster.create("default", &claim(name, spec)).await;
        wait_claim(&self.cluster, name, "Bound").await;
    }

    pub(super) async fn pod(&self, name: &str, node: &str, claim: &str) {
        let mut pod = pod(name, &[claim]);
        pod.spec.as_mut().unwrap().node_name = Some(node.into());
        self.cluster.create("default", &pod).await;
    }

    pub(super) async fn end(&self, pod: &str) {
        let now = DeleteParams::default().grace_period(0);
        self.cluster.api::<Pod>("default").delete(pod, &now).await.unwrap();
    }

    pub(super) async fn attachment(
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

    pub(super) async fn made(&self, volume: &str, node: &str) -> VolumeAttachment {
        self.attachment(volume, node, "to be made", Option::is_some).await.unwrap()
    }

    pub(super) async fn deleting(&self, volume: &str, node: &str) {
        let is = |found: &Option<VolumeAttachment>| {
            found.as_ref().is_some_and(|a| a.metadata.deletion_timestamp.is_some())
        };
        self.attachment(volume, node, "to be deleted", is).await;
    }

    /// What is there right now.
    pub(super) async fn present(&self, volume: &str, node: &str) -> Option<VolumeAttachment> {
        let name = attachment_name(DRIVER, volume, node);
        self.cluster.all::<VolumeAttachment>().get_opt(&name).await.unwrap()
    }

    pub(super) async fn is_kept(&self, volume: &str, node: &str) -> bool {
        self.present(volume, node).await.is_some_and(|a| a.metadata.deletion_timestamp.is_none())
    }

    /// The driver attaches, once it is asked to.
    pub(super) async fn attach(&self, volume: &str, node: &str) {
        let name = self.made(volume, node).await.name_any();
        let (api, params) = (self.cluster.all::<VolumeAttachment>(), PatchParams::default());
        let hold = json!({"metadata": {"finalizers": ["external-attacher/d-io"]}});
        api.patch(&name, &params, &Patch::Merge(hold)).await.unwrap();
        let done = json!({"status": {"attached": true, "attachError": null}});
        api.patch_status(&name, &params, &Patch::Merge(done)).await.unwrap();
    }

    /// The driver has detached.
    pub(super) async fn detached(&self, volume: &str, node: &str) {
        self.deleting(volume, node).await;
        let name = attachment_name(DRIVER, volume, node);
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.cluster.all::<VolumeAttachment>().patch(&name, &PatchParams::default(), &free).await.unwrap();
    }

    pub(super) async fn reported(&self, node: &str) -> Vec<String> {
        let node = self.cluster.all::<Node>().get(node).await.unwrap();
        let all = node.status.unwrap().volumes_attached.unwrap_or_default();
        assert!(all.iter().all(|volume| volume.device_path.is_empty()));
        all.into_iter().map(|volume| volume.name).collect()
    }

    pub(super) async fn wait_reported(&self, node: &str, volumes: &[&str]) {
        let expected: Vec<String> = volumes.iter().map(|volume| node_name_of(DRIVER, volume)).collect();
        let what = format!("{node} to be told of {volumes:?}");
        self.cluster
            .wait_for(&what, || async { (self.reported(node).await == expected).then_some(()) })
            .await;
    }

    /// The node says what it uses.
    pub(super) async fn uses(&self, node: &str, volumes: &[&str]) {
        let all: Vec<String> = volumes.iter().map(|volume| node_name_of(DRIVER, volume)).collect();
        let used = if all.is_empty() { Value::Null } else { json!(all) };
        self.status(node, json!({"volumesInUse": used})).await;
    }

    pub(super) async fn status(&self, node: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.cluster.all::<Node>().patch_status(node, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Returns when everything that is so at present has been looked at: volumes that come later are attached.
    pub(super) async fn settle(&self, node: &str, mark: &str) {
        self.storage(mark, "ReadWriteMany").await;
        self.pod(mark, node, mark).await;
        self.made(mark, node).await;
    }

    pub(super) async fn told(&self, pod: &str, reason: &str, message: &str) {
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

pub(super) async fn set_ready(cluster: &Cluster, node: &str, status: &str) {
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    let api = cluster.all::<Node>();
    api.patch_status(node, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}
