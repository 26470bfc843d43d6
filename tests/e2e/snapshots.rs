//! Snapshots of volumes, volumes made from them, and clones.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("snapshots::the_kinds_are_there", the_kinds_are_there),
    (
        "snapshots::a_snapshot_is_restored_and_gives_its_disk_back",
        a_snapshot_is_restored_and_gives_its_disk_back,
    ),
    ("snapshots::clones_and_devices", clones_and_devices),
    ("snapshots::directories_and_what_they_become", directories_and_what_they_become),
    ("snapshots::what_cannot_be_says_so", what_cannot_be_says_so),
];

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

fn claim(cluster: &Cluster, ns: &str, name: &str, size: &str, more: &str) {
    make(
        cluster,
        ns,
        &format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{{more}
               accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}}}}}"
        ),
    );
}

/// A pod of one shell script with the claim on `/data`, or as the device `/dev/data`.
fn pod(cluster: &Cluster, ns: &str, name: &str, claim: &str, how: &str, script: &str) {
    make(
        cluster,
        ns,
        &format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0,
               restartPolicy: Never, volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}],
               containers: [{{name: main, image: 'busybox:1', {how}, command: [/bin/busybox, sh, -c], args: [{}]}}]}}}}",
            serde_json::to_string(script).expect("text")
        ),
    );
}

const FILES: &str = "volumeMounts: [{name: data, mountPath: /data}]";
const DEVICE: &str = "volumeDevices: [{name: data, devicePath: /dev/data}]";

fn ready(cluster: &Cluster, ns: &str, pod: &str) {
    cluster.kubectl(ns, &["wait", &format!("pod/{pod}"), "--for=condition=Ready", "--timeout=60s"]);
}

fn succeeds(cluster: &Cluster, ns: &str, pod: &str) {
    let phase = || cluster.get(ns, &["pod", pod])["status"]["phase"].clone();
    cluster.wait_for(&format!("{pod} to end"), || phase() == "Succeeded" || phase() == "Failed");
    assert_eq!(phase(), "Succeeded", "{}", cluster.kubectl(ns, &["logs", pod]));
}

fn snapshot(cluster: &Cluster, ns: &str, name: &str, of: &str) -> Value {
    make(
        cluster,
        ns,
        &format!(
            "{{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {{name: {name}}},
               spec: {{source: {{persistentVolumeClaimName: {of}}}}}}}"
        ),
    );
    let wait = format!("vs/{name}");
    cluster.kubectl(ns, &["wait", &wait, "--for=jsonpath={.status.readyToUse}=true", "--timeout=60s"]);
    cluster.get(ns, &["vs", name])
}

fn from_snapshot(name: &str) -> String {
    format!("dataSource: {{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {name}}},")
}

fn the_kinds_are_there(cluster: &Cluster) {
    let kinds = cluster.kubectl("default", &["api-resources", "--api-group=snapshot.storage.k8s.io"]);
    for kind in
        ["VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass", "vsc,vscs", "vsclass,vsclasses"]
    {
        assert!(kinds.contains(kind), "{kinds}");
    }
    let class = cluster.kubectl("default", &["get", "vsclass"]);
    assert!(class.contains("local.gantry.io") && class.contains("Delete"), "{class}");
    let text = cluster.kubectl("default", &["explain", "vs.spec.source.persistentVolumeClaimName"]);
    assert!(text.contains("a snapshot is taken of its volume"), "{text}");
    let both = "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: both}, spec: {source: {
        persistentVolumeClaimName: a, volumeSnapshotContentName: b}}}";
    let said = cluster.with_manifest("default", &["apply"], both);
    assert!(!said.ok && said.err.contains("exactly one of"), "{said:?}");
}

fn a_snapshot_is_restored_and_gives_its_disk_back(cluster: &Cluster) {
    let ns = "snapshots-restore";
    cluster.namespace(ns);
    claim(cluster, ns, "data", "32Mi", "");
    let script = "echo one > /data/file; busybox dd if=/dev/urandom of=/data/fill bs=1M count=8 2>/dev/null;
        busybox touch /data/done; exec busybox sleep 1000";
    pod(cluster, ns, "writes", "data", FILES, script);
    ready(cluster, ns, "writes");
    let exec = |pod: &str, script: &str| {
        cluster.try_kubectl(ns, &["exec", pod, "--", "/bin/busybox", "sh", "-c", script])
    };
    cluster.wait_for("the files", || exec("writes", "busybox test -e /data/done").ok);
    let sum = exec("writes", "busybox md5sum < /data/fill").out;
    let made = snapshot(cluster, ns, "s", "data");
    assert_eq!(made["status"]["restoreSize"], "32Mi");
    assert!(exec("writes", "echo two > /data/file && busybox rm /data/fill").ok);
    let shown = cluster.kubectl(ns, &["get", "vs"]);
    assert!(shown.starts_with("NAME   READYTOUSE   SOURCEPVC") && shown.contains("32Mi"), "{shown}");
    let described = cluster.kubectl(ns, &["describe", "vs", "s"]);
    for event in ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"] {
        cluster.wait_for(event, || cluster.kubectl(ns, &["describe", "vs", "s"]).contains(event));
    }
    assert!(described.contains("snapcontent-"), "{described}");
    let uid = made["metadata"]["uid"].as_str().expect("a UID");
    let image =
        cluster.folder("data").join("volumes/.snapshots").join(format!("snapshot-{uid}")).join("image");
    assert!(image.exists());
    // Without a pod, and again after everything was killed.
    claim(cluster, ns, "restored", "64Mi", &from_snapshot("s"));
    cluster.kubectl(ns, &["wait", "pvc/restored", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"]);
    cluster.kill_and_restart();
    let script = "busybox cat /data/file; busybox md5sum < /data/fill; busybox df /data | busybox tail -1";
    pod(cluster, ns, "reads", "restored", FILES, script);
    succeeds(cluster, ns, "reads");
    let read = cluster.kubectl(ns, &["logs", "reads"]);
    assert!(read.starts_with(&format!("one\n{sum}")), "{read}");
    let blocks = read.lines().last().and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    assert!(blocks.is_some_and(|kib| kib > 48 << 10), "it has its own size: {read}");
    assert_eq!(exec("writes", "busybox cat /data/file").out, "two\n");
    // The disk is given back, and what was made from it stays.
    cluster.kubectl(ns, &["delete", "vs", "s"]);
    assert!(!image.exists(), "the data goes before the snapshot");
    assert!(!cluster.kubectl(ns, &["get", "vsc"]).contains(uid));
    pod(cluster, ns, "reads-again", "restored", FILES, "busybox grep -q one /data/file");
    succeeds(cluster, ns, "reads-again");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    cluster.kubectl(ns, &["delete", "pvc", "--all"]);
}

fn clones_and_devices(cluster: &Cluster) {
    let ns = "snapshots-clone";
    cluster.namespace(ns);
    claim(cluster, ns, "data", "32Mi", "");
    pod(cluster, ns, "writes", "data", FILES, "echo one > /data/file; busybox sync; exec busybox sleep 1000");
    ready(cluster, ns, "writes");
    let read = || cluster.try_kubectl(ns, &["exec", "writes", "--", "/bin/busybox", "cat", "/data/file"]).out;
    cluster.wait_for("the file", || read() == "one\n");
    let clone = |of: &str| format!("dataSource: {{kind: PersistentVolumeClaim, name: {of}}},");
    claim(cluster, ns, "copy", "32Mi", &clone("data"));
    pod(cluster, ns, "changes", "copy", FILES, "busybox grep -q one /data/file && echo copy > /data/file");
    succeeds(cluster, ns, "changes");
    assert_eq!(read(), "one\n");
    let block = "volumeMode: Block,";
    claim(cluster, ns, "disk", "1Mi", block);
    pod(cluster, ns, "formats", "disk", DEVICE, "echo first > /dev/data");
    succeeds(cluster, ns, "formats");
    snapshot(cluster, ns, "of-disk", "disk");
    pod(cluster, ns, "overwrites", "disk", DEVICE, "echo later > /dev/data");
    succeeds(cluster, ns, "overwrites");
    claim(cluster, ns, "disk-again", "1Mi", &format!("{block} {}", from_snapshot("of-disk")));
    pod(cluster, ns, "compares", "disk-again", DEVICE, "busybox head -c 5 /dev/data | busybox grep -q first");
    succeeds(cluster, ns, "compares");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    cluster.kubectl(ns, &["delete", "vs,pvc", "--all"]);
}

const FOLDERS: &str = "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: e2e-folders},
    provisioner: local.gantry.io, parameters: {kind: directory}}";

fn directories_and_what_they_become(cluster: &Cluster) {
    let ns = "snapshots-folders";
    cluster.namespace(ns);
    make(cluster, ns, FOLDERS);
    let folders = "storageClassName: e2e-folders,";
    claim(cluster, ns, "data", "16Mi", folders);
    let script = "set -e; cd /data; busybox mkdir -p a/b; echo one > a/file; busybox ln a/file a/b/again;
        busybox ln -s /etc/passwd away; busybox mkfifo a/fifo; busybox chown 1000:2000 a/file; busybox chmod 4750 a/file;
        busybox touch -d '2001-02-03 04:05:06' a/b; busybox truncate -s 1G sparse; busybox touch done;
        exec busybox sleep 1000";
    pod(cluster, ns, "writes", "data", FILES, script);
    ready(cluster, ns, "writes");
    let exec =
        |script: &str| cluster.try_kubectl(ns, &["exec", "writes", "--", "/bin/busybox", "sh", "-c", script]);
    cluster.wait_for("the files", || exec("busybox test -e /data/done").ok);
    let made = snapshot(cluster, ns, "s", "data");
    assert_eq!(made["status"]["restoreSize"], "16Mi");
    assert!(exec("cd /data; echo two > a/file; busybox rm away").ok);
    let uid = made["metadata"]["uid"].as_str().expect("a UID");
    let taken = cluster.folder("data").join("volumes/.snapshots").join(format!("snapshot-{uid}"));
    assert!(taken.join("data/a/file").exists());
    // All at once: into another directory, a larger one, an image, and after everything was killed.
    let from = from_snapshot("s");
    claim(cluster, ns, "same", "16Mi", &format!("{folders} {from}"));
    claim(cluster, ns, "larger", "64Mi", &format!("{folders} {from}"));
    claim(cluster, ns, "image", "32Mi", &format!("storageClassName: local, {from}"));
    cluster.kill_and_restart();
    let check = "set -e; cd /data; busybox test $(busybox cat a/b/again) = one;
        busybox test \"$(busybox stat -c '%a %u %g %h' a/file)\" = '4750 1000 2000 2'; busybox test -p a/fifo;
        busybox test $(busybox readlink away) = /etc/passwd; busybox test $(busybox stat -c %Y a/b) = 981173106;
        busybox test $(busybox stat -c %s sparse) = 1073741824; busybox test $(busybox stat -c %b sparse) -lt 100;
        echo own > a/file";
    for name in ["same", "larger", "image"] {
        pod(cluster, ns, name, name, FILES, check);
        succeeds(cluster, ns, name);
    }
    assert_eq!(exec("busybox cat /data/a/b/again").out, "two\n");
    // The disk is given back, and what was made from it stays.
    cluster.kubectl(ns, &["delete", "vs", "s"]);
    assert!(!taken.exists(), "the data goes before the snapshot");
    let clone = |of: &str| format!("dataSource: {{kind: PersistentVolumeClaim, name: {of}}},");
    claim(cluster, ns, "clone", "16Mi", &format!("{folders} {}", clone("data")));
    claim(cluster, ns, "back", "32Mi", &format!("{folders} {}", clone("image")));
    for (name, text) in [("clone", "two"), ("back", "own")] {
        let check =
            format!("busybox test $(busybox cat /data/a/b/again) = {text} && busybox test -p /data/a/fifo");
        pod(cluster, ns, name, name, FILES, &check);
        succeeds(cluster, ns, name);
    }
    // Nobody has held the directory to its size, and the image is held to its own.
    assert!(exec("busybox dd if=/dev/zero of=/data/much bs=1M count=40 2>/dev/null").ok);
    claim(cluster, ns, "full", "16Mi", &format!("storageClassName: local, {}", clone("data")));
    cluster.wait_for("why there is no data", || {
        cluster
            .kubectl(ns, &["describe", "pvc", "full"])
            .contains("does not fit into the volume's 16777216 bytes")
    });
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    cluster.kubectl(ns, &["delete", "vs,pvc", "--all"]);
    cluster.kubectl(ns, &["delete", "storageclass", "e2e-folders"]);
}

fn what_cannot_be_says_so(cluster: &Cluster) {
    let ns = "snapshots-refused";
    cluster.namespace(ns);
    let early = "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: NAME},
        spec: {source: {persistentVolumeClaimName: CLAIM}}}";
    let says = |name: &str, claim: &str, text: &str| {
        make(cluster, ns, &early.replace("NAME", name).replace("CLAIM", claim));
        cluster.wait_for(text, || {
            let error = cluster.get(ns, &["vs", name])["status"]["error"]["message"].clone();
            error.as_str().is_some_and(|error| error.contains(text))
        });
    };
    says("of-nothing", "nothing", "failed to retrieve PVC nothing");
    claim(cluster, ns, "waits", "32Mi", "");
    says("of-waiting", "waits", "the PVC waits is not yet bound to a PV");
    cluster.kubectl(ns, &["delete", "vs,pvc", "--all"]);
}
