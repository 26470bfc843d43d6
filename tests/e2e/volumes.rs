//! What pods may do with their volumes, and what they are told when something cannot be.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("volumes::what_a_pod_makes_of_its_memory_stays", what_a_pod_makes_of_its_memory_stays),
    ("volumes::no_tree_is_too_deep_to_be_deleted", no_tree_is_too_deep_to_be_deleted),
    ("volumes::mounts_travel_or_say_why_not", mounts_travel_or_say_why_not),
    ("volumes::what_is_missing_is_the_pods", what_is_missing_is_the_pods),
    ("volumes::classes_of_attributes_are_refused", classes_of_attributes_are_refused),
];

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

/// A pod that sleeps; `mount` says how it mounts its volume `v`.
fn pod(cluster: &Cluster, ns: &str, name: &str, volumes: &str, mount: &str) {
    make(
        cluster,
        ns,
        &format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, annotations: {{word: one}}}}, spec: {{
               terminationGracePeriodSeconds: 0, volumes: [{volumes}], containers: [{{name: main, image: 'busybox:1',
               {mount}, command: [/bin/busybox, sleep, '1000']}}]}}}}"
        ),
    );
}

fn ready(cluster: &Cluster, ns: &str, pod: &str) {
    cluster.kubectl(ns, &["wait", &format!("pod/{pod}"), "--for=condition=Ready", "--timeout=60s"]);
}

fn what_a_pod_makes_of_its_memory_stays(cluster: &Cluster) {
    let ns = "volumes-memory";
    cluster.namespace(ns);
    let volumes = "{name: v, emptyDir: {medium: Memory}},
        {name: word, downwardAPI: {items: [{path: word, fieldRef: {fieldPath: \"metadata.annotations['word']\"}}]}}";
    let mounts = "volumeMounts: [{name: v, mountPath: /v}, {name: word, mountPath: /w}]";
    pod(cluster, ns, "p", volumes, mounts);
    ready(cluster, ns, "p");
    let exec = |script: &str| {
        cluster.kubectl(ns, &["exec", "p", "--", "/bin/busybox", "sh", "-c", script]).trim().to_owned()
    };
    assert_eq!(exec("busybox stat -c %a /v"), "777");
    exec("busybox chmod 700 /v && busybox chown 5:6 /v");
    cluster.kubectl(ns, &["annotate", "--overwrite", "pod", "p", "word=two"]);
    cluster.wait_for("the volumes to be refreshed", || exec("busybox cat /w/word") == "two");
    assert_eq!(exec("busybox stat -c '%a %u %g' /v"), "700 5 6");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn no_tree_is_too_deep_to_be_deleted(cluster: &Cluster) {
    let ns = "volumes-deep";
    cluster.namespace(ns);
    make(
        cluster,
        ns,
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: e2e-deep}, provisioner: local.gantry.io,
          parameters: {kind: directory}}",
    );
    make(
        cluster,
        ns,
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {storageClassName: e2e-deep,
          accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}",
    );
    let volumes = "{name: v, emptyDir: {}}, {name: d, persistentVolumeClaim: {claimName: data}}";
    pod(cluster, ns, "p", volumes, "volumeMounts: [{name: v, mountPath: /v}, {name: d, mountPath: /d}]");
    ready(cluster, ns, "p");
    let pod = cluster.get(ns, &["pod", "p"])["metadata"]["uid"].as_str().expect("a UID").to_owned();
    let pods = cluster.folder("data").join("pods").join(pod);
    let pv = cluster.get(ns, &["pvc", "data"])["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    let data = cluster.folder("data").join("volumes").join(pv);
    let script = "import os,sys\nos.chdir(sys.argv[1])\nfor _ in range(20000): os.mkdir('d'); os.chdir('d')";
    for folder in [pods.join("volumes/v"), data.join("data")] {
        let made = Command::new("python3").args(["-c", script]).arg(&folder).status().expect("python3");
        assert!(made.success());
    }
    cluster.kubectl(ns, &["delete", "pod", "p", "--now"]);
    cluster.kubectl(ns, &["delete", "pvc", "data", "--wait=false"]);
    cluster.wait_at_most(Duration::from_secs(300), "all of it to go", || !pods.exists() && !data.exists());
    cluster.kubectl(ns, &["delete", "storageclass", "e2e-deep"]);
    assert!(cluster.kubectl(ns, &["get", "nodes"]).contains("Ready"));
}

fn mount(args: &[&str], folder: &Path) {
    let done = Command::new("mount").args(args).arg(folder).status().expect("mount");
    assert!(done.success(), "mount {args:?}");
}

fn mounts_travel_or_say_why_not(cluster: &Cluster) {
    let ns = "volumes-travel";
    cluster.namespace(ns);
    let folder = cluster.folder("volumes-travel");
    mount(&["--bind", folder.to_str().expect("a plain path")], &folder);
    mount(&["--make-private"], &folder);
    let volume = format!("{{name: v, hostPath: {{path: {}, type: Directory}}}}", folder.display());
    let both = "securityContext: {privileged: true},
        volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]";
    pod(cluster, ns, "p", &volume, both);
    let why = format!("path {folder:?} is mounted on {folder:?} but it is not a shared mount");
    cluster.wait_for(&why, || cluster.kubectl(ns, &["describe", "pod", "p"]).contains(&why));
    // It is tried again.
    mount(&["--make-shared"], &folder);
    ready(cluster, ns, "p");
    let script = "busybox mkdir /v/sub && busybox mount -t tmpfs none /v/sub && busybox touch /v/sub/made";
    cluster.kubectl(ns, &["exec", "p", "--", "/bin/busybox", "sh", "-c", script]);
    assert!(folder.join("sub/made").exists());
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    for path in [folder.join("sub"), folder] {
        let done = Command::new("umount").arg("-l").arg(path).status().expect("umount");
        assert!(done.success());
    }
}

fn what_is_missing_is_the_pods(cluster: &Cluster) {
    let ns = "volumes-missing";
    cluster.namespace(ns);
    let nowhere = cluster.folder("volumes-missing").join("nowhere");
    let volume = format!("{{name: v, hostPath: {{path: {}, type: File}}}}", nowhere.display());
    pod(cluster, ns, "p", &volume, "volumeMounts: [{name: v, mountPath: /v}]");
    let why = format!(
        "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {} is not a file",
        nowhere.display()
    );
    let events = || {
        let all = cluster.get(ns, &["events"])["items"].as_array().expect("a list").clone();
        all.into_iter().filter(|e| e["involvedObject"]["name"] == "p").collect::<Vec<_>>()
    };
    cluster.wait_for(&why, || events().iter().any(|e| e["message"] == why.as_str()));
    for event in events() {
        assert_ne!(event["reason"], "Pulled", "nothing is done for a container whose volumes are not there");
        if event["reason"] == "FailedMount" {
            assert!(event["involvedObject"]["fieldPath"].is_null(), "{event}");
        }
    }
    std::fs::write(&nowhere, "here").expect("writable folder");
    ready(cluster, ns, "p");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn classes_of_attributes_are_refused(cluster: &Cluster) {
    let ns = "volumes-attributes";
    cluster.namespace(ns);
    for object in [
        "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: e2e-gold},
          driverName: local.gantry.io, parameters: {iops: '100'}}",
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: e2e-now}, provisioner: local.gantry.io}",
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: born}, spec: {storageClassName: e2e-now,
          volumeAttributesClassName: e2e-gold, accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Mi}}}}",
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: made}, spec: {storageClassName: e2e-now,
          accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Mi}}}}",
    ] {
        make(cluster, ns, object);
    }
    let why = "volumes of local.gantry.io have no attributes that can be changed";
    let says = |claim: &str, reason: &str| {
        cluster.wait_for(reason, || {
            let said = cluster.kubectl(ns, &["describe", "pvc", claim]);
            said.contains(reason) && said.contains(why)
        });
    };
    says("born", "ProvisioningFailed");
    cluster.kubectl(ns, &["wait", "pvc/made", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"]);
    let gold = r#"{"spec":{"volumeAttributesClassName":"e2e-gold"}}"#;
    cluster.kubectl(ns, &["patch", "pvc", "made", "--type=merge", "-p", gold]);
    says("made", "VolumeModifyFailed");
    let status = cluster.get(ns, &["pvc", "made"])["status"]["modifyVolumeStatus"].clone();
    assert_eq!(status["status"], "Infeasible");
    cluster.kubectl(ns, &["delete", "pvc", "--all"]);
    cluster.kubectl(ns, &["delete", "storageclass", "e2e-now"]);
    cluster.kubectl(ns, &["delete", "volumeattributesclass", "e2e-gold"]);
}
