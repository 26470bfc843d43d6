//! A big cluster, as objects: what it takes to hold, to list and to start with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::connection::Connection;
use crate::load::spread;
use crate::report::{quantile, show, show_time};
use crate::schedule::node;
use crate::server::Server;
use crate::watch::Watch;

const NODES: usize = 5_000;
const NAMESPACES: usize = 100;
const PODS: usize = 150_000;
/// Until a server that has just started has read all it reads.
const SETTLED: Duration = Duration::from_secs(20);

/// Fills a cluster with pods that are bound to nodes whose Leases somebody renews, looks at it, and starts it again.
pub async fn run(server: Server, clients: usize) -> Outcome<()> {
    server.default_account().await?;
    spread(&server, clients, NAMESPACES, |i| {
        let body = json!({"metadata": {"name": namespace(i)}});
        (Method::POST, "/api/v1/namespaces".to_owned(), body.to_string().into(), StatusCode::CREATED)
    })
    .await?;
    spread(&server, clients, NODES, |i| {
        (Method::POST, "/api/v1/nodes".to_owned(), node(i), StatusCode::CREATED)
    })
    .await?;
    spread(&server, clients, NODES, |i| (Method::POST, LEASES.to_owned(), lease(i), StatusCode::CREATED))
        .await?;
    let renewals = Renewals::start(&server).await?;
    let made = spread(&server, clients, PODS, |i| {
        let path = format!("/api/v1/namespaces/{}/pods", namespace(i % NAMESPACES));
        (Method::POST, path, pod(i), StatusCode::CREATED)
    })
    .await?;
    show(&format!("creates of {PODS} bound pods"), made, "/s", "");
    tokio::time::sleep(SETTLED).await;
    look(&server).await?;
    show("RSS with all of them", server.memory()?.resident, "MB", "≤ 1500");
    renewals.stop().await;
    let server = server.restart().await?;
    show_time("start → API ready with all of them", server.started_in, "≤ 3000");
    let renewals = Renewals::start(&server).await?;
    tokio::time::sleep(SETTLED).await;
    show("RSS after that", server.memory()?.resident, "MB", "≤ 1500");
    renewals.stop().await;
    Ok(())
}

async fn look(server: &Server) -> Outcome<()> {
    let mut one = Connection::open(server).await?;
    let timed = async |one: &mut Connection, path: &str, times: usize| -> Outcome<(Duration, usize)> {
        let (mut took, mut size) = (Vec::new(), 0);
        for _ in 0..times {
            let begun = Instant::now();
            size = one.call(Method::GET, path, Bytes::new(), StatusCode::OK).await?;
            took.push(begun.elapsed());
        }
        Ok((quantile(&mut took, 0.5), size))
    };
    let (took, size) = timed(&mut one, "/api/v1/pods?limit=500", 20).await?;
    show_time(&format!("a page of 500 pods ({:.1} MB)", size as f64 / 1e6), took, "");
    let (took, size) = timed(&mut one, &format!("/api/v1/namespaces/{}/pods", namespace(0)), 20).await?;
    show_time(
        &format!("the {} pods of a namespace ({:.1} MB)", PODS / NAMESPACES, size as f64 / 1e6),
        took,
        "",
    );
    let (took, _) = timed(&mut one, "/api/v1/pods?fieldSelector=spec.nodeName=node-0007", 20).await?;
    show_time(&format!("the {} pods of a node", PODS / NODES), took, "");
    let (took, size) = timed(&mut one, "/api/v1/pods", 1).await?;
    show_time(&format!("all pods ({:.0} MB)", size as f64 / 1e6), took, "");
    let mut watch = Watch::open(server, "/api/v1/namespaces/default/configmaps").await?;
    let mut took = Vec::new();
    for i in 0..200 {
        let body = json!({"metadata": {"name": format!("w{i}")}}).to_string();
        let begun = Instant::now();
        let path = "/api/v1/namespaces/default/configmaps";
        one.call(Method::POST, path, body.into(), StatusCode::CREATED).await?;
        while watch.next().await?.object.metadata.name != format!("w{i}") {}
        took.push(begun.elapsed());
    }
    show_time("a change, from its request to a watcher", quantile(&mut took, 0.5), "");
    show_time("  p99", quantile(&mut took, 0.99), "");
    Ok(())
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

fn namespace(i: usize) -> String {
    format!("team-{i:03}")
}

fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    jiff::Timestamp::from_microsecond(since.as_micros() as i64).unwrap_or_default().to_string()
}

fn lease(i: usize) -> Bytes {
    let name = format!("node-{i:04}");
    json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()}})
        .to_string()
        .into()
}

/// What the agents of all nodes do: each renews its Lease every ten seconds.
struct Renewals {
    ends: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// Agents do not wait for each other; so many connections are enough that nobody is late.
const RENEWERS: usize = 20;

impl Renewals {
    async fn start(server: &Server) -> Outcome<Self> {
        let (ends, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for first in 0..RENEWERS {
            let mut connection = Connection::open(server).await?;
            let over = ends.clone();
            tasks.spawn(async move {
                let between = Duration::from_secs(10) * RENEWERS as u32 / NODES as u32;
                let mut ticks = tokio::time::interval(between);
                for i in (first..NODES).step_by(RENEWERS).cycle() {
                    ticks.tick().await;
                    let body = format!("{{\"spec\":{{\"renewTime\":\"{}\"}}}}", now());
                    let path = format!("{LEASES}/node-{i:04}");
                    let renewed = connection.call(Method::PATCH, &path, body.into(), StatusCode::OK).await;
                    if over.load(Ordering::Relaxed) || renewed.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { ends, tasks })
    }

    async fn stop(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

/// A pod as applications have them.
fn pod(i: usize) -> Bytes {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 10});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("app-5d8c7b9f4-{i:06}"), "labels": {
            "app.kubernetes.io/name": "app", "app.kubernetes.io/version": "1.2.3", "pod-template-hash": "5d8c7b9f4",
        }},
        "spec": {
            "nodeName": format!("node-{:04}", i % NODES),
            "containers": [{
                "name": "app", "image": "registry.example/team/app:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "DATABASE", "value": "postgres://db.team.svc.cluster.local/app"},
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
                "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "app"}}],
        },
    })
    .to_string()
    .into()
}
