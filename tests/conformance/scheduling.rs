//! Where pods go, and who makes room.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    selectors_of_nodes: "Scheduler, node selector matching", "Scheduler, node selector not matching";
    ports_that_differ: "Scheduling, HostPort matching and HostIP and Protocol not-matching";
    ports_that_clash: "Scheduling, HostPort and Protocol match, HostIPs different but one is default HostIP (0.0.0.0)";
    priorities_are_kept: "Scheduler, Verify PriorityClass endpoints";
];

/// They fill the node.
pub const ALONE: &[Check] = checks![
    a_full_node_takes_no_more: "Scheduler, resource limits";
    room_for_the_important: "Scheduler, Basic Preemption";
    room_for_the_critical: "Scheduler, Preemption for critical pod";
    sets_of_all_priorities: "Pod preemption verification";
];

fn unschedulable(t: &Trial, pod: &str, why: &str) {
    t.until(&["pod", pod], &format!("to find no node: {why}"), |pod| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| {
            c["reason"] == "Unschedulable" && c["message"].as_str().is_some_and(|message| message.contains(why))
        })
    });
}

fn selectors_of_nodes(t: &Trial) {
    t.kubectl(&["label", "node", "node-1", "e2e.scheduling/picked=42"]);
    let picky = |name: &str, value: &str| {
        sleeps().named(name).spec(json!({"nodeSelector": {"e2e.scheduling/picked": value}}))
    };
    t.ready(&picky("fits", "42"));
    t.create(&[picky("does-not", "43").object()]);
    unschedulable(t, "does-not", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector");
    t.kubectl(&["label", "node", "node-1", "e2e.scheduling/picked-"]);
}

fn with_port(name: &str, port: u32, ip: &str, protocol: &str) -> PodShape {
    let mut entry = json!({"containerPort": port, "hostPort": port, "protocol": protocol});
    if !ip.is_empty() {
        entry["hostIP"] = ip.into();
    }
    sleeps().named(name).with(json!({"ports": [entry]}))
}

fn ports_that_differ(t: &Trial) {
    t.ready(&with_port("one", 54321, "127.0.0.1", "TCP"));
    t.ready(&with_port("two", 54321, "127.0.0.2", "TCP"));
    t.ready(&with_port("three", 54321, "127.0.0.2", "UDP"));
}

fn ports_that_clash(t: &Trial) {
    t.ready(&with_port("one", 54322, "", "TCP"));
    t.create(&[with_port("two", 54322, "127.0.0.1", "TCP").object()]);
    unschedulable(t, "two", "1 node(s) didn't have free ports for the requested pod ports");
}

fn class(name: &str, value: i64) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value})
}

fn priorities_are_kept(t: &Trial) {
    t.create(&[class("kept-one", 1), class("kept-two", 2)]);
    t.kubectl(&["patch", "priorityclass", "kept-one", "-p", r#"{"description":"changed"}"#]);
    assert_eq!(t.get(&["priorityclass", "kept-one"])["description"], "changed");
    let refused = t.attempt(&["patch", "priorityclass", "kept-one", "-p", r#"{"value":5}"#]);
    assert!(!refused.ok && refused.err.contains("may not be changed in an update"), "{refused:?}");
    let mut other = class("kept-two", 20);
    other["description"] = "other".into();
    let refused = t.submit("replace", &[other]);
    assert!(!refused.ok, "{refused:?}");
    t.kubectl(&["delete", "priorityclass", "kept-one", "kept-two"]);
}

const THING: &str = "example.com/thing";

/// Gives the node five things to hand out, so that nothing else is in the way.
fn five_things(t: &Trial) {
    let status = json!({"status": {"capacity": {THING: "5"}, "allocatable": {THING: "5"}}});
    t.kubectl(&["patch", "node", "node-1", "--subresource=status", "-p", &status.to_string()]);
    t.until(&["node", "node-1"], "to have things", |node| node["status"]["allocatable"][THING] == "5");
}

fn no_things(t: &Trial) {
    let status = json!({"status": {"capacity": {THING: null}, "allocatable": {THING: null}}});
    t.kubectl(&["patch", "node", "node-1", "--subresource=status", "-p", &status.to_string()]);
}

fn wants(pod: PodShape, things: u32) -> PodShape {
    let amount = json!({THING: things.to_string()});
    pod.with(json!({"resources": {"requests": amount, "limits": amount}}))
}

fn important(pod: PodShape, class: &str) -> PodShape {
    pod.spec(json!({"priorityClassName": class}))
}

fn a_full_node_takes_no_more(t: &Trial) {
    let cpu = t.get(&["node", "node-1"])["status"]["allocatable"]["cpu"].as_str().expect("a quantity").to_owned();
    let cores: u32 = cpu.parse().expect("whole cores");
    let large = |name: &str, millis: u32| {
        sleeps().named(name).with(json!({"resources": {"requests": {"cpu": format!("{millis}m")}}}))
    };
    t.ready(&large("fills", cores * 700));
    t.create(&[large("one-more", cores * 500).object()]);
    unschedulable(t, "one-more", "0/1 nodes are available: 1 Insufficient cpu");
    t.kubectl(&["delete", "pod", "fills"]);
    t.kubectl(&["wait", "--for=condition=Ready", "pod/one-more", "--timeout=60s"]);
    t.kubectl(&["delete", "pod", "one-more"]);
}

/// Pods of low and middling importance fill the node; one more that matters makes the least important go.
fn preempts(t: &Trial, namespace: &str, class_of_last: &str) {
    five_things(t);
    t.create(&[class("p-low", 10), class("p-middle", 100), class("p-high", 1000)]);
    t.ready(&important(wants(sleeps().named("low"), 3), "p-low"));
    t.ready(&important(wants(sleeps().named("middle"), 2), "p-middle"));
    let last = important(wants(sleeps().named("last"), 3), class_of_last);
    let file = t.folder(&t.ns).join("last.json");
    std::fs::write(&file, last.object().to_string()).expect("writable folder");
    t.cluster_kubectl(namespace, &["create", "-f", &file.display().to_string()]);
    t.cluster_kubectl(namespace, &["wait", "--for=condition=Ready", "pod/last", "--timeout=60s"]);
    let low = t.attempt(&["get", "pod", "low", "-o", "jsonpath={.metadata.deletionTimestamp}{.status.phase}"]);
    let middle = t.get(&["pod", "middle"]);
    let events = t.kubectl(&["get", "events", "--field-selector=reason=Preempted"]);
    t.cluster_kubectl(namespace, &["delete", "pod", "last"]);
    t.kubectl(&["delete", "pods", "--all"]);
    t.kubectl(&["delete", "priorityclass", "p-low", "p-middle", "p-high"]);
    no_things(t);
    assert!(!low.ok || low.out.contains('Z') || low.out == "Failed", "{low:?}");
    assert!(middle["metadata"]["deletionTimestamp"].is_null(), "{middle}");
    assert!(events.contains("pod/low") && !events.contains("pod/middle"), "{events}");
}

fn room_for_the_important(t: &Trial) {
    preempts(t, &t.ns, "p-high");
}

fn room_for_the_critical(t: &Trial) {
    preempts(t, "kube-system", "system-cluster-critical");
}

fn sets_of_all_priorities(t: &Trial) {
    five_things(t);
    t.create(&[class("p1", 1), class("p2", 2), class("p3", 3), class("p4", 4)]);
    let set = |name: &str, things: u32, replicas: u32| {
        let pod = important(wants(sleeps(), things), name);
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod.template(name)}})
    };
    let ready = |name: &str, count: i64| {
        t.until(&["replicaset", name], &format!("to have {count} ready"), |set| {
            set["status"]["readyReplicas"].as_i64().unwrap_or(0) == count
        });
    };
    t.create(&[set("p1", 1, 3)]);
    ready("p1", 3);
    t.create(&[set("p2", 1, 2)]);
    ready("p2", 2);
    // One of the third takes the place of three of the first, the fourth that of the second.
    t.create(&[set("p3", 3, 1)]);
    ready("p3", 1);
    ready("p1", 0);
    ready("p2", 2);
    t.create(&[set("p4", 2, 1)]);
    ready("p4", 1);
    ready("p2", 0);
    ready("p3", 1);
    t.kubectl(&["delete", "replicasets", "--all"]);
    t.kubectl(&["delete", "priorityclass", "p1", "p2", "p3", "p4"]);
    no_things(t);
}
