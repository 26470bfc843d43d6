//! Pods whose resources as a whole change while they run.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[("resize::a_pod_is_resized_as_a_whole", a_pod_is_resized_as_a_whole)];

const WHOLE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 0
  resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
  containers:
  - {name: a, image: 'busybox:1', command: [/bin/busybox, sleep, '3600']}
  - {name: b, image: 'busybox:1', command: [/bin/busybox, sleep, '3600']}
";

/// The CPU quota and memory limit of the pod's own cgroup, in either version of cgroups.
fn limits(cluster: &Cluster, uid: &str) -> (i64, i64) {
    let path = format!("{}/burstable/pod{uid}", cluster.cgroup());
    let read = |file: String| std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
    let first = |text: String| text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(-1);
    let of = |old: &str, new: &str| {
        let old = read(format!("/sys/fs/cgroup/{old}"));
        old.or_else(|| read(format!("/sys/fs/cgroup/{new}"))).map_or(-2, first)
    };
    (
        of(&format!("cpu/{path}/cpu.cfs_quota_us"), &format!("{path}/cpu.max")),
        of(&format!("memory/{path}/memory.limit_in_bytes"), &format!("{path}/memory.max")),
    )
}

fn a_pod_is_resized_as_a_whole(cluster: &Cluster) {
    let ns = "resize-whole";
    cluster.namespace(ns);
    let applied = cluster.with_manifest(ns, &["apply"], WHOLE);
    assert!(applied.ok, "{applied:?}");
    cluster.kubectl(ns, &["wait", "pod/whole", "--for=condition=Ready", "--timeout=60s"]);
    let get = || cluster.get(ns, &["pod", "whole"]);
    let uid = get()["metadata"]["uid"].as_str().expect("a uid").to_owned();
    assert_eq!(limits(cluster, &uid), (20_000, 64 << 20));
    let before = get()["status"].clone();
    assert_eq!(before["resources"]["limits"]["memory"], "64Mi");
    assert_eq!(before["allocatedResources"]["cpu"], "100m");
    let resize = |resources: &str| {
        let patch = format!(r#"{{"spec":{{"resources":{resources}}}}}"#);
        cluster.try_kubectl(ns, &["patch", "pod", "whole", "--subresource=resize", "--patch", &patch])
    };
    let condition = |kind: &str| {
        let all = get()["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
    };
    let said = resize(r#"{"requests":{"cpu":"150m"},"limits":{"cpu":"300m","memory":"96Mi"}}"#);
    assert!(said.ok, "{said:?}");
    cluster.wait_for("the status to show what runs", || {
        let status = get()["status"].clone();
        status["resources"]["limits"]["memory"] == "96Mi" && status["allocatedResources"]["cpu"] == "150m"
    });
    assert_eq!(limits(cluster, &uid), (30_000, 96 << 20));
    let now = get();
    assert_eq!(now["status"]["observedGeneration"], now["metadata"]["generation"]);
    for (before, now) in
        [0, 1].map(|i| (&before["containerStatuses"][i], &now["status"]["containerStatuses"][i]))
    {
        assert_eq!((&before["containerID"], now["restartCount"].as_i64()), (&now["containerID"], Some(0)));
    }
    // What the node does not have is refused at once.
    let said = resize(r#"{"requests":{"cpu":"1000"},"limits":{"cpu":"1000"}}"#);
    let why = "Node didn't have enough allocatable resources: cpu, requested: 1000000, allocatable: ";
    assert!(said.err.contains(why), "{said:?}");
    assert_eq!(get()["status"]["allocatedResources"]["cpu"], "150m");
    assert_eq!(limits(cluster, &uid), (30_000, 96 << 20));
    // A new agent goes on from what was promised.
    cluster.kill_and_restart();
    cluster.kubectl(ns, &["wait", "pod/whole", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(get()["status"]["allocatedResources"]["cpu"], "150m");
    // Smaller again; and less than is in use is not taken.
    assert!(resize(r#"{"requests":{"cpu":"50m"},"limits":{"cpu":"100m","memory":"80Mi"}}"#).ok);
    cluster.wait_for("the pod to be smaller", || limits(cluster, &uid) == (10_000, 80 << 20));
    assert_eq!(condition("PodResizePending"), Value::Null);
    let said = resize(r#"{"limits":{"memory":null}}"#);
    assert!(said.err.contains("resource limits cannot be removed"), "{said:?}");
    cluster.kubectl(ns, &["delete", "pod", "whole", "--now"]);
}
