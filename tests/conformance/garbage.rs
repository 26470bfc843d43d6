//! What goes with its owners, and what stays.

use serde_json::{Value, json};

use crate::trial::{Trial, count, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    a_deployments_things_go: "Garbage Collector, delete deployment, propagation policy background";
    a_deployments_things_stay: "Garbage Collector, delete deployment, propagation policy orphan";
    a_controllers_pods_go: "Garbage Collector, delete replication controller, propagation policy background";
    a_controllers_pods_stay: "Garbage Collector, delete replication controller, propagation policy orphan";
    a_controllers_pods_go_first: "Garbage Collector, delete replication controller, after owned pods";
    another_owner_holds_on: "Garbage Collector, multiple owners";
    a_circle_goes: "Garbage Collector, dependency cycle";
];

fn controller(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"app": name}, "template": sleeps().template(name)},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": sleeps().template("web")},
    })
}

fn none_left(t: &Trial, what: &str) {
    t.until(&[what], "to be gone", |list| count(list) == 0);
}

fn a_deployments_things_go(t: &Trial) {
    t.create(&[deployment()]);
    t.until_ready("app=web", 2);
    t.kubectl(&["delete", "deployment", "web", "--cascade=background"]);
    none_left(t, "replicasets,pods");
}

fn a_deployments_things_stay(t: &Trial) {
    t.create(&[deployment()]);
    t.until_ready("app=web", 2);
    t.kubectl(&["delete", "deployment", "web", "--cascade=orphan"]);
    t.until_gone(&["deployment", "web"]);
    let sets = t.until(&["replicasets"], "to be nobody's", |list| {
        count(list) == 1 && list["items"][0]["metadata"]["ownerReferences"].is_null()
    });
    assert_eq!(sets["items"][0]["spec"]["replicas"], 2);
    assert_eq!(t.names("pods", "app=web").len(), 2);
    t.kubectl(&["delete", "replicasets", "--all"]);
}

fn a_controllers_pods_go(t: &Trial) {
    t.create(&[controller("web", 2)]);
    t.until_ready("app=web", 2);
    t.kubectl(&["delete", "rc", "web", "--cascade=background"]);
    none_left(t, "pods");
}

fn a_controllers_pods_stay(t: &Trial) {
    t.create(&[controller("web", 5)]);
    t.until_ready("app=web", 5);
    t.kubectl(&["delete", "rc", "web", "--cascade=orphan"]);
    t.until_gone(&["rc", "web"]);
    t.until(&["pods", "-l", "app=web"], "to be nobody's", |list| {
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.len() == 5 && all.iter().all(|pod| pod["metadata"]["ownerReferences"].is_null())
    });
    t.kubectl(&["delete", "pods", "--all"]);
}

fn a_controllers_pods_go_first(t: &Trial) {
    t.create(&[controller("web", 10)]);
    t.until_ready("app=web", 10);
    t.kubectl(&["delete", "rc", "web", "--cascade=foreground"]);
    t.until_gone(&["rc", "web"]);
    assert!(t.names("pods", "app=web").is_empty(), "no pod is left when its controller has gone");
}

fn owners(t: &Trial, pod: &str, owners: &[(&str, &str, &Value)]) {
    let references: Vec<Value> = owners
        .iter()
        .map(|(kind, name, uid)| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}))
        .collect();
    let patch = json!({"metadata": {"ownerReferences": references}});
    t.kubectl(&["patch", "pod", pod, "--type=merge", "-p", &patch.to_string()]);
}

fn another_owner_holds_on(t: &Trial) {
    let mut second = controller("stays", 0);
    second["spec"]["selector"] = json!({"app": "nobody"});
    second["spec"]["template"]["metadata"]["labels"] = json!({"app": "nobody"});
    t.create(&[controller("goes", 6), second]);
    t.until_ready("app=goes", 6);
    let uid = |name: &str| t.get(&["rc", name])["metadata"]["uid"].clone();
    let (goes, stays) = (uid("goes"), uid("stays"));
    let pods = t.names("pods", "app=goes");
    for pod in &pods[..3] {
        owners(
            t,
            pod,
            &[("ReplicationController", "goes", &goes), ("ReplicationController", "stays", &stays)],
        );
    }
    t.kubectl(&["delete", "rc", "goes", "--cascade=foreground", "--timeout=60s"]);
    t.until(&["pods", "-l", "app=goes"], "to be the second owner's alone", |list| {
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.len() == 3
            && all.iter().all(|pod| {
                let references = pod["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
                let gone = pod["metadata"]["deletionTimestamp"].is_string();
                references.len() == 1 && references[0]["name"] == "stays" && !gone
            })
    });
    t.kubectl(&["delete", "rc", "stays"]);
    none_left(t, "pods");
}

fn a_circle_goes(t: &Trial) {
    t.create(&["one", "two", "three"].map(|name| sleeps().named(name).object()));
    let uid = |name: &str| t.get(&["pod", name])["metadata"]["uid"].clone();
    for (pod, owner) in [("one", "three"), ("two", "one"), ("three", "two")] {
        owners(t, pod, &[("Pod", owner, &uid(owner))]);
    }
    t.kubectl(&["delete", "pod", "one", "--wait=false"]);
    none_left(t, "pods");
}
