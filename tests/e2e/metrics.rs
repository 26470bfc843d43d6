//! What nodes and pods use: `kubectl top`, the node's own API through the proxy, and pods that use too much.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("metrics::kubectl_top", kubectl_top),
    ("metrics::the_node_tells_of_itself", the_node_tells_of_itself),
    ("metrics::too_much_in_an_empty_dir", too_much_in_an_empty_dir),
];

const PROXY: &str = "/api/v1/nodes/node-1/proxy";

const BUSY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: work
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'while true; do :; done']
    resources: {limits: {cpu: 200m, memory: 64Mi}}
  - name: rest
    image: 'busybox:1'
    command: [/bin/busybox, sleep, '3600']
";

fn raw(cluster: &Cluster, path: &str) -> String {
    cluster.kubectl("default", &["get", "--raw", path])
}

fn json(cluster: &Cluster, path: &str) -> Value {
    serde_json::from_str(&raw(cluster, path)).expect("JSON")
}

fn kubectl_top(cluster: &Cluster) {
    let ns = "top";
    cluster.namespace(ns);
    assert!(cluster.with_manifest(ns, &["apply"], BUSY).ok);
    cluster.kubectl(ns, &["wait", "pod/busy", "--for=condition=Ready", "--timeout=60s"]);
    let service = cluster.get("default", &["apiservice", "v1beta1.metrics.k8s.io"]);
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
    cluster.wait_for("the node to be measured", || {
        let nodes = cluster.try_kubectl("default", &["top", "nodes"]).out;
        nodes.lines().nth(1).is_some_and(|line| line.starts_with("node-1") && line.contains("Mi"))
    });
    let mut said = String::new();
    cluster.wait_for("the pod to be measured", || {
        said = cluster.try_kubectl(ns, &["top", "pods", "--containers", "-l", "app=busy"]).out;
        said.contains("work")
    });
    let work = said.lines().find(|line| line.contains("work")).expect("measured");
    let cores = work.split_whitespace().nth(2).and_then(|word| word.strip_suffix('m')).expect("millicores");
    let cores: u64 = cores.parse().expect("a number");
    assert!((30..=250).contains(&cores), "{said}");
    assert!(said.contains("rest"), "{said}");
    let none = cluster.try_kubectl(ns, &["top", "pods", "-l", "app=nobody"]);
    assert!(none.out.is_empty() && none.err.contains("No resources found"), "{none:?}");
    let table = cluster.kubectl(ns, &["get", "pods.metrics.k8s.io"]);
    assert!(table.starts_with("NAME"), "{table}");
    let pod = json(cluster, &format!("/apis/metrics.k8s.io/v1beta1/namespaces/{ns}/pods/busy"));
    assert_eq!((&pod["kind"], &pod["metadata"]["labels"]["app"]), (&"PodMetrics".into(), &"busy".into()));
    let gone = cluster.try_kubectl(ns, &["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/nowhere"]);
    assert!(!gone.ok && gone.err.contains("NotFound"), "{gone:?}");

    let summary = json(cluster, &format!("{PROXY}/stats/summary"));
    let pods = summary["pods"].as_array().expect("a list");
    let busy = pods.iter().find(|p| p["podRef"]["name"] == "busy").expect("it runs");
    assert_eq!(busy["containers"].as_array().map(Vec::len), Some(2));
    let used = busy["cpu"]["usageCoreNanoSeconds"].as_u64().expect("a number");
    assert!(used > 0 && busy["memory"]["workingSetBytes"].as_u64().is_some_and(|n| n > 0), "{busy}");
    assert!(busy["network"]["interfaces"][0]["name"] == "eth0", "{busy}");
    let work = busy["containers"].as_array().and_then(|c| c.iter().find(|c| c["name"] == "work"));
    assert_eq!(
        work.map(|c| c["memory"]["availableBytes"].as_u64().is_some_and(|n| n < 64 << 20)),
        Some(true)
    );
    let numbers = raw(cluster, &format!("{PROXY}/metrics/cadvisor"));
    let wanted = "container_cpu_usage_seconds_total{container=\"work\",cpu=\"total\",id=\"/";
    assert!(numbers.contains(wanted), "{numbers}");
    assert!(numbers.contains("container_network_receive_bytes_total{container=\"\",id=\"/"), "{numbers}");
    cluster.kubectl(ns, &["delete", "pod", "busy", "--timeout=60s"]);
}

fn the_node_tells_of_itself(cluster: &Cluster) {
    let own = raw(cluster, &format!("{PROXY}/metrics"));
    for name in
        ["kubelet_node_name{node=\"node-1\"} 1", "kubelet_running_pods ", "kubelet_runtime_operations_total"]
    {
        assert!(own.contains(name), "{name}: {own}");
    }
    assert!(raw(cluster, &format!("{PROXY}/metrics/resource")).contains("node_memory_working_set_bytes "));
    assert!(raw(cluster, &format!("{PROXY}/metrics/probes")).contains("prober_probe_total"));
    for check in ["", "/ping", "/syncloop"] {
        assert_eq!(raw(cluster, &format!("{PROXY}/healthz{check}")), "ok");
    }
    let config = json(cluster, &format!("{PROXY}/configz"));
    assert_eq!(config["kubeletconfig"]["kind"], "KubeletConfiguration");
    assert_eq!(json(cluster, &format!("{PROXY}/runningpods/"))["kind"], "PodList");
    assert_eq!(json(cluster, &format!("{PROXY}/pods"))["kind"], "PodList");
    assert!(raw(cluster, &format!("{PROXY}/logs/")).starts_with("<pre>"));
    let log = raw(cluster, &format!("{PROXY}/logs/?query=kubelet&tailLines=5"));
    assert!((1..=5).contains(&log.lines().count()), "{log}");
    // Nobody gets in without saying who he is.
    let url = "https://127.0.0.1:10250/metrics";
    let refused = cluster.fetch_unsafely(url);
    assert!(refused.contains("401"), "{refused}");
}

const GREEDY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Always
  containers:
  - name: a
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'busybox dd if=/dev/zero of=/scratch/big bs=1M count=4; exec busybox sleep 3600']
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}]
";

fn too_much_in_an_empty_dir(cluster: &Cluster) {
    let ns = "greedy";
    cluster.namespace(ns);
    assert!(cluster.with_manifest(ns, &["apply"], GREEDY).ok);
    cluster.wait_for("the pod to be sent away", || {
        cluster.get(ns, &["pod", "greedy"])["status"]["phase"] == "Failed"
    });
    let pod = cluster.get(ns, &["pod", "greedy"]);
    let status = &pod["status"];
    assert_eq!(
        (&status["reason"], &status["message"]),
        (
            &Value::from("Evicted"),
            &Value::from("Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". "),
        )
    );
    let conditions = status["conditions"].as_array().expect("a list");
    let disrupted = conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("the node ended it");
    assert_eq!(
        (&disrupted["status"], &disrupted["reason"]),
        (&"True".into(), &"TerminationByKubelet".into())
    );
    cluster.wait_for("the event", || {
        cluster.kubectl(ns, &["get", "events", "--field-selector=reason=Evicted"]).contains("EmptyDir volume")
    });
    cluster.kubectl(ns, &["delete", "pod", "greedy", "--timeout=60s"]);
}
