//! Killed processes and wrong settings.

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("failures::nothing_is_lost_by_kill_9", nothing_is_lost_by_kill_9),
    ("failures::up_twice_is_harmless", up_twice_is_harmless),
    ("failures::a_busy_port_is_one_sentence", a_busy_port_is_one_sentence),
];

fn nothing_is_lost_by_kill_9(cluster: &Cluster) {
    let ns = "kill-9";
    cluster.namespace(ns);
    for i in 0..5 {
        cluster.kubectl(ns, &["create", "configmap", &format!("c{i}"), &format!("--from-literal=n={i}")]);
    }
    let before = cluster.kubectl(ns, &["get", "configmaps", "-o", "yaml"]);
    cluster.kill_and_restart();
    assert_eq!(before, cluster.kubectl(ns, &["get", "configmaps", "-o", "yaml"]));
}

fn up_twice_is_harmless(cluster: &Cluster) {
    let pid = cluster.pid();
    let up = cluster.gantry(&["up"]);
    assert!(up.ok && up.out.contains("up already"), "{up:?}");
    assert_eq!(pid, cluster.pid());
}

fn a_busy_port_is_one_sentence(cluster: &Cluster) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let flag = |name: &str| format!("--{name}-dir={}", folder.path().join(name).display());
    let up = cluster.gantry(&["up", &flag("data"), &flag("run")]);
    assert!(!up.ok);
    let error = up.err.trim();
    assert!(error.starts_with("gantry: cannot listen on 0.0.0.0:6443: Address already in use"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
