//! What of a node is not the pods', and what keeps pods from each other's processes.

use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("reservations::a_fork_bomb_hurts_nobody_else", a_fork_bomb_hurts_nobody_else),
    ("reservations::what_is_reserved_is_not_given_out", what_is_reserved_is_not_given_out),
    ("reservations::the_critical_get_a_place", the_critical_get_a_place),
];

/// A pod of one busybox shell script.
fn pod(name: &str, script: &str, resources: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {spec}
            containers: [{{name: main, image: 'busybox:1', resources: {{requests: {resources}}},
            command: [/bin/busybox, sh, -c], args: [{}]}}]}}}}",
        serde_json::to_string(script).expect("text")
    )
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

/// A file of a cgroup, wherever this machine has its controller.
fn cgroup(cluster: &Cluster, controller: &str, below: &str, file: &str) -> String {
    let v1 = PathBuf::from("/sys/fs/cgroup").join(controller);
    let root = if v1.is_dir() { v1 } else { "/sys/fs/cgroup".into() };
    let path = root.join(cluster.cgroup()).join(below).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn number(text: &str) -> u64 {
    text.trim_end_matches("Ki").parse().unwrap_or_else(|_| panic!("no number of KiB: {text:?}"))
}

fn a_fork_bomb_hurts_nobody_else(cluster: &Cluster) {
    let ns = "bombs";
    cluster.namespace(ns);
    cluster.kill_and_restart_with(&["--pod-max-pids=40"]);
    make(cluster, ns, &pod("neighbour", "exec busybox sleep 1000", "{}", ""));
    // The first process forks before there is any want of processes.
    let bomb =
        "(for i in 1 2 3; do (while :; do busybox sleep 1000 & done) & done) & exec busybox sleep 1000";
    make(cluster, ns, &pod("bomb", bomb, "{}", ""));
    cluster.kubectl(ns, &["wait", "pod/neighbour", "pod/bomb", "--for=condition=Ready", "--timeout=60s"]);
    let uid = cluster.get(ns, &["pod", "bomb"])["metadata"]["uid"].as_str().expect("a UID").to_owned();
    let below = format!("besteffort/pod{uid}");
    assert_eq!(cgroup(cluster, "pids", &below, "pids.max"), "40");
    let count = || number(&cgroup(cluster, "pids", &below, "pids.current"));
    cluster.wait_for("the bomb to have all that it gets", || {
        cluster.try_kubectl(ns, &["logs", "bomb"]).out.contains("can't fork")
    });
    // Its neighbour and the node have processes to spare.
    let said = cluster.kubectl(
        ns,
        &["exec", "neighbour", "--", "/bin/busybox", "sh", "-c", "busybox seq 3 | busybox wc -l"],
    );
    assert_eq!(said.trim(), "3");
    make(cluster, ns, &pod("later", "exec busybox sleep 1000", "{}", ""));
    cluster.kubectl(ns, &["wait", "pod/later", "--for=condition=Ready", "--timeout=60s"]);
    assert!((30..=40).contains(&count()), "{} processes", count());
    let status = cluster.get(ns, &["pod", "bomb"])["status"]["containerStatuses"][0].clone();
    assert_eq!((&status["ready"], &status["restartCount"]), (&true.into(), &0.into()), "{status}");
    let node = cluster.get("default", &["node", "node-1"]);
    assert_eq!(condition(&node, "PIDPressure"), "False");
    assert_eq!(condition(&node, "Ready"), "True");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    cluster.kill_and_restart();
}

fn condition(node: &Value, kind: &str) -> String {
    let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default().to_owned()
}

fn what_is_reserved_is_not_given_out(cluster: &Cluster) {
    let node = || cluster.get("default", &["node", "node-1"])["status"].clone();
    let before = node();
    let text =
        |status: &Value, what: &str, name: &str| status[what][name].as_str().unwrap_or_default().to_owned();
    // Upstream's own threshold.
    let memory = |what: &str, status: &Value| number(&text(status, what, "memory"));
    assert_eq!(memory("capacity", &before) - memory("allocatable", &before), 100 << 10);
    cluster.kill_and_restart_with(&[
        "--kube-reserved=cpu=100m,memory=64Mi,pid=500",
        "--system-reserved=cpu=50m,memory=36Mi,ephemeral-storage=1Gi,pid=500",
        "--eviction-hard=memory.available<28Mi,nodefs.available<1Gi",
    ]);
    let told = || {
        let now = node();
        text(&now, "allocatable", "cpu").ends_with("850m")
            && memory("capacity", &now) - memory("allocatable", &now) == 128 << 10
    };
    cluster.wait_for("the node to tell what it gives out", told);
    let now = node();
    let disk = |what: &str| number(&text(&now, what, "ephemeral-storage"));
    assert_eq!(disk("capacity") - disk("allocatable"), 2 << 20);
    // What the pods may use together; thresholds are not taken off that.
    let v1 = PathBuf::from("/sys/fs/cgroup/memory").is_dir();
    let limit = cgroup(cluster, "memory", "", if v1 { "memory.limit_in_bytes" } else { "memory.max" });
    let page = 4096;
    let want = (memory("capacity", &now) - (100 << 10)) * 1024 / page * page;
    assert_eq!(limit.parse::<u64>().expect("a number"), want);
    let most: u64 = std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .expect("a file")
        .trim()
        .parse()
        .expect("a number");
    let threads: u64 = std::fs::read_to_string("/proc/sys/kernel/threads-max")
        .expect("a file")
        .trim()
        .parse()
        .expect("a number");
    assert_eq!(cgroup(cluster, "pids", "", "pids.max"), (most.min(threads) - 1000).to_string());
    cluster.kill_and_restart();
    assert_eq!(node()["allocatable"], before["allocatable"]);
}

fn the_critical_get_a_place(cluster: &Cluster) {
    let ns = "critical";
    cluster.namespace(ns);
    let status = cluster.get("default", &["node", "node-1"])["status"].clone();
    let cpus: u64 = status["allocatable"]["cpu"].as_str().and_then(|c| c.parse().ok()).expect("whole CPUs");
    let most = format!("{{cpu: {}m}}", cpus * 600);
    make(cluster, ns, &pod("small", "exec busybox sleep 1000", "{cpu: 10m}", ""));
    make(cluster, ns, &pod("large", "exec busybox sleep 1000", &most, ""));
    cluster.kubectl(ns, &["wait", "pod/small", "pod/large", "--for=condition=Ready", "--timeout=60s"]);
    // Past the scheduler: whoever is not critical is refused.
    make(cluster, ns, &pod("plain", "exec busybox sleep 1000", &most, "nodeName: node-1,"));
    cluster.wait_for("a refusal", || cluster.get(ns, &["pod", "plain"])["status"]["reason"] == "OutOfcpu");
    let spec = "nodeName: node-1, priorityClassName: system-node-critical,";
    make(cluster, ns, &pod("critical", "exec busybox sleep 1000", &most, spec));
    cluster.kubectl(ns, &["wait", "pod/critical", "--for=condition=Ready", "--timeout=60s"]);
    let large = cluster.get(ns, &["pod", "large"])["status"].clone();
    assert_eq!((&large["phase"], &large["reason"]), (&"Failed".into(), &"Preempting".into()), "{large}");
    assert_eq!(large["message"], "Preempted in order to admit critical pod");
    assert_eq!(cluster.get(ns, &["pod", "small"])["status"]["phase"], "Running");
    cluster.wait_for("an event", || {
        cluster.kubectl(ns, &["get", "events"]).contains("Preempted in order to admit critical pod")
    });
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}
