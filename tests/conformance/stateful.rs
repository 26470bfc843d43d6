//! StatefulSets.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, count, is, serves, sh};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    in_order_and_held_up: "StatefulSet, Scaling";
    all_at_once: "StatefulSet, Burst Scaling";
    rolls_and_is_undone: "StatefulSet, Rolling Update";
    rolls_in_parts: "StatefulSet, Rolling Update with Partition";
    what_failed_comes_again: "StatefulSet, Recreate Failed Pod";
    scaled_by_its_subresource: "StatefulSet resource Replica scaling";
];

fn set(pod: &PodShape, more: Value) -> [Value; 2] {
    let mut spec = json!({
        "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": pod.template("db"),
    });
    crate::trial::merge(&mut spec, more);
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 8080}]},
        }),
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec}),
    ]
}

/// Ready as long as a file is served.
fn checked() -> PodShape {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    serves("p").with(json!({"readinessProbe": probe}))
}

fn fall_ill(t: &Trial, pod: &str, wanted: bool) {
    let script = if wanted { "busybox mv /www/healthz /www/ill" } else { "busybox mv /www/ill /www/healthz" };
    assert!(t.inside_pod(pod, script).ok);
    t.until(&["pod", pod], "to be found so", |pod| is(pod, "Ready") != wanted);
}

fn in_order_and_held_up(t: &Trial) {
    let watch = t.start(&["get", "pods", "-l", "app=db", "-w", "--output-watch-events", "-o",
        "jsonpath={.type} {.object.metadata.name}{\"\\n\"}"]);
    t.create(&set(&checked(), json!({"replicas": 1})));
    t.until_ready("app=db", 1);
    fall_ill(t, "db-0", true);
    t.kubectl(&["scale", "statefulset/db", "--replicas=3"]);
    t.until(&["statefulset", "db"], "to have seen its new size", |set| set["status"]["observedGeneration"] == 2);
    // The pod's clock says when enough time has passed.
    t.inside_pod("db-0", "busybox sleep 2");
    assert_eq!(t.names("pods", "app=db"), ["db-0"], "the second waits for the first");
    fall_ill(t, "db-0", false);
    t.until_ready("app=db", 3);
    let all = ["db-0", "db-1", "db-2"];
    all.iter().for_each(|pod| fall_ill(t, pod, true));
    t.kubectl(&["scale", "statefulset/db", "--replicas=0"]);
    t.inside_pod("db-0", "busybox sleep 2");
    assert_eq!(t.names("pods", "app=db"), all, "nobody goes while others are ill");
    // They may go while the next ones get well.
    all.iter().rev().for_each(|pod| drop(t.inside_pod(pod, "busybox mv /www/ill /www/healthz")));
    t.until(&["pods", "-l", "app=db"], "to be gone", |list| count(list) == 0);
    let told = watch.until(|told| told.contains("DELETED db-0"));
    let order: Vec<&str> = told.lines().filter(|l| l.starts_with("ADDED") || l.starts_with("DELETED")).collect();
    assert_eq!(
        order,
        ["ADDED db-0", "ADDED db-1", "ADDED db-2", "DELETED db-2", "DELETED db-1", "DELETED db-0"]
    );
}

fn all_at_once(t: &Trial) {
    t.create(&set(&checked(), json!({"replicas": 1, "podManagementPolicy": "Parallel"})));
    t.until_ready("app=db", 1);
    fall_ill(t, "db-0", true);
    t.kubectl(&["scale", "statefulset/db", "--replicas=3"]);
    t.until(&["statefulset", "db"], "to have three, one of them ill", |set| {
        set["status"]["replicas"] == 3 && set["status"]["readyReplicas"] == 2
    });
    t.kubectl(&["scale", "statefulset/db", "--replicas=0"]);
    t.until(&["pods", "-l", "app=db"], "to be gone", |list| count(list) == 0);
}

fn colour(t: &Trial, pod: &str) -> String {
    t.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.containers[0].env[0].value}"])
}

fn paint(t: &Trial, colour: &str) {
    t.kubectl(&["set", "env", "statefulset/db", &format!("COLOUR={colour}")]);
}

fn red() -> PodShape {
    checked().with(json!({"env": [{"name": "COLOUR", "value": "red"}]}))
}

fn rolls_and_is_undone(t: &Trial) {
    t.create(&set(&red(), json!({"replicas": 3})));
    t.until_ready("app=db", 3);
    let revisions = |set: &Value| {
        let of = |field: &str| set["status"][field].as_str().unwrap_or_default().to_owned();
        (of("currentRevision"), of("updateRevision"))
    };
    let settled = |not: &str| {
        let set = t.until(&["statefulset", "db"], "to have one revision", |set| {
            let (current, update) = revisions(set);
            current == update && current != not && set["status"]["readyReplicas"] == 3
        });
        revisions(&set).0
    };
    let first = settled("");
    paint(t, "blue");
    let second = settled(&first);
    assert_ne!(first, second);
    assert!((0..3).all(|n| colour(t, &format!("db-{n}")) == "blue"));
    paint(t, "red");
    assert_eq!(settled(&second), first, "what was once has its old name");
    assert_eq!(count(&t.get(&["controllerrevisions"])), 2);
}

fn rolls_in_parts(t: &Trial) {
    let rolling = |partition: u32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    t.create(&set(&red(), json!({"replicas": 3, "updateStrategy": rolling(3)})));
    t.until_ready("app=db", 3);
    let colours = || (0..3).map(|n| colour(t, &format!("db-{n}"))).collect::<Vec<_>>().join(" ");
    paint(t, "blue");
    t.until(&["statefulset", "db"], "to have seen it", |set| {
        set["status"]["updateRevision"] != set["status"]["currentRevision"]
    });
    assert_eq!(colours(), "red red red");
    let patch = |partition: u32| {
        let spec = json!({"spec": {"updateStrategy": rolling(partition)}});
        t.kubectl(&["patch", "statefulset", "db", "-p", &spec.to_string()]);
    };
    patch(2);
    t.until(&["statefulset", "db"], "to have one new pod", |set| set["status"]["updatedReplicas"] == 1);
    t.until_ready("app=db", 3);
    assert_eq!(colours(), "red red blue");
    // Pods that are deleted come back as what their number has to be.
    t.kubectl(&["delete", "pods", "db-0", "db-2"]);
    t.until_ready("app=db", 3);
    assert_eq!(colours(), "red red blue");
    patch(0);
    t.until(&["statefulset", "db"], "to be all new", |set| set["status"]["updatedReplicas"] == 3);
    t.until_ready("app=db", 3);
    assert_eq!(colours(), "blue blue blue");
}

fn what_failed_comes_again(t: &Trial) {
    // A pod of somebody else has the port that the set's pod wants.
    let ports = json!({"ports": [{"containerPort": 21017, "hostPort": 21017}]});
    let node = json!({"nodeName": "node-1"});
    t.ready(&sh("exec busybox sleep 1000000").named("first").with(ports.clone()).spec(node.clone()));
    t.create(&set(&sh("exec busybox sleep 1000000").with(ports).spec(node), json!({"replicas": 1})));
    t.until(&["events", "--field-selector=involvedObject.name=db-0"], "to tell of a refusal", |list| {
        list.to_string().contains("NodePorts")
    });
    t.kubectl(&["delete", "pod", "first"]);
    t.until_ready("app=db", 1);
}

fn scaled_by_its_subresource(t: &Trial) {
    t.create(&set(&checked(), json!({"replicas": 1})));
    t.until_ready("app=db", 1);
    let path = format!("/apis/apps/v1/namespaces/{}/statefulsets/db/scale", t.ns);
    let scale: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &path])).expect("a scale");
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&"Scale".into(), &1.into()));
    t.kubectl(&["patch", "statefulset", "db", "--subresource=scale", "--type=merge", "-p", r#"{"spec":{"replicas":2}}"#]);
    assert_eq!(t.get(&["statefulset", "db"])["spec"]["replicas"], 2);
    t.until_ready("app=db", 2);
}
