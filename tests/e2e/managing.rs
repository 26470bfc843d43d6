//! What people set of kube-controller-manager, at a control plane of its own.

use std::process::Stdio;

use crate::cluster::Cluster;
use crate::scheduling::{Second, command};

pub const TESTS: &[crate::Test] = &[
    ("managing::settings_of_upstreams_are_taken", settings_of_upstreams_are_taken),
    ("managing::settings_that_make_no_sense_are_refused", settings_that_make_no_sense_are_refused),
];

const SCHEDULER: &str = "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration}";

/// Some take effect, and some have none.
const SETTINGS: &str = "
controllers: '*,bootstrapsigner,tokencleaner,-ttl'
enable-garbage-collector: false
concurrent-deployment-syncs: 3
kube-api-qps: 50
kube-api-burst: 100
namespace-sync-period: 5m
disable-attach-detach-reconcile-sync: true
controllers-port: 20257
";

fn settings_of_upstreams_are_taken(cluster: &Cluster) {
    let file = cluster.folder("managing-settings").join("server.yaml");
    std::fs::write(&file, SETTINGS).expect("writable folder");
    let second = Second::start(cluster, "managing", SCHEDULER, &["--config", &file.display().to_string()]);

    // Nobody collects what has lost its owner, and nothing is held for somebody who would.
    second.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: owner}}");
    let uid = second.kubectl(&["get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}"]).out;
    second.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, ownerReferences: [{{apiVersion: v1, \
         kind: ConfigMap, name: owner, uid: {uid}, blockOwnerDeletion: true}}]}}}}"
    ));
    let said = second.kubectl(&["delete", "configmap", "owner", "--cascade=foreground", "--timeout=30s"]);
    assert!(said.ok, "{said:?}");
    assert!(second.kubectl(&["get", "configmap", "owned"]).ok, "nobody was to collect it");

    let page = second.kubectl(&["get", "--raw", "/metrics", "--server=https://127.0.0.1:20257"]);
    for part in [
        "rest_client_requests_total{code=\"201\",host=\"localhost\",method=\"POST\"} ",
        "rest_client_request_duration_seconds_bucket{host=\"localhost\",verb=\"POST\",le=\"0.005\"} ",
        "workqueue_adds_total{name=\"vacprotection\"}",
        "pv_collector_total_pv_count gauge",
    ] {
        assert!(page.out.contains(part), "{part}: {}", page.out);
    }
    assert!(!page.out.contains("name=\"ttlcontroller\""), "it does not run");
}

fn settings_that_make_no_sense_are_refused(cluster: &Cluster) {
    let folder = cluster.folder("managing-faults");
    for (flag, why) in [
        ("--controllers=*,-resourcequota", "cannot be switched off: the API server does its work"),
        ("--controllers=*,-jobs", "is not in the list of known controllers"),
        ("--concurrent-job-syncs=0", "--concurrent-job-syncs"),
        ("--max-endpoints-per-slice=2000", "--max-endpoints-per-slice"),
        ("--resource-quota-sync-period=soon", "--resource-quota-sync-period"),
    ] {
        let output = command(cluster, &folder, SCHEDULER, &[flag]).stderr(Stdio::piped()).output();
        let output = output.expect("gantry runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{flag}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}
