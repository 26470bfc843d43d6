//! What people type.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, serves, sh, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    versions_are_told: "Kubectl, check version v1", "Kubectl, version", "Kubectl, cluster info";
    objects_are_described: "Kubectl, describe pod or rc";
    differences_are_shown: "Kubectl, diff Deployment";
    controllers_are_exposed: "Kubectl, create service, replication controller";
    labels_come_and_go: "Kubectl, label update";
    logs_are_cut: "Kubectl, logs";
    pods_are_annotated: "Kubectl, patch to annotate";
    pods_are_replaced: "Kubectl, replace";
    pods_are_run: "Kubectl, run pod";
    nothing_is_done: "Kubectl, server-side dry-run Pod";
    a_proxy_on_a_port: "Kubectl, proxy port zero";
    a_proxy_on_a_socket: "Kubectl, proxy socket";
    controllers_are_scaled: "Kubectl, replication controller", "Kubectl, scale replication controller";
    a_guestbook: "Kubectl, guestbook application";
    commands_over_websockets: "Pods, remote command execution over websocket", "Pods, logs from websockets";
];

fn controller(name: &str, pod: &PodShape, replicas: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"app": name}, "template": pod.template(name)},
    })
}

fn versions_are_told(t: &Trial) {
    assert!(t.kubectl(&["api-versions"]).lines().any(|line| line == "v1"));
    let both: Value = serde_json::from_str(&t.kubectl(&["version", "-o", "json"])).expect("versions");
    for side in ["clientVersion", "serverVersion"] {
        for field in ["major", "minor", "gitVersion", "gitCommit", "goVersion", "platform"] {
            assert!(both[side][field].is_string(), "{side} {field}: {both}");
        }
    }
    assert!(t.kubectl(&["cluster-info"]).contains("Kubernetes control plane"));
}

fn describes(t: &Trial, what: &[&str], parts: &[&str]) {
    let text = t.kubectl(&[&["describe"], what].concat());
    let line = |part: &str| {
        let words: Vec<&str> = part.split_whitespace().collect();
        text.lines().any(|line| {
            let found: Vec<&str> = line.split_whitespace().collect();
            found.windows(words.len()).any(|window| window == words)
        })
    };
    for part in parts {
        assert!(line(part), "{part:?} is missing: {text}");
    }
}

fn objects_are_described(t: &Trial) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"app": "web"}},
                         "spec": {"selector": {"app": "web"}, "ports": [{"port": 6379, "targetPort": 8080}]}});
    t.create(&[controller("web", &serves("p"), 1), service]);
    t.until_ready("app=web", 1);
    let pod = t.names("pods", "app=web").remove(0);
    let namespace = format!("Namespace: {}", t.ns);
    describes(t, &["pod", &pod], &[&format!("Name: {pod}"), &namespace, "Labels: app=web", "Status: Running",
        "Controlled By: ReplicationController/web", "Image: busybox:1", "State: Running", "QoS Class: BestEffort",
        "Scheduled", "Started"]);
    describes(t, &["rc", "web"], &["Name: web", &namespace, "Selector: app=web", "Labels: app=web",
        "Replicas: 1 current / 1 desired", "Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
        "Pod Template:", "Image: busybox:1", "SuccessfulCreate"]);
    let address = t.get(&["service", "web"])["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    describes(t, &["service", "web"], &["Name: web", &namespace, "Labels: app=web", "Selector: app=web",
        "Type: ClusterIP", &format!("IP: {address}"), "Session Affinity: None"]);
    describes(t, &["node", "node-1"], &["Name: node-1", "Labels:", "Annotations:", "CreationTimestamp:",
        "Conditions:", "MemoryPressure False", "DiskPressure False", "PIDPressure False", "Ready True",
        "Addresses:", "Capacity:", "System Info:", "Kubelet Version:", "Pods:"]);
    describes(t, &["namespace", &t.ns], &[&format!("Name: {}", t.ns), "Labels:", "Status: Active",
        "No resource quota.", "No LimitRange resource."]);
}

fn deployment(colour: &str) -> Value {
    let pod = sleeps().with(json!({"env": [{"name": "COLOUR", "value": colour}]}));
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": pod.template("web")}})
}

fn differences_are_shown(t: &Trial) {
    t.apply(&[deployment("red")]);
    let said = t.submit("diff", &[deployment("blue")]);
    assert!(said.out.lines().any(|l| l.starts_with('-') && l.contains("red")), "{said:?}");
    assert!(said.out.lines().any(|l| l.starts_with('+') && l.contains("blue")), "{said:?}");
    assert!(t.submit("diff", &[deployment("red")]).ok, "nothing differs");
}

fn controllers_are_exposed(t: &Trial) {
    t.create(&[controller("web", &serves("p"), 1)]);
    t.until_ready("app=web", 1);
    t.kubectl(&["expose", "rc", "web", "--name=rm2", "--port=1234", "--target-port=8080"]);
    t.kubectl(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=8080"]);
    for (service, port) in [("rm2", 1234), ("rm3", 2345)] {
        assert_eq!(t.get(&["service", service])["spec"]["ports"][0]["port"], port);
        let endpoints = t.until(&["endpoints", service], "to have an address", |endpoints| {
            endpoints["subsets"][0]["addresses"][0]["ip"].is_string()
        });
        assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 8080);
    }
}

fn labels_come_and_go(t: &Trial) {
    t.ready(&sleeps());
    let shown = || t.kubectl(&["get", "pod", "p", "-L", "testing-label", "--no-headers"]);
    t.kubectl(&["label", "pods", "p", "testing-label=testing-label-value"]);
    assert!(shown().contains("testing-label-value"));
    t.kubectl(&["label", "pods", "p", "testing-label-"]);
    assert!(!shown().contains("testing-label-value"));
}

fn logs_are_cut(t: &Trial) {
    let said = t.says(&sh("for i in 1 2 3 4 5; do echo line $i; done"));
    assert_eq!(said.lines().count(), 5);
    assert_eq!(t.kubectl(&["logs", "p", "-c", "c", "--tail=1"]), "line 5\n");
    assert_eq!(t.kubectl(&["logs", "p", "--limit-bytes=1"]), "l");
    let stamped = t.kubectl(&["logs", "p", "--tail=1", "--timestamps"]);
    let (time, rest) = stamped.split_once(' ').expect("a time and a line");
    assert!(time.contains('T') && rest == "line 5\n", "{stamped}");
    assert_eq!(t.kubectl(&["logs", "p", "--since=24h"]).lines().count(), 5);
    t.wait_for("a second after it, nothing to be new", || t.kubectl(&["logs", "p", "--since=1s"]).is_empty());
}

fn pods_are_annotated(t: &Trial) {
    t.create(&[controller("web", &sleeps(), 1)]);
    t.until_ready("app=web", 1);
    for pod in t.names("pods", "app=web") {
        t.kubectl(&["patch", "pod", &pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
        assert_eq!(t.get(&["pod", &pod])["metadata"]["annotations"]["x"], "y");
    }
}

fn pods_are_replaced(t: &Trial) {
    t.ready(&sleeps());
    let mut pod = t.get(&["pod", "p"]);
    pod["spec"]["containers"][0]["image"] = "busybox:2".into();
    assert!(t.submit("replace", &[pod]).ok);
    assert_eq!(t.get(&["pod", "p"])["spec"]["containers"][0]["image"], "busybox:2");
    t.until(&["pod", "p"], "to run the other image", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 || status["image"].as_str().is_some_and(|image| image.ends_with("busybox:2"))
    });
}

fn pods_are_run(t: &Trial) {
    t.kubectl(&["run", "mine", "--image=busybox:1", "--restart=Never"]);
    let pod = t.get(&["pod", "mine"]);
    assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(1));
    assert_eq!((&pod["spec"]["containers"][0]["image"], &pod["spec"]["restartPolicy"]), (&"busybox:1".into(), &"Never".into()));
}

fn nothing_is_done(t: &Trial) {
    t.kubectl(&["run", "mine", "--image=busybox:1", "--labels=run=mine"]);
    let patch = r#"{"spec":{"containers":[{"name":"mine","image":"busybox:2"}]}}"#;
    t.kubectl(&["patch", "pod", "mine", "-p", patch, "--dry-run=server"]);
    assert_eq!(t.get(&["pod", "mine"])["spec"]["containers"][0]["image"], "busybox:1");
    t.kubectl(&["run", "other", "--image=busybox:1", "--dry-run=server"]);
    assert!(!t.attempt(&["get", "pod", "other"]).ok);
}

fn a_proxy_on_a_port(t: &Trial) {
    let proxy = t.start(&["proxy", "--port=0"]);
    let told = proxy.until(|told| told.contains("Starting to serve on"));
    let address = told.trim().rsplit(' ').next().expect("an address").to_owned();
    assert!(t.fetch(&format!("http://{address}/api/")).contains("versions"));
}

fn a_proxy_on_a_socket(t: &Trial) {
    let socket = t.folder(&t.ns).join("proxy.sock");
    let proxy = t.start(&["proxy", &format!("--unix-socket={}", socket.display())]);
    proxy.until(|told| told.contains("Starting to serve on"));
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
                  s.sendall(b'GET /api HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n'); print(s.makefile().read())";
    let said = t.python(script, &[socket.display().to_string()]).wait_with_output().expect("an answer");
    assert!(String::from_utf8_lossy(&said.stdout).contains("versions"));
}

fn controllers_are_scaled(t: &Trial) {
    t.create(&[controller("web", &sleeps(), 2)]);
    t.until_ready("app=web", 2);
    t.kubectl(&["scale", "rc", "web", "--replicas=1", "--timeout=60s"]);
    t.until_ready("app=web", 1);
    t.kubectl(&["scale", "rc", "web", "--replicas=2", "--timeout=60s"]);
    t.until_ready("app=web", 2);
}

/// A front end that keeps what it is told in a back end, and reads it again.
fn a_guestbook(t: &Trial) {
    // The back end: what is put into its folder is served. The front end asks it.
    let back = "busybox mkdir -p /www/cgi-bin; \
        printf '#!/bin/busybox sh\\necho; case \"$QUERY_STRING\" in set=*) echo \"${QUERY_STRING#set=}\" >> /www/book; echo ok;; \
        *) busybox cat /www/book 2>/dev/null;; esac\\n' > /www/cgi-bin/book; busybox chmod +x /www/cgi-bin/book; \
        exec busybox httpd -f -p 6379 -h /www";
    let front = "busybox mkdir -p /www/cgi-bin; \
        printf '#!/bin/busybox sh\\necho; busybox wget -q -O - \"http://primary:6379/cgi-bin/book?$QUERY_STRING\"\\n' \
        > /www/cgi-bin/guest; busybox chmod +x /www/cgi-bin/guest; exec busybox httpd -f -p 8080 -h /www";
    let deployment = |name: &str, script: &str, replicas: u32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": sh(script).template(name)}})
    };
    let service = |name: &str, port: u32, target: u32| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
               "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]}})
    };
    t.apply(&[
        service("primary", 6379, 6379), deployment("primary", back, 1),
        service("frontend", 80, 8080), deployment("frontend", front, 3),
    ]);
    t.until_ready("app=primary", 1);
    t.until_ready("app=frontend", 3);
    let guest = |query: &str| format!("/api/v1/namespaces/{}/services/frontend/proxy/cgi-bin/guest?{query}", t.ns);
    t.wait_for("the book to be written in", || t.attempt(&["get", "--raw", &guest("set=TestEntry")]).out.contains("ok"));
    t.wait_for("the entry to be read", || t.attempt(&["get", "--raw", &guest("get")]).out.contains("TestEntry"));
    t.kubectl(&["delete", "deployments,services", "--all"]);
}

fn commands_over_websockets(t: &Trial) {
    t.ready(&sh("echo hello from the log; exec busybox sleep 1000000"));
    let base = format!("/api/v1/namespaces/{}/pods/p", t.ns);
    let command = "command=/bin/busybox&command=echo&command=remote&command=execution";
    let exec = format!("{base}/exec?stdout=1&stderr=1&container=c&{command}");
    let told = t.websocket(&exec, "v4.channel.k8s.io");
    assert!(told.contains("\u{1}remote execution\n"), "{told:?}");
    let told = t.websocket(&format!("{base}/log?container=c"), "binary.k8s.io");
    assert!(told.contains("hello from the log\n"), "{told:?}");
}
