//! ResourceQuotas and LimitRanges.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    a_quotas_life: "ResourceQuota, update and delete";
    quotas_count_themselves: "ResourceQuota, object count quota, resourcequotas";
    config_maps_count: "ResourceQuota, object count quota, configmap";
    secrets_count: "ResourceQuota, object count quota, secret";
    services_count: "ResourceQuota, object count quota, service";
    replica_sets_count: "ResourceQuota, object count quota, replicaSet";
    replication_controllers_count: "ResourceQuota, object count quota, replicationController";
    pods_count: "ResourceQuota, object count quota, pod";
    best_effort_or_not: "ResourceQuota, quota scope, BestEffort and NotBestEffort scope";
    for_a_time_or_not: "ResourceQuota, quota scope, Terminating and NotTerminating scope";
    limits_are_filled_in_and_held: "LimitRange, resources";
];

fn quota(name: &str, hard: Value, scopes: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name},
           "spec": {"hard": hard, "scopes": scopes}})
}

/// Waits until a quota says that so much is used.
fn used(t: &Trial, quota: &str, wanted: Value) {
    t.until(&["quota", quota], &format!("to have {wanted} used"), |quota| {
        let all = wanted.as_object().expect("an object");
        all.iter().all(|(name, amount)| quota["status"]["used"][name] == *amount)
    });
}

fn a_quotas_life(t: &Trial) {
    t.create(&[quota("q", json!({"cpu": "1", "memory": "500Mi"}), json!([]))]);
    assert_eq!(t.get(&["quota", "q"])["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    t.kubectl(&["patch", "quota", "q", "-p", r#"{"spec":{"hard":{"cpu":"2","memory":"1Gi"}}}"#]);
    assert_eq!(t.get(&["quota", "q"])["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    t.until(&["quota", "q"], "to be counted", |q| q["status"]["hard"] == json!({"cpu": "2", "memory": "1Gi"}));
    t.kubectl(&["delete", "quota", "q"]);
    t.until_gone(&["quota", "q"]);
}

fn quotas_count_themselves(t: &Trial) {
    t.create(&[quota("q", json!({"resourcequotas": "1", "pods": "5"}), json!([]))]);
    used(t, "q", json!({"resourcequotas": "1", "pods": "0"}));
    let refused = t.submit("create", &[quota("another", json!({"pods": "1"}), json!([]))]);
    assert!(!refused.ok && refused.err.contains("exceeded quota"), "{refused:?}");
}

/// One object of a kind is counted, a second one refused, and what is deleted is given back.
fn counted(t: &Trial, resource: &str, already: u32, object: &dyn Fn(&str) -> Value) {
    let hard = json!({resource: (already + 1).to_string()});
    t.create(&[quota("q", hard, json!([]))]);
    used(t, "q", json!({resource: already.to_string()}));
    t.create(&[object("one")]);
    used(t, "q", json!({resource: (already + 1).to_string()}));
    let refused = t.submit("create", &[object("two")]);
    assert!(!refused.ok && refused.err.contains("exceeded quota: q"), "{refused:?}");
    let kind = object("one")["kind"].as_str().expect("a kind").to_owned();
    t.kubectl(&["delete", &kind, "one"]);
    used(t, "q", json!({resource: already.to_string()}));
    t.create(&[object("two")]);
}

fn config_maps_count(t: &Trial) {
    // The authority's certificate is there already.
    t.until(&["configmap", "kube-root-ca.crt"], "to be there", Value::is_object);
    counted(t, "configmaps", 1, &|name| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    });
}

fn secrets_count(t: &Trial) {
    counted(t, "secrets", 0, &|name| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}));
}

fn services_count(t: &Trial) {
    counted(t, "services", 0, &|name| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
               "spec": {"ports": [{"port": 80}]}})
    });
    // Ports of the node are counted as well.
    t.create(&[quota("ports", json!({"services.nodeports": "1"}), json!([]))]);
    used(t, "ports", json!({"services.nodeports": "0"}));
    t.kubectl(&["patch", "service", "two", "-p", r#"{"spec":{"type":"NodePort"}}"#]);
    used(t, "ports", json!({"services.nodeports": "1"}));
}

fn replica_sets_count(t: &Trial) {
    counted(t, "count/replicasets.apps", 0, &|name| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": sleeps().template(name)}})
    });
}

fn replication_controllers_count(t: &Trial) {
    counted(t, "replicationcontrollers", 0, &|name| {
        json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name}, "spec": {
            "replicas": 0, "selector": {"app": name}, "template": sleeps().template(name)}})
    });
}

fn sized(name: &str, cpu: &str, memory: &str) -> PodShape {
    let sizes = json!({"cpu": cpu, "memory": memory});
    sleeps().named(name).with(json!({"resources": {"requests": sizes, "limits": sizes}}))
}

fn pods_count(t: &Trial) {
    t.create(&[quota("q", json!({"pods": "5", "cpu": "1", "memory": "500Mi"}), json!([]))]);
    used(t, "q", json!({"pods": "0", "cpu": "0", "memory": "0"}));
    t.create(&[sized("p", "500m", "252Mi").object()]);
    used(t, "q", json!({"pods": "1", "cpu": "500m", "memory": "252Mi"}));
    let refused = t.submit("create", &[sized("large", "600m", "100Mi").object()]);
    assert!(!refused.ok && refused.err.contains("exceeded quota: q, requested: cpu=600m"), "{refused:?}");
    let refused = t.submit("create", &[sleeps().named("unsized").object()]);
    assert!(!refused.ok && refused.err.contains("must specify cpu"), "{refused:?}");
    t.kubectl(&["label", "pod", "p", "changed=yes"]);
    used(t, "q", json!({"pods": "1", "cpu": "500m", "memory": "252Mi"}));
    t.kubectl(&["delete", "pod", "p"]);
    used(t, "q", json!({"pods": "0", "cpu": "0", "memory": "0"}));
}

/// Each pod counts for one of two quotas.
fn scoped(t: &Trial, scopes: [&str; 2], pods: [PodShape; 2]) {
    let both: Vec<Value> = scopes
        .iter()
        .map(|scope| quota(&scope.to_lowercase(), json!({"pods": "5"}), json!([scope])))
        .collect();
    t.create(&both);
    let says = |index: usize, count: &str| used(t, &scopes[index].to_lowercase(), json!({"pods": count}));
    says(0, "0");
    says(1, "0");
    for (own, pod) in pods.into_iter().enumerate() {
        t.create(&[pod.named("p").object()]);
        says(own, "1");
        says(1 - own, "0");
        t.kubectl(&["delete", "pod", "p"]);
        says(own, "0");
    }
}

fn best_effort_or_not(t: &Trial) {
    scoped(t, ["BestEffort", "NotBestEffort"], [sleeps(), sized("p", "10m", "10Mi")]);
}

fn for_a_time_or_not(t: &Trial) {
    let timed = sized("p", "10m", "10Mi").spec(json!({"activeDeadlineSeconds": 3600}));
    scoped(t, ["Terminating", "NotTerminating"], [timed, sized("p", "10m", "10Mi")]);
}

fn limits_are_filled_in_and_held(t: &Trial) {
    let item = json!({
        "type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
        "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
    });
    t.create(&[json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [item]}})]);
    let resources = |pod: &str| t.get(&["pod", pod])["spec"]["containers"][0]["resources"].clone();
    t.create(&[sleeps().named("none").object()]);
    assert_eq!(
        resources("none"),
        json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}})
    );
    let some = json!({"resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "300Mi"}}});
    t.create(&[sleeps().named("some").with(some).object()]);
    assert_eq!(
        resources("some"),
        json!({"requests": {"cpu": "50m", "memory": "300Mi"}, "limits": {"cpu": "500m", "memory": "300Mi"}})
    );
    for (name, cpu, says) in [("small", "10m", "minimum cpu usage"), ("large", "600m", "maximum cpu usage")] {
        let refused = t.submit("create", &[sized(name, cpu, "200Mi").object()]);
        assert!(!refused.ok && refused.err.contains(says), "{refused:?}");
    }
    t.kubectl(&["patch", "limitrange", "l", "-p", r#"{"spec":{"limits":[{"type":"Container","min":{"cpu":"9m"}}]}}"#]);
    t.wait_for("the new limit to hold", || t.submit("create", &[sized("small", "10m", "200Mi").object()]).ok);
    t.kubectl(&["delete", "limitrange", "l"]);
    t.wait_for("no limit to hold", || t.submit("create", &[sized("large", "600m", "600Mi").object()]).ok);
}
