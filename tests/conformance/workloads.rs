//! Deployments, ReplicaSets, ReplicationControllers, DaemonSets.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, count, is, serves, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    a_deployment_rolls: "Deployment RollingUpdate";
    a_deployment_recreates: "Deployment Recreate";
    a_deployment_forgets: "Deployment RevisionHistoryLimit";
    a_deployment_rolls_over: "Deployment Rollover";
    a_deployment_scales_in_proportion: "Deployment Proportional Scaling";
    a_deployments_life: "Deployment, completes the lifecycle of a Deployment";
    a_replica_set_serves: "Replica Set, run basic image";
    a_replica_set_adopts_and_releases: "Replica Set, adopt matching pods and release non matching pods";
    a_replication_controller_serves: "Replication Controller, run basic image";
    a_replication_controller_adopts: "Replication Controller, adopt matching pods";
    a_replication_controller_releases: "Replication Controller, release pods";
    a_replication_controller_meets_a_quota: "Replication Controller, check for issues like exceeding allocated quota";
    a_replication_controllers_life: "Replication Controller, lifecycle";
    a_daemon_set_is_everywhere: "DaemonSet-Creation", "DaemonSet-FailedPodCreation";
    a_daemon_set_rolls_and_is_undone: "DaemonSet-RollingUpdate", "DaemonSet-Rollback";
    a_daemon_set_picks_nodes: "DaemonSet-NodeSelection";
];

fn workload(kind: &str, name: &str, pod: &PodShape, more: Value) -> Value {
    let (version, selector) = match kind {
        "ReplicationController" => ("v1", json!({"app": name})),
        _ => ("apps/v1", json!({"matchLabels": {"app": name}})),
    };
    let mut spec = json!({"selector": selector, "template": pod.template(name)});
    crate::trial::merge(&mut spec, more);
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn deployment(name: &str, pod: &PodShape, more: Value) -> Value {
    workload("Deployment", name, pod, more)
}

fn rolled_out(t: &Trial, what: &str) {
    t.kubectl(&["rollout", "status", what, "--timeout=90s"]);
}

fn coloured(pod: PodShape, colour: &str) -> PodShape {
    pod.with(json!({"env": [{"name": "COLOUR", "value": colour}]}))
}

fn a_deployment_rolls(t: &Trial) {
    // A ReplicaSet that is there already is adopted, and becomes the old one.
    let old = workload("ReplicaSet", "web", &coloured(sleeps(), "red"), json!({"replicas": 1}));
    t.create(&[old]);
    t.until_ready("app=web", 1);
    t.create(&[deployment("web", &coloured(sleeps(), "blue"), json!({"replicas": 1}))]);
    rolled_out(t, "deployment/web");
    t.until(&["replicasets", "-l", "app=web"], "to be two, the old one empty", |list| {
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let size = |name: &dyn Fn(&str) -> bool| {
            all.iter().find(|set| set["metadata"]["name"].as_str().is_some_and(name)).map(|set| set["spec"]["replicas"].clone())
        };
        all.len() == 2 && size(&|n| n == "web") == Some(0.into()) && size(&|n| n != "web") == Some(1.into())
    });
}

fn a_deployment_recreates(t: &Trial) {
    let shape = |colour| {
        deployment("web", &coloured(sleeps(), colour), json!({"replicas": 1, "strategy": {"type": "Recreate"}}))
    };
    t.create(&[shape("red")]);
    rolled_out(t, "deployment/web");
    let watch = t.start(&["get", "pods", "-w", "--output-watch-events", "-o",
        "jsonpath={.type} {.object.spec.containers[0].env[0].value} {.object.status.phase}{\"\\n\"}"]);
    watch.until(|told| told.contains("red Running"));
    t.apply(&[shape("blue")]);
    rolled_out(t, "deployment/web");
    let told = watch.until(|told| told.contains("blue Running"));
    let gone = told.find("DELETED red").expect("the old pod goes");
    assert!(gone < told.find("blue").expect("a new pod"), "never both: {told}");
}

fn a_deployment_forgets(t: &Trial) {
    let shape = |n: usize| {
        deployment("web", &coloured(sleeps(), &n.to_string()), json!({"replicas": 1, "revisionHistoryLimit": 0}))
    };
    t.create(&[shape(0)]);
    rolled_out(t, "deployment/web");
    t.apply(&[shape(1)]);
    rolled_out(t, "deployment/web");
    t.until(&["replicasets"], "to be one", |list| count(list) == 1);
}

fn a_deployment_rolls_over(t: &Trial) {
    let shape = |pod: &PodShape| {
        let rolling = json!({"maxSurge": 1, "maxUnavailable": 0});
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
        deployment("web", pod, json!({"replicas": 2, "strategy": strategy, "minReadySeconds": 0}))
    };
    t.create(&[shape(&coloured(sleeps(), "red"))]);
    rolled_out(t, "deployment/web");
    // The second version never gets anywhere; the third one comes before it has.
    t.apply(&[shape(&sleeps().with(json!({"image": "nowhere.invalid/none:1"})))]);
    t.until(&["replicasets"], "to be two", |list| count(list) == 2);
    t.apply(&[shape(&coloured(sleeps(), "blue"))]);
    rolled_out(t, "deployment/web");
    t.until(&["replicasets"], "to have one that is not empty", |list| {
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.len() == 3 && all.iter().filter(|set| set["spec"]["replicas"] != 0).count() == 1
    });
    let colours = t.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].env[0].value}"]);
    assert!(colours.contains("blue"), "{colours}");
}

fn a_deployment_scales_in_proportion(t: &Trial) {
    let shape = |pod: &PodShape| {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
        deployment("web", pod, json!({"replicas": 10, "strategy": strategy}))
    };
    t.create(&[shape(&sleeps())]);
    rolled_out(t, "deployment/web");
    t.apply(&[shape(&sleeps().with(json!({"image": "nowhere.invalid/none:1"})))]);
    let sizes = |list: &Value| {
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let mut sizes: Vec<i64> = all.iter().filter_map(|set| set["spec"]["replicas"].as_i64()).collect();
        sizes.sort_unstable();
        sizes
    };
    // The first set is as small as it may be, the second as large.
    t.until(&["replicasets"], "to be 5 and 8", |list| sizes(list) == [5, 8]);
    t.kubectl(&["scale", "deployment/web", "--replicas=30"]);
    // 20 more: 30 + 3 in all, shared in proportion.
    t.until(&["replicasets"], "to be 13 and 20", |list| sizes(list) == [13, 20]);
    t.kubectl(&["delete", "deployment", "web"]);
}

fn a_deployments_life(t: &Trial) {
    t.create(&[deployment("web", &sleeps(), json!({"replicas": 1}))]);
    rolled_out(t, "deployment/web");
    let patch = json!({"metadata": {"labels": {"test": "patched"}}, "spec": {"replicas": 2}});
    t.kubectl(&["patch", "deployment", "web", "-p", &patch.to_string()]);
    t.until(&["deployment", "web"], "to have two", |d| d["status"]["readyReplicas"] == 2);
    t.kubectl(&["scale", "deployment/web", "--replicas=1"]);
    t.until(&["deployment", "web"], "to have one", |d| d["status"]["replicas"] == 1);
    let status = json!({"status": {"conditions": [{"type": "Mine", "status": "True"}]}});
    t.kubectl(&["patch", "deployment", "web", "--subresource=status", "--type=merge", "-p", &status.to_string()]);
    t.until(&["deployment", "web"], "to be available again", |d| is(d, "Available"));
    let path = format!("/apis/apps/v1/namespaces/{}/deployments?labelSelector=test%3Dpatched", t.ns);
    t.kubectl(&["delete", "--raw", &path]);
    t.until(&["deployments,pods"], "to be gone", |list| count(list) == 0);
}

/// Each pod answers with its name.
fn all_serve(t: &Trial, kind: &str) {
    t.create(&[workload(kind, "web", &serves("p"), json!({"replicas": 2}))]);
    let pods = t.until_ready("app=web", 2);
    for pod in pods["items"].as_array().expect("a list") {
        let (name, address) = (&pod["metadata"]["name"], &pod["status"]["podIP"]);
        let url = format!("http://{}:8080/", address.as_str().expect("an address"));
        t.wait_for("a pod to say its name", || t.fetch(&url).trim() == name.as_str().expect("a name"));
    }
}

fn a_replica_set_serves(t: &Trial) {
    all_serve(t, "ReplicaSet");
}

fn a_replication_controller_serves(t: &Trial) {
    all_serve(t, "ReplicationController");
}

fn adopts(t: &Trial, kind: &str) {
    t.ready(&sleeps().meta(json!({"labels": {"app": "web"}})));
    t.create(&[workload(kind, "web", &sleeps(), json!({"replicas": 1}))]);
    let owned = |pod: &Value| pod["metadata"]["ownerReferences"][0]["name"] == "web";
    t.until(&["pod", "p"], "to be adopted", owned);
    assert_eq!(t.names("pods", "app=web"), ["p"], "no other was made");
}

fn releases(t: &Trial, kind: &str) {
    t.create(&[workload(kind, "web", &sleeps(), json!({"replicas": 1}))]);
    t.until_ready("app=web", 1);
    let pod = t.names("pods", "app=web").remove(0);
    t.kubectl(&["label", "--overwrite", "pod", &pod, "app=other"]);
    t.until(&["pod", &pod], "to be released", |pod| pod["metadata"]["ownerReferences"].is_null());
    t.until_ready("app=web", 1);
}

fn a_replica_set_adopts_and_releases(t: &Trial) {
    adopts(t, "ReplicaSet");
    t.kubectl(&["label", "--overwrite", "pod", "p", "app=other"]);
    t.until(&["pod", "p"], "to be released", |pod| pod["metadata"]["ownerReferences"].is_null());
    t.until_ready("app=web", 1);
}

fn a_replication_controller_adopts(t: &Trial) {
    adopts(t, "ReplicationController");
}

fn a_replication_controller_releases(t: &Trial) {
    releases(t, "ReplicationController");
}

fn a_replication_controller_meets_a_quota(t: &Trial) {
    t.kubectl(&["create", "quota", "two", "--hard=pods=2"]);
    t.until(&["quota", "two"], "to be counted", |quota| quota["status"]["hard"]["pods"] == "2");
    t.create(&[workload("ReplicationController", "web", &sleeps(), json!({"replicas": 3}))]);
    let failed = t.until(&["rc", "web"], "to say that it failed", |rc| is(rc, "ReplicaFailure"));
    let conditions = failed["status"]["conditions"].to_string();
    assert!(conditions.contains("exceeded quota"), "{conditions}");
    t.kubectl(&["scale", "rc/web", "--replicas=2"]);
    t.until(&["rc", "web"], "to be well again", |rc| !is(rc, "ReplicaFailure"));
}

fn a_replication_controllers_life(t: &Trial) {
    t.create(&[workload("ReplicationController", "web", &sleeps(), json!({"replicas": 1}))]);
    t.until(&["rc", "web"], "to be ready", |rc| rc["status"]["readyReplicas"] == 1);
    t.kubectl(&["patch", "rc", "web", "-p", r#"{"metadata":{"labels":{"test":"patched"}}}"#]);
    t.kubectl(&["patch", "rc", "web", "--subresource=scale", "--type=merge", "-p", r#"{"spec":{"replicas":2}}"#]);
    t.until(&["rc", "web"], "to have two", |rc| rc["status"]["availableReplicas"] == 2);
    let path = format!("/api/v1/namespaces/{}/replicationcontrollers?labelSelector=test%3Dpatched", t.ns);
    t.kubectl(&["delete", "--raw", &path]);
    t.until_gone(&["rc", "web"]);
}

fn a_daemon_set_is_everywhere(t: &Trial) {
    t.create(&[workload("DaemonSet", "agent", &sleeps(), json!({}))]);
    rolled_out(t, "daemonset/agent");
    let first = t.names("pods", "app=agent").remove(0);
    t.kubectl(&["delete", "pod", &first]);
    t.until_ready("app=agent", 1);
    // A pod that is said to have failed is replaced.
    let second = t.names("pods", "app=agent").remove(0);
    let failed = r#"{"status":{"phase":"Failed","reason":"ByHand"}}"#;
    t.kubectl(&["patch", "pod", &second, "--subresource=status", "-p", failed]);
    t.until(&["pods", "-l", "app=agent"], "to be another one", |list| {
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.len() == 1 && all[0]["metadata"]["name"] != *second && is(&all[0], "Ready")
    });
}

fn a_daemon_set_rolls_and_is_undone(t: &Trial) {
    let shape = |pod: &PodShape| workload("DaemonSet", "agent", pod, json!({}));
    t.create(&[shape(&coloured(sleeps(), "red"))]);
    rolled_out(t, "daemonset/agent");
    t.apply(&[shape(&coloured(sleeps(), "blue"))]);
    rolled_out(t, "daemonset/agent");
    let colour = || t.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].env[0].value}"]);
    assert_eq!(colour(), "blue");
    let restarts = "jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    // The third version cannot start; going back leaves the second's pods where they still run.
    t.apply(&[shape(&sleeps().with(json!({"image": "nowhere.invalid/none:1"})))]);
    t.kubectl(&["rollout", "undo", "daemonset/agent"]);
    rolled_out(t, "daemonset/agent");
    t.wait_for("the second version again", || colour() == "blue");
    assert_eq!(t.kubectl(&["get", "pods", "-o", restarts]), "0");
    let revisions = t.get(&["controllerrevisions"]);
    assert_eq!(count(&revisions), 3, "{revisions}");
}

fn a_daemon_set_picks_nodes(t: &Trial) {
    let label = "e2e.daemon/colour";
    let picky = sleeps().spec(json!({"nodeSelector": {label: "blue"}}));
    t.create(&[workload("DaemonSet", "agent", &picky, json!({}))]);
    t.until(&["daemonset", "agent"], "to have looked", |ds| {
        ds["status"]["observedGeneration"] == 1 && ds["status"]["desiredNumberScheduled"] == 0
    });
    assert!(t.names("pods", "app=agent").is_empty());
    t.kubectl(&["label", "node", "node-1", &format!("{label}=blue")]);
    t.until_ready("app=agent", 1);
    t.kubectl(&["label", "--overwrite", "node", "node-1", &format!("{label}=green")]);
    t.until(&["pods", "-l", "app=agent"], "to be gone", |list| count(list) == 0);
    let green = json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}, "template": {"spec": {"nodeSelector": {label: "green"}}}}});
    t.kubectl(&["patch", "daemonset", "agent", "-p", &green.to_string()]);
    t.until_ready("app=agent", 1);
    t.kubectl(&["delete", "daemonset", "agent"]);
    t.kubectl(&["label", "node", "node-1", &format!("{label}-")]);
}
