//! What the first pages of a Kubernetes tutorial do, step by step, on pods that really run.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("tutorial::deploy_explore_expose_scale_update", deploy_explore_expose_scale_update),
    ("tutorial::run_something_once", run_something_once),
    ("tutorial::maintain_a_node", maintain_a_node),
];

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

fn ready(cluster: &Cluster, ns: &str, name: &str) -> Value {
    cluster.get(ns, &["deployment", name])["status"]["readyReplicas"].clone()
}

fn deploy_explore_expose_scale_update(cluster: &Cluster) {
    let ns = "tutorial";
    cluster.namespace(ns);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    let web = "trap exit TERM; busybox hostname > /index.html; busybox httpd -p 8080 -h /; echo serving; \
        while busybox sleep 0.2; do :; done";
    let create = [
        "create",
        "deployment",
        "web",
        "--image=busybox:1",
        "--port=8080",
        "--",
        "/bin/busybox",
        "sh",
        "-c",
        web,
    ];
    contains(&kubectl(&create), &["deployment.apps/web created"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    contains(&kubectl(&["get", "deployments"]), &["READY", "UP-TO-DATE", "AVAILABLE", "web", "1/1"]);
    let pod = kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);

    contains(
        &kubectl(&["describe", "pod", &pod]),
        &["Controlled By:  ReplicaSet/web-", "Port:          8080/TCP", "Started"],
    );
    contains(&kubectl(&["logs", &format!("pod/{pod}")]), &["serving"]);
    assert_eq!(kubectl(&["exec", &pod, "--", "/bin/busybox", "hostname"]).trim(), pod);
    // As `kubectl proxy` and a browser do it.
    let path = format!("/api/v1/namespaces/{ns}/pods/{pod}:8080/proxy/");
    assert_eq!(kubectl(&["get", "--raw", &path]).trim(), pod);

    contains(
        &kubectl(&["expose", "deployment/web", "--type=NodePort", "--port=8080"]),
        &["service/web exposed"],
    );
    let port = kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let url = format!("http://127.0.0.1:{port}/");
    cluster.wait_for("the service to answer", || cluster.fetch(&url).trim() == pod);
    contains(&kubectl(&["describe", "service", "web"]), &["NodePort", "Endpoints:"]);

    kubectl(&["scale", "deployment/web", "--replicas=4"]);
    cluster.wait_for("four replicas", || ready(cluster, ns, "web") == 4);
    kubectl(&["scale", "deployment/web", "--replicas=2"]);
    cluster.wait_for("two replicas", || {
        ready(cluster, ns, "web") == 2
            && cluster.get(ns, &["pods"])["items"].as_array().map(Vec::len) == Some(2)
    });

    kubectl(&["set", "image", "deployment/web", "busybox=nowhere.invalid/web:2"]);
    cluster.wait_for("the broken version to show", || kubectl(&["get", "pods"]).contains("ImagePull"));
    assert!(!cluster.fetch(&url).is_empty(), "the old version goes on");
    contains(&kubectl(&["rollout", "history", "deployment/web"]), &["REVISION", "1", "2"]);
    kubectl(&["rollout", "undo", "deployment/web"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    kubectl(&["rollout", "restart", "deployment/web"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    kubectl(&["rollout", "pause", "deployment/web"]);
    let paused = cluster.get(ns, &["deployment", "web"]);
    assert_eq!(paused["spec"]["paused"], true);
    let delete = ["delete", "deployment/web", "service/web"];
    contains(&kubectl(&delete), &["deployment.apps \"web\" deleted", "service \"web\" deleted"]);
}

fn run_something_once(cluster: &Cluster) {
    let ns = "once";
    cluster.namespace(ns);
    let run = [
        "run",
        "once",
        "--image=busybox:1",
        "--restart=Never",
        "--attach",
        "--rm",
        "--quiet",
        "--command",
        "--",
    ];
    let said = cluster
        .kubectl(ns, &[&run[..], &["/bin/busybox", "sh", "-c", "busybox sleep 1; echo done"]].concat());
    contains(&said, &["done"]);
    let failing = cluster
        .try_kubectl(ns, &[&run[..], &["/bin/busybox", "sh", "-c", "busybox sleep 1; exit 7"]].concat());
    assert!(!failing.ok, "{failing:?}");
    assert_eq!(cluster.get(ns, &["pods"])["items"], Value::Array(Vec::new()));
    cluster.kubectl(ns, &["create", "configmap", "settings", "--from-literal=COLOUR=blue"]);
    cluster.kubectl(ns, &["create", "secret", "generic", "login", "--from-literal=USER=jo"]);
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: settings}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'echo $COLOUR $USER; busybox cat /etc/settings/COLOUR']
    envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: login}}]
    volumeMounts: [{name: settings, mountPath: /etc/settings}]
  volumes: [{name: settings, configMap: {name: settings}}]
";
    assert!(cluster.with_manifest(ns, &["apply"], pod).ok);
    cluster
        .kubectl(ns, &["wait", "pod/settings", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"]);
    assert_eq!(
        cluster.kubectl(ns, &["logs", "settings"]),
        "blue jo\nblue",
        "not even an end of line is added"
    );
    contains(&cluster.kubectl(ns, &["get", "pods"]), &["Completed", "0/1"]);
    cluster.kubectl(ns, &["delete", "pod", "settings", "--now"]);
}

fn maintain_a_node(cluster: &Cluster) {
    let ns = "maintain";
    cluster.namespace(ns);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    let wait = "trap exit TERM; while busybox sleep 0.2; do :; done";
    kubectl(&["create", "deployment", "web", "--image=busybox:1", "--", "/bin/busybox", "sh", "-c", wait]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let drain = [
        "drain",
        "node-1",
        "--ignore-daemonsets",
        "--force",
        "--delete-emptydir-data",
        "--pod-selector=app=web",
    ];
    contains(&kubectl(&drain), &["node/node-1 cordoned", "evicting pod", "drained"]);
    contains(&kubectl(&["get", "nodes"]), &["Ready,SchedulingDisabled"]);
    cluster.wait_for("the new pod to wait", || {
        let pods = cluster.get(ns, &["pods"]);
        pods["items"]
            .as_array()
            .is_some_and(|pods| pods.len() == 1 && pods[0]["status"]["phase"] == "Pending")
    });
    contains(&kubectl(&["describe", "pods"]), &["0/1 nodes are available: 1 node(s) were unschedulable."]);
    contains(&kubectl(&["uncordon", "node-1"]), &["node/node-1 uncordoned"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    kubectl(&["delete", "deployment", "web"]);
}
