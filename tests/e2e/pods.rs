//! Pods that really run.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("pods::the_node_is_ready", the_node_is_ready),
    ("pods::a_deployment_serves_and_rolls", a_deployment_serves_and_rolls),
    ("pods::what_fails_says_why", what_fails_says_why),
    ("pods::outlive_a_killed_server", outlive_a_killed_server),
];

fn the_node_is_ready(cluster: &Cluster) {
    let nodes = cluster.kubectl("default", &["get", "nodes", "-o", "wide"]);
    assert!(nodes.contains("node-1   Ready") && nodes.contains("v1.36.0+gantry"), "{nodes}");
    let lease = cluster.get("kube-node-lease", &["lease", "node-1"]);
    assert_eq!(lease["spec"]["holderIdentity"], "node-1");
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: 'busybox:1'
        command: [/bin/busybox, sh, -c]
        args: ['busybox mkdir /www; echo $(POD) $COLOUR > /www/index.html; exec busybox httpd -f -p 8080 -h /www']
        env:
        - {name: COLOUR, value: red}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
";

fn a_deployment_serves_and_rolls(cluster: &Cluster) {
    let ns = "serves";
    cluster.namespace(ns);
    let applied = cluster.with_manifest(ns, &["apply"], WEB);
    assert!(applied.ok, "{applied:?}");
    cluster.kubectl(ns, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods: Vec<String> = names(&cluster.get(ns, &["pods"]));
    assert_eq!(pods.len(), 3);
    let slices = cluster.get(ns, &["endpointslices"]);
    assert_eq!(slices["items"][0]["endpoints"].as_array().map(Vec::len), Some(3));
    let mut seen: Vec<String> = Vec::new();
    cluster.wait_for("answers from all three pods", || {
        let answer = cluster.fetch("http://127.0.0.1:30080/");
        if let Some(pod) = pods.iter().find(|p| answer.starts_with(p.as_str())) {
            assert!(answer.trim().ends_with("red"), "{answer}");
            if !seen.contains(pod) {
                seen.push(pod.clone());
            }
        }
        seen.len() == 3
    });
    cluster.kubectl(ns, &["set", "env", "deployment/web", "COLOUR=blue"]);
    cluster.kubectl(ns, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.wait_for("the new version to answer", || {
        cluster.fetch("http://127.0.0.1:30080/").trim().ends_with("blue")
    });
    cluster.kubectl(ns, &["rollout", "undo", "deployment/web"]);
    cluster.kubectl(ns, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(ns, &["delete", "deployment", "web"]);
    cluster
        .wait_for("the pods to go with their deployment", || names(&cluster.get(ns, &["pods"])).is_empty());
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|i| i["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

fn what_fails_says_why(cluster: &Cluster) {
    let ns = "fails";
    cluster.namespace(ns);
    cluster.kubectl(ns, &["run", "missing", "--image=nowhere.invalid/x:1"]);
    cluster
        .kubectl(ns, &["run", "crashing", "--image=busybox:1", "--command", "--", "/bin/busybox", "false"]);
    let big = r#"{"spec":{"containers":[{"name":"big","image":"busybox:1","resources":{"requests":{"cpu":"1000"}}}]}}"#;
    cluster.kubectl(ns, &["run", "big", "--image=busybox:1", &format!("--overrides={big}")]);
    let shows = |pod: &str, parts: &[&str]| {
        cluster.wait_for(&format!("{pod} to show {parts:?}"), || {
            let text =
                cluster.kubectl(ns, &["get", "pod", pod]) + &cluster.kubectl(ns, &["describe", "pod", pod]);
            parts.iter().all(|part| text.contains(part))
        });
    };
    shows("missing", &["ImagePull", "failed to pull image \"nowhere.invalid/x:1\""]);
    shows("crashing", &["CrashLoopBackOff", "Exit Code:    1"]);
    shows("big", &["Pending", "FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu."]);
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

/// Asks again and again until its input ends; prints how many answers came, and each failure.
const ASK: &str = "
import sys, threading, urllib.request
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
answers = 0
while not done.is_set() or answers == 0:
    for url in sys.argv[1:]:
        try:
            urllib.request.urlopen(url, timeout=5).read()
            answers += 1
        except Exception as error:
            print('failed:', url, error)
print('answers:', answers)
";

fn outlive_a_killed_server(cluster: &Cluster) {
    let ns = "outlives";
    cluster.namespace(ns);
    let web = WEB.replace("30080", "30081");
    assert!(cluster.with_manifest(ns, &["apply"], &web).ok);
    cluster.kubectl(ns, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let before = cluster.get(ns, &["pods"]);
    let ip = before["items"][0]["status"]["podIP"].as_str().expect("an address").to_owned();
    let service =
        cluster.get(ns, &["service", "web"])["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    // To a pod, through the cluster's address and through the node's port.
    let urls =
        [format!("http://{ip}:8080/"), format!("http://{service}/"), "http://127.0.0.1:30081/".to_owned()];
    for url in &urls {
        cluster.wait_for(&format!("{url} to answer"), || !cluster.fetch(url).is_empty());
    }
    let mut asking = cluster.python(ASK, &urls);
    cluster.kill_and_restart();
    cluster.kill_and_restart();
    drop(asking.stdin.take());
    let said = asking.wait_with_output().expect("the end of the questions");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("answers: "), "no request to a running pod fails: {said}");
    let after = cluster.get(ns, &["pods"]);
    for index in 0..3 {
        for field in ["containerID", "restartCount", "state"] {
            let of = |list: &Value| list["items"][index]["status"]["containerStatuses"][0][field].clone();
            assert_eq!(of(&before), of(&after), "{field}");
        }
    }
    cluster.kubectl(ns, &["delete", "deployment/web", "service/web"]);
}
