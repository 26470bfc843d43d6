//! Everything that runs pods for somebody, as kubectl's users work with it.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("workloads::jobs_run_to_their_end", jobs_run_to_their_end),
    ("workloads::a_cron_job_is_run_by_hand", a_cron_job_is_run_by_hand),
    ("workloads::a_stateful_set_comes_and_goes_in_order", a_stateful_set_comes_and_goes_in_order),
    ("workloads::a_daemon_set_rolls_and_is_undone", a_daemon_set_rolls_and_is_undone),
    ("workloads::a_budget_holds_a_drain_up", a_budget_holds_a_drain_up),
];

const JOBS: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: 'busybox:1', command: [/bin/busybox, sh, -c, 'echo I am $JOB_COMPLETION_INDEX on $(busybox hostname)']}
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: 'busybox:1', command: [/bin/busybox, 'false']}
";

fn jobs_run_to_their_end(cluster: &Cluster) {
    let ns = "jobs";
    cluster.namespace(ns);
    let applied = cluster.with_manifest(ns, &["apply"], JOBS);
    assert!(applied.ok, "{applied:?}");
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    kubectl(&["wait", "--for=condition=complete", "job/work", "--timeout=60s"]);
    let status = cluster.get(ns, &["job", "work"])["status"].clone();
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&3.into(), &"0-2".into()), "{status}");
    let mut said: Vec<String> =
        kubectl(&["logs", "-l", "job-name=work"]).lines().map(str::to_owned).collect();
    said.sort();
    let wanted: Vec<String> = (0..3).map(|index| format!("I am {index} on work-{index}")).collect();
    assert_eq!(said, wanted);

    kubectl(&["wait", "--for=condition=failed", "job/broken", "--timeout=60s"]);
    let told = kubectl(&["describe", "job/broken"]);
    assert!(told.contains("BackoffLimitExceeded") && told.contains("1 Failed"), "{told}");
    kubectl(&["delete", "job", "--all"]);
    cluster.wait_for("the pods to go with their jobs", || is_empty(&cluster.get(ns, &["pods"])));
}

fn is_empty(list: &Value) -> bool {
    list["items"].as_array().is_some_and(Vec::is_empty)
}

fn a_cron_job_is_run_by_hand(cluster: &Cluster) {
    let ns = "cron";
    cluster.namespace(ns);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    let minutely = ["--schedule=* * * * *", "--image=busybox:1", "--", "/bin/busybox", "echo", "now"];
    kubectl(&[&["create", "cronjob", "tick"], &minutely[..]].concat());
    kubectl(&["create", "job", "at-once", "--from=cronjob/tick"]);
    kubectl(&["wait", "--for=condition=complete", "job/at-once", "--timeout=60s"]);
    assert_eq!(kubectl(&["logs", "job/at-once"]).trim(), "now");
    let owner = &cluster.get(ns, &["job", "at-once"])["metadata"]["ownerReferences"][0];
    assert_eq!(owner["name"], "tick");
    kubectl(&["patch", "cronjob", "tick", "-p", "{\"spec\":{\"suspend\":true}}"]);
    assert!(kubectl(&["get", "cronjobs"]).contains("True"));
}

const DATABASE: &str = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:1', command: [/bin/busybox, sleep, '1000000']}
";

fn a_stateful_set_comes_and_goes_in_order(cluster: &Cluster) {
    let ns = "stateful";
    cluster.namespace(ns);
    let applied = cluster.with_manifest(ns, &["apply"], DATABASE);
    assert!(applied.ok, "{applied:?}");
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"]);
    let began = |pod: &str| cluster.get(ns, &["pod", pod])["metadata"]["creationTimestamp"].to_string();
    assert!(began("db-0") <= began("db-1") && began("db-1") <= began("db-2"));
    // Each has a name of its own, for itself and for others.
    let hosts = kubectl(&["exec", "db-1", "--", "/bin/busybox", "cat", "/etc/hosts"]);
    assert!(hosts.contains("db-1.db.stateful.svc.cluster.local"), "{hosts}");
    let address =
        cluster.get(ns, &["pod", "db-2"])["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    cluster.wait_for("db-2's name to be known", || {
        let found = cluster.try_kubectl(
            ns,
            &["exec", "db-0", "--", "/bin/busybox", "nslookup", "db-2.db.stateful.svc.cluster.local"],
        );
        found.ok && found.out.contains(&address)
    });

    let first = cluster.get(ns, &["pod", "db-0"])["metadata"]["uid"].clone();
    kubectl(&["rollout", "restart", "statefulset/db"]);
    kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"]);
    assert_ne!(cluster.get(ns, &["pod", "db-0"])["metadata"]["uid"], first);
    kubectl(&["scale", "statefulset/db", "--replicas=1"]);
    cluster
        .wait_for("only the first to stay", || kubectl(&["get", "pods", "-o", "name"]).trim() == "pod/db-0");
    assert!(kubectl(&["rollout", "history", "statefulset/db"]).contains("REVISION"));
}

const AGENTS: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:1', command: [/bin/busybox, sleep, '1000000'], env: [{name: COLOUR, value: red}]}
";

fn a_daemon_set_rolls_and_is_undone(cluster: &Cluster) {
    let ns = "daemons";
    cluster.namespace(ns);
    let applied = cluster.with_manifest(ns, &["apply"], AGENTS);
    assert!(applied.ok, "{applied:?}");
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    let roll = || kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"]);
    let colour = || kubectl(&["exec", "daemonset/agent", "--", "/bin/busybox", "sh", "-c", "echo $COLOUR"]);
    roll();
    assert_eq!(colour().trim(), "red");
    kubectl(&["set", "env", "daemonset/agent", "COLOUR=blue"]);
    roll();
    cluster.wait_for("the new version alone", || colour().trim() == "blue");
    kubectl(&["rollout", "undo", "daemonset/agent"]);
    roll();
    cluster.wait_for("the old version again", || colour().trim() == "red");
    assert_eq!(cluster.get(ns, &["daemonset", "agent"])["status"]["numberReady"], 1);
}

fn a_budget_holds_a_drain_up(cluster: &Cluster) {
    let ns = "budget";
    cluster.namespace(ns);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    let sleep = ["--", "/bin/busybox", "sleep", "1000000"];
    kubectl(&[&["create", "deployment", "web", "--image=busybox:1", "--replicas=2"], &sleep[..]].concat());
    kubectl(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=2"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.wait_for("the budget to be counted", || {
        cluster.get(ns, &["poddisruptionbudget", "web"])["status"]["currentHealthy"] == 2
    });
    let pod = kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    let drain = ["drain", "node-1", "--pod-selector=app=web", "--ignore-daemonsets", "--timeout=3s"];
    let refused = cluster.try_kubectl(ns, &drain);
    assert!(!refused.ok && refused.err.contains("violate the pod's disruption budget"), "{refused:?}");
    assert!(cluster.get(ns, &["pod", &pod])["metadata"]["deletionTimestamp"].is_null());
    kubectl(&["delete", "poddisruptionbudget", "web"]);
    let drained = cluster.try_kubectl(
        ns,
        &[
            "drain",
            "node-1",
            "--pod-selector=app=web",
            "--ignore-daemonsets",
            "--grace-period=0",
            "--force",
            "--timeout=60s",
        ],
    );
    kubectl(&["uncordon", "node-1"]);
    assert!(drained.ok, "{drained:?}");
}
