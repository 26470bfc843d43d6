//! A node with a node's rights, against the real API server.

use std::fs;
use std::path::PathBuf;

use auth::User;
use client::snapshots::{BEING_DELETED, CONTENT_FINALIZER, VolumeSnapshotContent};
use client::{Informers, Recorder};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::Cluster;

use crate::{Allocatable, Options, Place, VolumeError, Volumes};

struct Node {
    cluster: Cluster,
    folder: tempfile::TempDir,
    volumes: Volumes,
}

impl Node {
    async fn new(name: &str) -> Self {
        let cluster = Cluster::start().await;
        let folder = tempfile::tempdir().unwrap();
        let user = User::authenticated(format!("system:node:{name}"), ["system:nodes".to_owned()]);
        let client = cluster.client_as(user);
        let (clock, drain) = (cluster.clock.clone(), cluster.drain.clone());
        let volumes = Volumes::new(Options {
            client: client.clone(),
            pods: folder.path().join("pods"),
            data: folder.path().join("volumes"),
            node: name.into(),
            recorder: Recorder::start(client.clone(), "kubelet", name, clock.clone(), &drain),
            allocatable: Allocatable::default(),
            clock,
            drain: drain.clone(),
            wake: std::sync::Arc::new(|_| {}),
        });
        volumes.follow(&Informers::new(client, drain.clone()), &drain);
        let account: ServiceAccount = testkit::object(json!({"metadata": {"name": "default"}}));
        cluster.create("default", &account).await;
        Self { cluster, folder, volumes }
    }

    fn data(&self, volume: &str) -> PathBuf {
        self.folder.path().join("volumes").join(volume)
    }

    /// A claim and its volume, both bound.
    async fn bound(&self, name: &str, source: Value) -> PersistentVolume {
        let mut claim: PersistentVolumeClaim = testkit::object(json!({"metadata": {"name": name}, "spec": {
            "storageClassName": "", "volumeName": name, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "16Mi"}}}}));
        claim = self.cluster.create("default", &claim).await;
        let of = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": name,
            "uid": claim.metadata.uid});
        let mut spec = json!({"capacity": {"storage": "16Mi"}, "accessModes": ["ReadWriteOnce"], "claimRef": of,
            "persistentVolumeReclaimPolicy": "Delete"});
        types::patch::merge_patch(&mut spec, source);
        let metadata = json!({"name": name, "labels": {"local.gantry.io/node": "n1"}, "finalizers": ["local.gantry.io/data"]});
        let pv = json!({"metadata": metadata, "spec": spec});
        let pv = self.cluster.create_global::<PersistentVolume>(&testkit::object(pv)).await;
        self.phase(name, "Bound").await;
        let status = json!({"status": {"phase": "Bound", "capacity": {"storage": "16Mi"}}});
        let claims = self.cluster.api::<PersistentVolumeClaim>("default");
        claims.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        pv
    }

    async fn phase(&self, volume: &str, phase: &str) {
        let status = Patch::Merge(json!({"status": {"phase": phase}}));
        let volumes: Api<PersistentVolume> = self.cluster.all();
        volumes.patch_status(volume, &PatchParams::default(), &status).await.unwrap();
    }

    async fn pod(&self, name: &str, claim: &str, node: &str) -> Pod {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "automountServiceAccountToken": false,
            "containers": [{"name": "a", "image": "a", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}});
        self.cluster.create("default", &testkit::object::<Pod>(pod)).await
    }

    async fn set_up(&self, pod: &Pod) -> Result<Place, VolumeError> {
        Ok(self.volumes.set_up(pod).await?.places["data"].clone())
    }

    async fn end(&self, pod: &Pod) {
        self.volumes.tear_down(pod.metadata.uid.as_deref().unwrap()).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        crate::release_all(self.folder.path()).unwrap();
    }
}

fn own(node: &str) -> Value {
    json!({"csi": {"driver": "local.gantry.io", "volumeHandle": "v",
        "volumeAttributes": {"node": node, "kind": "image"}}})
}

#[tokio::test]
async fn own_data_lives_grows_and_goes_with_its_volume() {
    let node = Node::new("n1").await;
    node.bound("v", own("n1")).await;
    let pod = node.pod("p", "v", "n1").await;
    let place = node.set_up(&pod).await.unwrap();
    fs::write(place.path.join("file"), "data").unwrap();
    // The claim may be on its way out: who has it keeps it.
    assert_eq!(node.set_up(&pod).await.unwrap(), place);
    let more = Patch::Merge(json!({"spec": {"capacity": {"storage": "64Mi"}}}));
    let volumes: Api<PersistentVolume> = node.cluster.all();
    volumes.patch("v", &PatchParams::default(), &more).await.unwrap();
    // With this pod where the kernel allows that, else with the next.
    node.end(&pod).await;
    let next = node.pod("next", "v", "n1").await;
    let place = node.set_up(&next).await.unwrap();
    let has = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().unwrap().capacity.as_ref().is_some_and(|c| c["storage"].0 == "64Mi")
    };
    node.cluster.wait_until("default", "v", "to say that it has grown", has).await;
    fs::write(place.path.join("large"), vec![1; 32 << 20]).unwrap();
    // Deleted while a pod has it, and while its claim is there.
    let only = Patch::Merge(json!({"metadata": {"finalizers": ["local.gantry.io/data"]}}));
    volumes.patch("v", &PatchParams::default(), &only).await.unwrap();
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    assert_eq!(fs::read_to_string(place.path.join("file")).unwrap(), "data");
    node.end(&next).await;
    assert!(node.data("v").join("image").exists());
    node.phase("v", "Released").await;
    node.cluster
        .wait_for("the volume to go", || async {
            volumes.get_opt("v").await.unwrap().is_none().then_some(())
        })
        .await;
    assert!(!node.data("v").exists());
}

#[tokio::test]
async fn retained_data_stays() {
    let node = Node::new("n1").await;
    let mut source = own("n1");
    source["persistentVolumeReclaimPolicy"] = "Retain".into();
    node.bound("v", source).await;
    let pod = node.pod("p", "v", "n1").await;
    node.set_up(&pod).await.unwrap();
    node.end(&pod).await;
    let volumes: Api<PersistentVolume> = node.cluster.all();
    let only = Patch::Merge(json!({"metadata": {"finalizers": ["local.gantry.io/data"]}}));
    volumes.patch("v", &PatchParams::default(), &only).await.unwrap();
    node.phase("v", "Released").await;
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    node.cluster
        .wait_for("the volume to go", || async {
            volumes.get_opt("v").await.unwrap().is_none().then_some(())
        })
        .await;
    assert!(node.data("v").join("image").exists());
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_kubelets_words() {
    let node = Node::new("n1").await;
    let said = |outcome: Result<Place, VolumeError>| outcome.unwrap_err().to_string();
    node.bound("far", own("n2")).await;
    let far = said(node.set_up(&node.pod("far", "far", "n1").await).await);
    assert!(
        far.contains("NodeAffinity check failed for volume \"far\" : no matching NodeSelectorTerms"),
        "{far}"
    );
    let missing = said(node.set_up(&node.pod("missing", "missing", "n1").await).await);
    let text = "error processing PVC default/missing: failed to fetch PVC from API server: ";
    assert!(missing.contains(text) && missing.contains("\"missing\" not found"), "{missing}");
    let local = json!({"local": {"path": "/nowhere/at/all"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}});
    node.bound("lost", local).await;
    let lost = said(node.set_up(&node.pod("lost", "lost", "n1").await).await);
    assert_eq!(
        lost,
        "MountVolume.SetUp failed for volume \"lost\" : path \"/nowhere/at/all\" does not exist"
    );
    // Nobody else's: not even to be looked at.
    node.bound("other", own("n2")).await;
    let elsewhere = said(node.set_up(&node.pod("other", "other", "n2").await).await);
    assert!(elsewhere.contains("is forbidden") || elsewhere.contains("no relationship"), "{elsewhere}");
}

/// A content of a volume on the node.
fn content(name: &str, handle: &str) -> VolumeSnapshotContent {
    testkit::object(json!({
        "metadata": {"name": name, "labels": {"local.gantry.io/node": "n1"}, "finalizers": [CONTENT_FINALIZER]},
        "spec": {"driver": "local.gantry.io", "deletionPolicy": "Delete", "source": {"volumeHandle": handle},
            "volumeSnapshotRef": {"namespace": "default", "name": name, "uid": name}}}))
}

fn copy(name: &str, of: &str) -> Value {
    json!({"csi": {"driver": "local.gantry.io", "volumeHandle": name,
        "volumeAttributes": {"node": "n1", "kind": "image", of: "snapshot-s"}}})
}

#[tokio::test]
async fn snapshots_are_taken_kept_for_their_copies_and_deleted() {
    let node = Node::new("n1").await;
    node.bound("v", own("n1")).await;
    let pod = node.pod("p", "v", "n1").await;
    let place = node.set_up(&pod).await.unwrap();
    fs::write(place.path.join("before"), "1").unwrap();
    let contents: Api<VolumeSnapshotContent> = node.cluster.all();
    node.cluster.create_global(&content("s", "v")).await;
    let told = |name: &'static str, what: fn(&VolumeSnapshotContent) -> bool| {
        let contents = contents.clone();
        let cluster = &node.cluster;
        async move {
            let look = || async { Some(contents.get(name).await.unwrap()).filter(what) };
            cluster.wait_for(name, look).await.status.unwrap()
        }
    };
    let status = told("s", |c| c.status.as_ref().is_some_and(|s| s.ready_to_use == Some(true))).await;
    assert_eq!(status.snapshot_handle.as_deref(), Some("n1/snapshot-s"));
    assert_eq!(status.restore_size, Some(16 << 20));
    assert!(status.creation_time.is_some_and(|time| time > 0) && status.error.is_none());
    fs::write(place.path.join("after"), "2").unwrap();
    // Its volume has its data before any pod comes.
    node.bound("restored", copy("restored", "snapshot")).await;
    node.cluster.wait_for("the copy", || async { node.data("restored/image").exists().then_some(()) }).await;
    let next = node.pod("next", "restored", "n1").await;
    let restored = node.set_up(&next).await.unwrap();
    assert_eq!(fs::read_to_string(restored.path.join("before")).unwrap(), "1");
    assert!(!restored.path.join("after").exists());
    // What cannot be is said.
    node.cluster.create_global(&content("lost", "nowhere")).await;
    let status = told("lost", |c| c.status.is_some()).await;
    let why = status.error.unwrap().message.unwrap();
    assert_eq!(status.ready_to_use, Some(false));
    assert_eq!(
        why,
        "Failed to create snapshot: failed to take snapshot of the volume nowhere: \"volume \\\"nowhere\\\" is not on this node\""
    );
    let folder = json!({"csi": {"driver": "local.gantry.io", "volumeHandle": "d", "volumeAttributes": {"node": "n1", "kind": "directory"}}});
    node.bound("d", folder).await;
    node.cluster.create_global(&content("directory", "d")).await;
    let status = told("directory", |c| c.status.as_ref().is_some_and(|s| s.ready_to_use == Some(true))).await;
    assert_eq!((status.ready_to_use, status.restore_size), (Some(true), Some(16 << 20)));
    assert!(node.data(".snapshots/snapshot-directory/data").is_dir());
    // Deleted alone it stays, for its snapshot counts on it; then it goes, and its data before it.
    contents.delete("s", &DeleteParams::default()).await.unwrap();
    assert!(node.data(".snapshots/snapshot-s/image").exists());
    let mark = Patch::Merge(json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}}));
    contents.patch("s", &PatchParams::default(), &mark).await.unwrap();
    node.cluster
        .wait_for("the content to go", || async {
            contents.get_opt("s").await.unwrap().is_none().then_some(())
        })
        .await;
    assert!(!node.data(".snapshots/snapshot-s").exists());
    assert_eq!(fs::read_to_string(restored.path.join("before")).unwrap(), "1");
}
