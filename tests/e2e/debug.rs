//! Pods that change while they run: containers that look into them, and resources that are resized.

use std::process::Command;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::streams::ON_A_TERMINAL;

pub const TESTS: &[crate::Test] = &[
    ("debug::a_running_pod_is_looked_into", a_running_pod_is_looked_into),
    ("debug::a_running_pod_is_resized", a_running_pod_is_resized),
];

fn a_running_pod_is_looked_into(cluster: &Cluster) {
    let ns = "debug";
    cluster.namespace(ns);
    cluster.kubectl(
        ns,
        &["run", "web", "--image=busybox:1", "--command", "--", "/bin/busybox", "sleep", "3600"],
    );
    cluster.kubectl(ns, &["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]);
    let look = |name: &str, target: &[&str], command: &[&str]| {
        let own = format!("--container={name}");
        let args =
            [&["debug", "web", "--image=busybox:1", &own], target, &["--", "/bin/busybox"], command].concat();
        cluster.kubectl(ns, &args);
    };
    let status = |name: &str| {
        let pod = cluster.get(ns, &["pod", "web"]);
        let all = pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["name"] == name).unwrap_or_default()
    };
    look("beside", &["--target=web"], &["ps"]);
    look("alone", &[], &["ps"]);
    look("broken", &[], &["false"]);
    for (name, code) in [("beside", 0), ("alone", 0), ("broken", 1)] {
        cluster
            .wait_for(&format!("{name} to end"), || status(name)["state"]["terminated"]["exitCode"] == code);
        assert_eq!(status(name)["restartCount"], 0);
    }
    let seen = |name: &str| cluster.kubectl(ns, &["logs", "web", "--container", name]);
    assert!(seen("beside").contains("sleep 3600"), "{}", seen("beside"));
    assert!(!seen("alone").contains("sleep 3600"), "{}", seen("alone"));

    let talk = ["debug", "web", "--image=busybox:1", "-i", "--container=talk", "--", "/bin/busybox", "sh"];
    let said = cluster.told(&mut cluster.kubectl_command(ns, &talk), "echo hello-$((40+2))\nexit\n");
    assert!(said.out.contains("hello-42"), "{said:?}");
    let shell = ["debug", "web", "--image=busybox:1", "-it", "--container=shell", "--", "/bin/busybox", "sh"];
    let shell = cluster.kubectl_command(ns, &shell);
    let mut on_terminal = Command::new("timeout");
    let typed = "until busybox stty size | busybox grep -q '40 120'; do :; done; echo size-$((40+2)); exit\n";
    on_terminal.args(["60", "python3", "-c", ON_A_TERMINAL, typed]);
    let shown = on_terminal.arg(shell.get_program()).args(shell.get_args()).output().expect("python3");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("size-42"), "{shown:?}");
    look("stays", &["--target=web"], &["sleep", "3601"]);
    cluster.wait_for("the last one to run", || status("stays")["state"]["running"].is_object());
    let inside = ["exec", "web", "--container=stays", "--", "/bin/busybox", "ps"];
    assert!(cluster.kubectl(ns, &inside).contains("sleep 3600"));
    let events =
        cluster.kubectl(ns, &["get", "events", "-o", "jsonpath={.items[*].involvedObject.fieldPath}"]);
    assert!(events.contains("spec.ephemeralContainers{stays}"), "{events}");

    // The pod is as it was.
    let pod = cluster.get(ns, &["pod", "web"]);
    let own = &pod["status"]["containerStatuses"][0];
    assert_eq!((&pod["status"]["phase"], &own["restartCount"]), (&Value::from("Running"), &Value::from(0)));
    assert_eq!(own["ready"], true);
    cluster.kubectl(ns, &["delete", "pod", "web", "--now", "--timeout=60s"]);
}

const SIZED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: a
    image: 'busybox:1'
    command: [/bin/busybox, sleep, '3600']
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
  - name: b
    image: 'busybox:1'
    command: [/bin/busybox, sleep, '3600']
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
";

fn a_running_pod_is_resized(cluster: &Cluster) {
    let ns = "resize";
    cluster.namespace(ns);
    let applied = cluster.with_manifest(ns, &["apply"], SIZED);
    assert!(applied.ok, "{applied:?}");
    cluster.kubectl(ns, &["wait", "pod/sized", "--for=condition=Ready", "--timeout=60s"]);
    let status = || cluster.get(ns, &["pod", "sized"])["status"].clone();
    let of = |name: &str| {
        let all = status()["containerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["name"] == name).unwrap_or_default()
    };
    let resize = |name: &str, resources: &str| {
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"{name}","resources":{resources}}}]}}}}"#);
        cluster.kubectl(ns, &["patch", "pod", "sized", "--subresource=resize", "--patch", &patch]);
    };
    let condition = |kind: &str| {
        let all = status()["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
    };
    let uid = cluster.get(ns, &["pod", "sized"])["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let before = [of("a"), of("b")];
    assert_eq!(limits(cluster, &uid, &before[0]), (20_000, 64 << 20));
    assert_eq!(before[0]["allocatedResources"]["cpu"], "100m");

    resize("a", r#"{"requests":{"cpu":"150m","memory":"40Mi"},"limits":{"cpu":"300m","memory":"80Mi"}}"#);
    cluster.wait_for("the status to show what runs", || {
        let now = of("a");
        now["resources"]["limits"]["cpu"] == "300m" && now["allocatedResources"]["memory"] == "40Mi"
    });
    assert_eq!(limits(cluster, &uid, &of("a")), (30_000, 80 << 20));
    resize("b", r#"{"limits":{"memory":"96Mi"}}"#);
    cluster.wait_for("the other one to be replaced", || {
        let now = of("b");
        now["restartCount"] == 1 && now["state"]["running"].is_object()
    });
    assert_eq!(limits(cluster, &uid, &of("b")), (20_000, 96 << 20));
    assert_eq!(of("b")["resources"]["limits"]["memory"], "96Mi");
    assert_eq!(
        (&of("a")["containerID"], &of("a")["restartCount"]),
        (&before[0]["containerID"], &Value::from(0))
    );

    // What the node never has is refused at once.
    let patch = r#"{"spec":{"containers":[{"name":"a","resources":{"requests":{"cpu":"1000"},"limits":{"cpu":"1000"}}}]}}"#;
    let said = cluster.try_kubectl(ns, &["patch", "pod", "sized", "--subresource=resize", "--patch", patch]);
    assert!(
        said.err.contains("Node didn't have enough allocatable resources: cpu, requested: 1000100"),
        "{said:?}"
    );
    assert_eq!(
        (&of("a")["allocatedResources"]["cpu"], limits(cluster, &uid, &of("a")).0),
        (&"150m".into(), 30_000)
    );
    resize("a", r#"{"requests":{"cpu":"100m"},"limits":{"cpu":"200m"}}"#);
    cluster.wait_for("the cgroup to follow", || limits(cluster, &uid, &of("a")).0 == 20_000);
    cluster.wait_for("the condition to go", || condition("PodResizePending").is_null());

    // Another pod leaves too little room, until it goes.
    let node = cluster.get(ns, &["node", "node-1"]);
    let cpu = node["status"]["allocatable"]["cpu"].as_str().expect("an amount").to_owned();
    let cpu = cpu
        .strip_suffix('m')
        .map_or_else(|| cpu.parse().map(|n: i64| n * 1000), str::parse)
        .expect("a number");
    let hog = format!(
        r#"{{"spec":{{"containers":[{{"name":"hog","image":"busybox:1","command":["/bin/busybox","sleep","3600"],
        "resources":{{"requests":{{"cpu":"{}m"}}}}}}]}}}}"#,
        cpu - 1000
    );
    cluster.kubectl(ns, &["run", "hog", "--image=busybox:1", &format!("--overrides={hog}")]);
    cluster.kubectl(ns, &["wait", "pod/hog", "--for=condition=Ready", "--timeout=60s"]);
    resize("a", r#"{"requests":{"cpu":"950m"},"limits":{"cpu":"1"}}"#);
    cluster.wait_for("the resize to wait", || condition("PodResizePending")["reason"] == "Deferred");
    assert_eq!(of("a")["allocatedResources"]["cpu"], "100m");
    // An agent that begins anew knows what it has promised.
    cluster.kill_and_restart();
    cluster.kubectl(
        ns,
        &["run", "after", "--image=busybox:1", "--command", "--", "/bin/busybox", "sleep", "3600"],
    );
    cluster.kubectl(ns, &["wait", "pod/after", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(limits(cluster, &uid, &of("a")).0, 20_000);
    cluster.kubectl(ns, &["delete", "pod", "hog", "--now", "--timeout=60s"]);
    cluster.wait_for("the room to be used", || limits(cluster, &uid, &of("a")).0 == 100_000);
    cluster.wait_for("the condition to go again", || condition("PodResizePending").is_null());

    // What is in use is not taken away.
    resize("a", r#"{"requests":{"memory":"8Ki"},"limits":{"memory":"8Ki"}}"#);
    cluster.wait_for("the failure to be told", || condition("PodResizeInProgress")["reason"] == "Error");
    assert_eq!(
        (of("a")["resources"]["limits"]["memory"].clone(), of("a")["restartCount"].clone()),
        ("80Mi".into(), 0.into())
    );
    resize("a", r#"{"requests":{"memory":"16Mi"},"limits":{"memory":"48Mi"}}"#);
    cluster.wait_for("it to be mended", || condition("PodResizeInProgress").is_null());
    assert_eq!(limits(cluster, &uid, &of("a")).1, 48 << 20);
    assert_eq!(
        (&of("a")["containerID"], &of("a")["restartCount"]),
        (&before[0]["containerID"], &Value::from(0))
    );
    cluster.kubectl(ns, &["delete", "pod", "sized", "--now", "--timeout=60s"]);
}

/// A container's share of each tenth of a second in microseconds, and its bytes of memory, as its cgroup has them.
fn limits(cluster: &Cluster, uid: &str, status: &Value) -> (i64, i64) {
    let id = status["containerID"].as_str().and_then(|id| id.split("://").nth(1)).expect("an id");
    let path = format!("{}/burstable/pod{uid}/{id}", cluster.cgroup());
    let read = |v1: &str, v2: &str| {
        let controller = if v1.starts_with("cpu") { "cpu" } else { "memory" };
        let files =
            [format!("/sys/fs/cgroup/{controller}/{path}/{v1}"), format!("/sys/fs/cgroup/{path}/{v2}")];
        let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(-1)
    };
    (read("cpu.cfs_quota_us", "cpu.max"), read("memory.limit_in_bytes", "memory.max"))
}
