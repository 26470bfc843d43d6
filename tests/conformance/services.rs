//! Services: addresses, ports, kinds, affinity, endpoints; pods that talk to each other.

use serde_json::{Value, json};

use crate::trial::{Trial, count, serves, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    a_hundred_services: "Service endpoint latency, thresholds";
    the_apis_own: "Kubernetes Service", "Find Kubernetes Service in default Namespace";
    endpoints_follow_pods: "Service, endpoints";
    endpoints_of_several_ports: "Service, endpoints with multiple ports";
    a_node_port: "Service, NodePort Service";
    no_affinity: "Service, ClusterIP type, session affinity to None", "Service, NodePort type, session affinity to None";
    affinity: "Service, ClusterIP type, session affinity to ClientIP", "Service, NodePort type, session affinity to ClientIP";
    affinity_for_a_while: "Service, ClusterIP type, session affinity to ClientIP with timeout",
        "Service, NodePort type, session affinity to ClientIP with timeout";
    from_a_name_to_an_address: "Service, change type, ExternalName to ClusterIP";
    from_a_name_to_a_node_port: "Service, change type, ExternalName to NodePort";
    from_an_address_to_a_name: "Service, change type, ClusterIP to ExternalName";
    from_a_node_port_to_a_name: "Service, change type, NodePort to ExternalName";
    endpoints_by_hand: "Endpoint resource lifecycle";
    pods_talk: "Networking, intra pod http", "Networking, intra pod udp";
    nodes_talk_to_pods: "Networking, intra pod http, from node";
    by_the_api_servers_proxy: "Proxy, logs service endpoint";
];

fn service(name: &str, more: Value) -> Value {
    let mut spec = json!({"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]});
    crate::trial::merge(&mut spec, more);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn servers(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"app": name}, "template": serves("p").template(name)},
    })
}

fn field(t: &Trial, service: &str, path: &str) -> Value {
    t.get(&["service", service]).pointer(path).cloned().unwrap_or_default()
}

/// The Service's address in the cluster.
fn address(t: &Trial, service: &str) -> String {
    field(t, service, "/spec/clusterIP").as_str().expect("an address").to_owned()
}

fn node_port(t: &Trial, service: &str) -> String {
    let port = field(t, service, "/spec/ports/0/nodePort").as_i64().expect("a node port");
    let node = t.get(&["node", "node-1"]);
    let addresses = node["status"]["addresses"].as_array().expect("addresses");
    let own = addresses.iter().find(|a| a["type"] == "InternalIP").expect("an address");
    format!("{}:{port}", own["address"].as_str().expect("an address"))
}

/// Asks from inside a pod until somebody answers.
fn reached(t: &Trial, from: &str, to: &str) -> String {
    let said = t.until_inside(from, &get(to), |said| !said.is_empty());
    said.trim().to_owned()
}

fn get(to: &str) -> String {
    format!("busybox timeout 3 busybox wget -q -O - http://{to}/ 2>/dev/null")
}

/// Who answers, asked so many times in a row.
fn answers(t: &Trial, from: &str, to: &str, times: usize) -> Vec<String> {
    let script = format!("i=0; while busybox test $i -lt {times}; do {} || echo nobody; i=$((i+1)); done", get(to));
    t.inside_pod(from, &script).out.lines().map(str::to_owned).collect()
}

fn a_hundred_services(t: &Trial) {
    t.create(&[servers("web", 1)]);
    t.until_ready("app=web", 1);
    let all: Vec<Value> = (0..100)
        .map(|n| {
            let mut one = service("web", json!({}));
            one["metadata"]["name"] = format!("web-{n}").into();
            one["metadata"]["labels"] = json!({"of": "a-hundred"});
            one
        })
        .collect();
    t.create(&all);
    t.until(&["endpoints", "-l", "of=a-hundred"], "to be there with an address each", |list| {
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.len() == 100 && all.iter().all(|e| e["subsets"][0]["addresses"][0]["ip"].is_string())
    });
    t.kubectl(&["delete", "services", "-l", "of=a-hundred"]);
    t.until(&["endpoints", "-l", "of=a-hundred"], "to go", |list| count(list) == 0);
}

fn the_apis_own(t: &Trial) {
    let all = t.kubectl(&["get", "services", "-A", "--field-selector=metadata.name=kubernetes", "-o", "name"]);
    assert_eq!(all.trim(), "service/kubernetes");
    let of_default: Value =
        serde_json::from_str(&t.kubectl(&["get", "--raw", "/api/v1/namespaces/default/services/kubernetes"]))
            .expect("a Service");
    let port = &of_default["spec"]["ports"][0];
    assert_eq!((&port["name"], &port["port"]), (&"https".into(), &443.into()));
    // It leads to the API.
    let host = of_default["spec"]["clusterIP"].as_str().expect("an address");
    t.ready(&sleeps());
    let script = format!("busybox nc -w 2 {host} 443 < /dev/null && echo open");
    t.until_inside("p", &script, |said| said == "open\n");
}

/// The addresses and ports of a Service's endpoints, by their ports.
fn endpoints(t: &Trial, service: &str) -> Vec<(String, i64)> {
    let endpoints = t.get(&["endpoints", service]);
    let mut found = Vec::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        for port in subset["ports"].as_array().into_iter().flatten() {
            for address in subset["addresses"].as_array().into_iter().flatten() {
                let pod = address["targetRef"]["name"].as_str().unwrap_or_default();
                found.push((pod.to_owned(), port["port"].as_i64().unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

fn validated(t: &Trial, service: &str, wanted: &[(&str, i64)]) {
    let wanted: Vec<(String, i64)> = wanted.iter().map(|(pod, port)| ((*pod).to_owned(), *port)).collect();
    t.wait_for(&format!("{service} to lead to {wanted:?}"), || endpoints(t, service) == wanted);
}

fn endpoints_follow_pods(t: &Trial) {
    t.create(&[service("web", json!({}))]);
    validated(t, "web", &[]);
    let pod = |name: &str| serves(name).meta(json!({"labels": {"app": "web"}}));
    t.ready(&pod("pod1"));
    validated(t, "web", &[("pod1", 8080)]);
    t.ready(&pod("pod2"));
    validated(t, "web", &[("pod1", 8080), ("pod2", 8080)]);
    t.ready(&sleeps().named("asks"));
    t.wait_for("both to answer", || {
        let said = answers(t, "asks", &address(t, "web"), 10);
        ["pod1", "pod2"].iter().all(|name| said.iter().any(|s| s == name))
    });
    t.kubectl(&["delete", "pod", "pod1"]);
    validated(t, "web", &[("pod2", 8080)]);
    t.kubectl(&["delete", "pod", "pod2"]);
    validated(t, "web", &[]);
}

fn endpoints_of_several_ports(t: &Trial) {
    let ports = json!({"ports": [
        {"name": "portname1", "port": 80, "targetPort": "portname1"},
        {"name": "portname2", "port": 81, "targetPort": "portname2"},
    ]});
    t.create(&[service("web", ports)]);
    let pod = |name: &str, port: &str, number: u32| {
        let ports = json!({"ports": [{"name": port, "containerPort": number}]});
        sleeps().named(name).with(ports).meta(json!({"labels": {"app": "web"}}))
    };
    t.ready(&pod("pod1", "portname1", 100));
    validated(t, "web", &[("pod1", 100)]);
    t.ready(&pod("pod2", "portname2", 101));
    validated(t, "web", &[("pod1", 100), ("pod2", 101)]);
    t.kubectl(&["delete", "pod", "pod1"]);
    validated(t, "web", &[("pod2", 101)]);
}

fn a_node_port(t: &Trial) {
    t.create(&[servers("web", 2), service("web", json!({"type": "NodePort"}))]);
    t.until_ready("app=web", 2);
    t.ready(&sleeps().named("asks"));
    let pods = t.names("pods", "app=web");
    for to in ["web".to_owned(), address(t, "web"), node_port(t, "web")] {
        let who = reached(t, "asks", &to);
        assert!(pods.contains(&who), "{to}: {who}");
    }
    let port = node_port(t, "web");
    t.wait_for("the node to answer itself", || pods.contains(&t.fetch(&format!("http://{port}/")).trim().to_owned()));
}

/// Both ways to a Service of three pods, for a pod that asks.
fn with_affinity(t: &Trial, more: Value) -> [String; 2] {
    let mut spec = json!({"type": "NodePort"});
    crate::trial::merge(&mut spec, more);
    t.create(&[servers("web", 3), service("web", spec)]);
    t.until_ready("app=web", 3);
    t.ready(&sleeps().named("asks"));
    [address(t, "web"), node_port(t, "web")]
}

fn different(answers: &[String]) -> usize {
    let all: std::collections::BTreeSet<&String> = answers.iter().filter(|a| *a != "nobody").collect();
    all.len()
}

fn no_affinity(t: &Trial) {
    for to in with_affinity(t, json!({"sessionAffinity": "ClientIP"})) {
        reached(t, "asks", &to);
    }
    t.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"sessionAffinity":"None"}}"#]);
    for to in [address(t, "web"), node_port(t, "web")] {
        t.wait_for("several to answer", || different(&answers(t, "asks", &to, 15)) > 1);
    }
}

fn affinity(t: &Trial) {
    for to in with_affinity(t, json!({"sessionAffinity": "ClientIP"})) {
        t.wait_for("one to answer always", || {
            let said = answers(t, "asks", &to, 15);
            said.len() == 15 && different(&said) == 1 && !said.contains(&"nobody".to_owned())
        });
    }
}

fn affinity_for_a_while(t: &Trial) {
    let config = json!({"clientIP": {"timeoutSeconds": 2}});
    for to in with_affinity(t, json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config})) {
        t.wait_for("one to answer as long as it is asked", || different(&answers(t, "asks", &to, 15)) == 1);
        // Each pause is longer than the memory: sooner or later somebody else answers.
        let script = format!("for i in 1 2 3 4 5 6 7 8; do {}; busybox sleep 3; done", get(&to));
        t.wait_for("another to answer after a pause", || {
            let said = t.inside_pod("asks", &script).out;
            different(&said.lines().map(str::to_owned).collect::<Vec<_>>()) > 1
        });
    }
}

fn external(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": "clusterip.example.com"},
    })
}

/// Where a name leads, seen from a pod.
fn looked_up(t: &Trial, pod: &str, name: &str, holds: impl Fn(&str) -> bool) {
    t.until_inside(pod, &format!("busybox nslookup -type=a {name} 2>&1"), holds);
}

fn becomes_reachable(t: &Trial, kind: &str) {
    t.create(&[external("web"), servers("web", 2)]);
    assert_eq!(field(t, "web", "/spec/clusterIP"), Value::Null);
    t.until_ready("app=web", 2);
    let spec = json!({"type": kind, "externalName": null, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    t.kubectl(&["patch", "service", "web", "-p", &json!({"spec": spec}).to_string()]);
    t.ready(&sleeps().named("asks"));
    let own = address(t, "web");
    reached(t, "asks", "web");
    reached(t, "asks", &own);
    if kind == "NodePort" {
        reached(t, "asks", &node_port(t, "web"));
    }
}

fn from_a_name_to_an_address(t: &Trial) {
    becomes_reachable(t, "ClusterIP");
}

fn from_a_name_to_a_node_port(t: &Trial) {
    becomes_reachable(t, "NodePort");
}

fn becomes_a_name(t: &Trial, kind: &str) {
    let own = service("own", json!({}));
    t.create(&[servers("own", 1), own, service("web", json!({"type": kind}))]);
    t.until_ready("app=own", 1);
    let target = format!("own.{}.svc.cluster.local", t.ns);
    let spec = json!({"type": "ExternalName", "externalName": target});
    t.kubectl(&["patch", "service", "web", "-p", &json!({"spec": spec}).to_string()]);
    assert_eq!(field(t, "web", "/spec/clusterIP"), Value::Null);
    t.ready(&sleeps().named("asks"));
    let leads = address(t, "own");
    looked_up(t, "asks", &format!("web.{}.svc.cluster.local", t.ns), |said| said.contains(&leads));
}

fn from_an_address_to_a_name(t: &Trial) {
    becomes_a_name(t, "ClusterIP");
}

fn from_a_node_port_to_a_name(t: &Trial) {
    becomes_a_name(t, "NodePort");
}

fn endpoints_by_hand(t: &Trial) {
    let subsets = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 80}]}]);
    let object = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mine", "labels": {"static": "yes"}},
        "subsets": subsets("10.0.0.24"),
    });
    t.create(std::slice::from_ref(&object));
    assert_eq!(t.names("endpoints", "static=yes"), ["mine"]);
    let mut other = object;
    other["subsets"] = subsets("10.0.0.25");
    assert!(t.submit("replace", &[other]).ok);
    t.kubectl(&["patch", "endpoints", "mine", "-p", r#"{"metadata":{"labels":{"patched":"yes"}}}"#]);
    assert_eq!(t.get(&["endpoints", "mine"])["subsets"][0]["addresses"][0]["ip"], "10.0.0.25");
    let path = format!("/api/v1/namespaces/{}/endpoints?labelSelector=patched%3Dyes", t.ns);
    t.kubectl(&["delete", "--raw", &path]);
    t.until_gone(&["endpoints", "mine"]);
}

/// A pod that says its name over HTTP and UDP, and a container beside it to ask from.
fn talks(t: &Trial, name: &str) -> String {
    let mut pod = sleeps().named(name).object();
    let image = json!({"name": "demo", "image": "demo:1", "env": [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
    pod["spec"]["containers"].as_array_mut().expect("a list").push(image);
    t.create(&[pod]);
    t.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("pod/{name}")]);
    t.address(name)
}

/// Asks from the demo program's container, which can speak UDP.
fn asks(t: &Trial, from: &str, url: &str, wanted: &str) {
    t.wait_for(&format!("{wanted} to answer {from} at {url}"), || {
        t.attempt(&["exec", from, "-c", "demo", "--", "/gantry-demo", "ask", url]).out.contains(wanted)
    });
}

fn pods_talk(t: &Trial) {
    let addresses = ["one", "two"].map(|name| talks(t, name));
    for (to, address) in ["one", "two"].iter().zip(&addresses) {
        for from in ["one", "two"] {
            asks(t, from, &format!("http://{address}:8080/"), to);
            asks(t, from, &format!("udp://{address}:8080"), to);
        }
    }
}

fn nodes_talk_to_pods(t: &Trial) {
    let address = talks(t, "p");
    t.wait_for("the pod to answer over HTTP", || t.fetch(&format!("http://{address}:8080/")).contains("p"));
    let script = "import socket,sys; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)\n\
                  s.sendto(b'who are you', (sys.argv[1], 8080)); print(s.recv(100).decode())";
    t.wait_for("the pod to answer over UDP", || {
        let said = t.python(script, std::slice::from_ref(&address)).wait_with_output().expect("an answer");
        String::from_utf8_lossy(&said.stdout).trim() == "p"
    });
}

fn by_the_api_servers_proxy(t: &Trial) {
    t.create(&[servers("web", 1), service("web", json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}))]);
    t.until_ready("app=web", 1);
    let pod = t.names("pods", "app=web").remove(0);
    let base = format!("/api/v1/namespaces/{}", t.ns);
    for path in [format!("{base}/pods/{pod}:8080/proxy/"), format!("{base}/pods/http:{pod}:8080/proxy/")] {
        assert_eq!(t.kubectl(&["get", "--raw", &path]).trim(), pod);
    }
    for name in ["web:80", "web:http", "http:web:http"] {
        let path = format!("{base}/services/{name}/proxy/");
        t.wait_for("the Service to be led to", || {
            t.attempt(&["get", "--raw", &path]).out.trim() == pod
        });
    }
    let logs = t.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/logs/"]);
    assert!(!logs.is_empty());
}
