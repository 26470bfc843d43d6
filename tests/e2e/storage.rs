//! Claims, and the volumes that pods get by them.
//!
//! Where nobody binds, these tests do it by hand; where somebody does, that does no harm.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("storage::volumes_of_the_node", volumes_of_the_node),
    ("storage::the_class_that_is_there", the_class_that_is_there),
    ("storage::own_volumes_have_a_size_and_grow", own_volumes_have_a_size_and_grow),
    ("storage::what_is_not_bound_says_so", what_is_not_bound_says_so),
];

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

/// A pod of one busybox shell script with the claim `claim` on `/data`.
fn pod(name: &str, claim: &str, script: &str, mount: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{
            terminationGracePeriodSeconds: 0, {spec} volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}],
            containers: [{{name: main, image: 'busybox:1', volumeMounts: [{{name: data, mountPath: /data{mount}}}],
            command: [/bin/busybox, sh, -c], args: [{}]}}]}}}}",
        serde_json::to_string(script).expect("text")
    )
}

fn patch(cluster: &Cluster, ns: &str, what: &str, subresource: &str, text: &str) {
    let sub = format!("--subresource={subresource}");
    let mut args = vec!["patch", what, "--type=merge", "-p", text];
    if !subresource.is_empty() {
        args.push(&sub);
    }
    cluster.kubectl(ns, &args);
}

fn uid(cluster: &Cluster, ns: &str, claim: &str) -> String {
    cluster.get(ns, &["pvc", claim])["metadata"]["uid"].as_str().expect("a UID").to_owned()
}

/// Says of both that they belong together.
fn bind(cluster: &Cluster, ns: &str, claim: &str, volume: &str) {
    if cluster.get(ns, &["pvc", claim])["spec"]["volumeName"].is_null() {
        patch(
            cluster,
            ns,
            &format!("pvc/{claim}"),
            "",
            &format!(r#"{{"spec":{{"volumeName":"{volume}"}}}}"#),
        );
    }
    patch(cluster, ns, &format!("pv/{volume}"), "status", r#"{"status":{"phase":"Bound"}}"#);
    let size = cluster.get(ns, &["pv", volume])["spec"]["capacity"].clone();
    let status = format!(r#"{{"status":{{"phase":"Bound","capacity":{size}}}}}"#);
    patch(cluster, ns, &format!("pvc/{claim}"), "status", &status);
}

fn phase(cluster: &Cluster, ns: &str, pod: &str) -> Value {
    cluster.get(ns, &["pod", pod])["status"]["phase"].clone()
}

fn volumes_of_the_node(cluster: &Cluster) {
    let ns = "storage-node";
    cluster.namespace(ns);
    for (name, source) in [("host", "hostPath"), ("disk", "local")] {
        let folder = cluster.folder(&format!("storage-{name}"));
        std::fs::write(folder.join("seen"), "yes").expect("writable folder");
        make(
            cluster,
            ns,
            &format!(
                "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{storageClassName: '',
                  volumeName: e2e-{name}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}"
            ),
        );
        let uid = uid(cluster, ns, name);
        make(
            cluster,
            ns,
            &format!(
                "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: e2e-{name}}}, spec: {{
                  capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain,
                  claimRef: {{apiVersion: v1, kind: PersistentVolumeClaim, namespace: {ns}, name: {name}, uid: {uid}}},
                  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [
                    {{key: kubernetes.io/hostname, operator: In, values: [node-1]}}]}}]}}}},
                  {source}: {{path: {}}}}}}}",
                folder.display()
            ),
        );
        bind(cluster, ns, name, &format!("e2e-{name}"));
        let script = "set -e; busybox test -e /data/seen; busybox touch /data/made; exec busybox sleep 1000";
        let group = "securityContext: {fsGroup: 4321},";
        make(cluster, ns, &pod(name, name, script, "", group));
        cluster.kubectl(ns, &["wait", &format!("pod/{name}"), "--for=condition=Ready", "--timeout=60s"]);
        let read = "busybox test -e /data/made && ! busybox touch /data/more";
        make(
            cluster,
            ns,
            &pod(&format!("{name}-reads"), name, read, ", readOnly: true", "restartPolicy: Never,"),
        );
        cluster
            .wait_for("a reader to end well", || phase(cluster, ns, &format!("{name}-reads")) == "Succeeded");
        cluster.wait_for("the file", || folder.join("made").exists());
        cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
        assert!(folder.join("seen").exists(), "what is the node's stays");
        cluster.kubectl(ns, &["delete", "pvc", name, "--wait=false"]);
        cluster.kubectl(ns, &["delete", "pv", &format!("e2e-{name}"), "--wait=false"]);
    }
}

fn the_class_that_is_there(cluster: &Cluster) {
    let classes = cluster.kubectl("default", &["get", "storageclass"]);
    assert!(classes.contains("local (default)") && classes.contains("local.gantry.io"), "{classes}");
    assert!(classes.contains("WaitForFirstConsumer"), "{classes}");
    // Whoever wants another default takes the mark off, for good.
    let mark = "storageclass.kubernetes.io/is-default-class=false";
    cluster.kubectl("default", &["annotate", "--overwrite", "storageclass", "local", mark]);
    cluster.kill_and_restart();
    let class = cluster.get("default", &["storageclass", "local"]);
    assert_eq!(class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"], "false");
    let mark = mark.replace("false", "true");
    cluster.kubectl("default", &["annotate", "--overwrite", "storageclass", "local", &mark]);
}

/// Whether the kernel lets this machine's root grow a file system that is mounted: it asks for `CAP_SYS_RESOURCE`, which
/// containers seldom have.
fn may_grow_mounted() -> bool {
    const SYS_RESOURCE: u64 = 24;
    let status = std::fs::read_to_string("/proc/self/status").expect("a readable status");
    let mask = status.lines().find_map(|l| l.strip_prefix("CapEff:")).expect("capabilities");
    u64::from_str_radix(mask.trim(), 16).expect("a mask") >> SYS_RESOURCE & 1 == 1
}

fn own_volumes_have_a_size_and_grow(cluster: &Cluster) {
    let ns = "storage-own";
    cluster.namespace(ns);
    make(
        cluster,
        ns,
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce],
          resources: {requests: {storage: 32Mi}}}}",
    );
    for mark in [
        "volume.kubernetes.io/selected-node=node-1",
        "volume.kubernetes.io/storage-provisioner=local.gantry.io",
    ] {
        cluster.kubectl(ns, &["annotate", "--overwrite", "pvc", "data", mark]);
    }
    let volume = format!("pvc-{}", uid(cluster, ns, "data"));
    cluster.wait_for("a volume", || cluster.try_kubectl(ns, &["get", "pv", &volume]).ok);
    bind(cluster, ns, "data", &volume);
    let own = cluster.folder("data").join("volumes").join(&volume);
    assert!(!own.exists(), "nothing is made before a pod comes");
    // Fills its disk, and nobody else's; then waits for more room.
    let script = "busybox dd if=/dev/zero of=/data/fill bs=1M count=40 2>/dev/null && exit 9;
        busybox ls -A /data > /data/list; busybox rm /data/fill; busybox touch /data/small;
        until busybox dd if=/dev/zero of=/data/fill bs=1M count=40 2>/dev/null; do busybox sleep 0.2; done;
        busybox touch /data/large; exec busybox sleep 1000";
    make(
        cluster,
        ns,
        &pod("fills", "data", script, "", "securityContext: {runAsUser: 1000, fsGroup: 2000},"),
    );
    cluster.kubectl(ns, &["wait", "pod/fills", "--for=condition=Ready", "--timeout=60s"]);
    let inside = |name: &str| own.join("mnt/volume").join(name);
    cluster.wait_for("a full disk", || inside("small").exists());
    assert!(own.join("image").exists());
    cluster.kill_and_restart();
    patch(cluster, ns, "pvc/data", "", r#"{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}"#);
    if !may_grow_mounted() {
        cluster.wait_for("the claim to wait for a pod", || {
            let conditions = cluster.get(ns, &["pvc", "data"])["status"]["conditions"].clone();
            conditions
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "FileSystemResizePending"))
        });
        cluster.kubectl(ns, &["delete", "pod", "fills"]);
        let script = "busybox dd if=/dev/zero of=/data/fill bs=1M count=40 2>/dev/null || exit 9;
            busybox touch /data/large; exec busybox sleep 1000";
        make(cluster, ns, &pod("fills", "data", script, "", ""));
    }
    cluster.wait_for("more room", || inside("large").exists());
    cluster.wait_for("the claim to say so", || {
        let status = cluster.get(ns, &["pvc", "data"])["status"].clone();
        status["capacity"]["storage"] == "128Mi" && status["conditions"].is_null()
    });
    cluster.wait_for("the pod to be told", || {
        cluster.kubectl(ns, &["describe", "pod", "fills"]).contains("FileSystemResizeSuccessful")
    });
    cluster.kubectl(ns, &["delete", "pod", "fills"]);
    // Without a grace period a pod's object goes first.
    cluster.wait_for("the data not to be mounted any more", || !inside("large").exists());
    assert!(own.join("image").exists());
    let again = "busybox test -e /data/large -a ! -e /data/lost+found";
    make(cluster, ns, &pod("again", "data", again, "", "restartPolicy: Never,"));
    cluster.wait_for("the data to be found again", || phase(cluster, ns, "again") == "Succeeded");
    // The volume is deleted while it is mounted: nothing happens to it before its claim goes.
    make(cluster, ns, &pod("holds", "data", "exec busybox sleep 1000", "", ""));
    cluster.kubectl(ns, &["wait", "pod/holds", "--for=condition=Ready", "--timeout=60s"]);
    cluster.kubectl(ns, &["delete", "pv", &volume, "--wait=false"]);
    cluster.kubectl(ns, &["exec", "holds", "--", "/bin/busybox", "test", "-e", "/data/large"]);
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    assert!(own.join("image").exists());
    cluster.kubectl(ns, &["delete", "pvc", "data", "--wait=false"]);
    // As the binder and the protection of volumes do.
    let _ = cluster.try_kubectl(
        ns,
        &["patch", "pvc", "data", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#],
    );
    let released = r#"{"status":{"phase":"Released"}}"#;
    let _ = cluster
        .try_kubectl(ns, &["patch", "pv", &volume, "--subresource=status", "--type=merge", "-p", released]);
    let ours = r#"{"metadata":{"finalizers":["local.gantry.io/data"]}}"#;
    let _ = cluster.try_kubectl(ns, &["patch", "pv", &volume, "--type=merge", "-p", ours]);
    cluster.wait_for("the volume to go", || !cluster.try_kubectl(ns, &["get", "pv", &volume]).ok);
    assert!(!own.exists(), "the data goes before the volume");
}

fn what_is_not_bound_says_so(cluster: &Cluster) {
    let ns = "storage-unbound";
    cluster.namespace(ns);
    make(
        cluster,
        ns,
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: waits}, spec: {storageClassName: '',
          accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
    );
    make(cluster, ns, &pod("early", "waits", "true", "", "nodeName: node-1,"));
    let text = format!("error processing PVC {ns}/waits: PVC is not bound");
    cluster.wait_for("the reason", || {
        let said = cluster.kubectl(ns, &["describe", "pod", "early"]);
        said.contains("FailedMount") && said.contains(&text)
    });
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    cluster.kubectl(ns, &["delete", "pvc", "waits", "--wait=false"]);
}
