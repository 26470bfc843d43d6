//! Pods scheduled a second, on nodes that are objects only.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;

use crate::Outcome;
use crate::load::{seconds, spread};
use crate::report::show;
use crate::server::Server;
use crate::watch::Watch;

const NODES: usize = 1_000;
const PODS: usize = 5_000;

/// From the first creation of a pod to the last binding. Nobody renews the nodes' leases; they count as lost after 50 s
/// only.
pub async fn run(server: &Server, clients: usize) -> Outcome<()> {
    server.default_account().await?;
    spread(server, clients, NODES, |i| {
        (Method::POST, "/api/v1/nodes".to_owned(), node(i), StatusCode::CREATED)
    })
    .await?;
    let path = "/api/v1/namespaces/default/pods";
    let mut watch = Watch::open(server, path).await?;
    let begun = Instant::now();
    let bound = tokio::spawn(async move {
        watch.until(PODS, |event| !event.object.spec.node_name.is_empty()).await.map(|()| Instant::now())
    });
    let created =
        spread(server, clients, PODS, move |i| (Method::POST, path.to_owned(), pod(i), StatusCode::CREATED))
            .await?;
    let took = bound.await?? - begun;
    show(&format!("pods scheduled, {NODES} nodes"), PODS as f64 / took.as_secs_f64(), "/s", "≥ 1000");
    show("  of it: creates of these pods", created, "/s", "");
    show("  of it: from the last create on", (took.as_secs_f64() - seconds(PODS, created)) * 1e3, "ms", "");
    Ok(())
}

/// A Node with room.
pub fn node(i: usize) -> Bytes {
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"});
    let name = format!("node-{i:04}");
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 3),
        }},
        "status": {
            "capacity": room, "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}],
        },
    });
    node.to_string().into()
}

fn pod(i: usize) -> Bytes {
    let container = json!({
        "name": "app", "image": "app:1",
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{i:05}"), "labels": {"app": "bench"}},
        "spec": {"containers": [container]},
    });
    pod.to_string().into()
}
