//! Pods that really run.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::Outcome;
use crate::connection::Connection;
use crate::load::spread;
use crate::report::{quantile, show, show_time};
use crate::server::Server;
use crate::watch::{Event, Watch};

const PODS: &str = "/api/v1/namespaces/default/pods";
pub const IMAGE: &str = "bench:1";
/// One after the other.
const SINGLE: usize = 50;
/// All at once.
const MANY: usize = 100;

pub async fn run(server: &Server, clients: usize) -> Outcome<()> {
    let mut times = one_after_the_other(server).await?;
    show_time("pod created → Running, p50", quantile(&mut times, 0.5), "≤ 60");
    show_time("pod created → Running, p99", quantile(&mut times, 0.99), "≤ 250");
    let memory = server.memory()?;
    let shims = memory.shims.iter().sum::<f64>() / memory.shims.len().max(1) as f64;
    show(&format!("PSS of a shim, {SINGLE} pods running"), shims, "MB", "≤ 1.5");
    show(&format!("PSS of server and shims, {SINGLE} pods"), memory.shared, "MB", "");
    let mut times = deleted_one_after_the_other(server).await?;
    show_time("pod deleted → gone, p50", quantile(&mut times, 0.5), "≤ 60");
    show_time("pod deleted → gone, p99", quantile(&mut times, 0.99), "");
    show_time(&format!("{MANY} pods created → all Running"), at_once(server, clients).await?, "");
    show_time(&format!("{MANY} pods deleted → gone"), delete_all(server, MANY).await?, "");
    Ok(())
}

fn runs(event: &Event) -> bool {
    event.object.status.phase == "Running"
}

async fn one_after_the_other(server: &Server) -> Outcome<Vec<Duration>> {
    let mut watch = Watch::open(server, PODS).await?;
    let mut connection = Connection::open(server).await?;
    let mut times = Vec::new();
    for i in 0..SINGLE {
        let name = format!("single-{i}");
        let begun = Instant::now();
        connection.call(Method::POST, PODS, pod(&name), StatusCode::CREATED).await?;
        watch.until(1, |event| event.object.metadata.name == name && runs(event)).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

async fn deleted_one_after_the_other(server: &Server) -> Outcome<Vec<Duration>> {
    let mut watch = Watch::open(server, PODS).await?;
    let mut connection = Connection::open(server).await?;
    let mut times = Vec::new();
    for i in 0..SINGLE {
        let name = format!("single-{i}");
        let begun = Instant::now();
        connection.call(Method::DELETE, &format!("{PODS}/{name}"), Bytes::new(), StatusCode::OK).await?;
        watch.until(1, |event| event.object.metadata.name == name && event.kind == "DELETED").await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

async fn at_once(server: &Server, clients: usize) -> Outcome<Duration> {
    let mut watch = Watch::open(server, PODS).await?;
    let begun = Instant::now();
    let running = tokio::spawn(async move { watch.until(MANY, runs).await.map(|()| Instant::now()) });
    spread(server, clients, MANY, |i| {
        (Method::POST, PODS.to_owned(), pod(&format!("many-{i}")), StatusCode::CREATED)
    })
    .await?;
    Ok(running.await?? - begun)
}

async fn delete_all(server: &Server, count: usize) -> Outcome<Duration> {
    let mut watch = Watch::open(server, PODS).await?;
    let mut connection = Connection::open(server).await?;
    let begun = Instant::now();
    connection.call(Method::DELETE, PODS, Bytes::new(), StatusCode::OK).await?;
    watch.until(count, |event| event.kind == "DELETED").await?;
    Ok(begun.elapsed())
}

fn pod(name: &str) -> Bytes {
    let metadata = json!({"name": name, "labels": {"app": "bench"}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec()}).to_string().into()
}

/// What each pod runs: the demo's program, which ends when it is told to.
pub fn spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "web", "image": IMAGE,
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            // A thousand of them fit on a machine with a few gigabytes.
            "resources": {"requests": {"memory": "1Mi"}, "limits": {"memory": "32Mi"}},
        }],
    })
}
