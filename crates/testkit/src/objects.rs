//! Objects that tests need again and again.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Any object, from JSON.
pub fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of the kind")
}

/// A pod with one container and this label `app`.
pub fn pod(name: &str, app: &str) -> Pod {
    object(json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": template(app)["spec"]}))
}

fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "app:v1"}]},
    })
}

/// A replica set whose name is its pods' label `app`.
pub fn replica_set(name: &str, replicas: i32) -> ReplicaSet {
    object(json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)}}))
}

/// A deployment whose name is its pods' label `app`.
pub fn deployment(name: &str, replicas: i32) -> Deployment {
    object(json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)}}))
}

/// A job whose pods do not start again, and whose spec says this besides.
pub fn job(name: &str, more: Value) -> Job {
    let mut spec = json!({"template": template(name)});
    spec["template"]["spec"]["restartPolicy"] = "Never".into();
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    object(json!({"metadata": {"name": name}, "spec": spec}))
}

/// A node that is ready, with so many cores, GiB of memory and pods.
pub fn node(name: &str, cpu: u32, memory: u32, pods: u32) -> Node {
    let resources = json!({"cpu": cpu.to_string(), "memory": format!("{memory}Gi"), "pods": pods.to_string(),
        "ephemeral-storage": "100Gi"});
    object(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": resources, "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
    }))
}
