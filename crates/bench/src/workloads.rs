//! Workloads on one node: from the request to the state that was asked for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::report::{show, show_time};
use crate::server::Server;
use crate::watch::{Object, Watch};
use crate::{Outcome, idle_cpu, pods};

const APPS: &str = "/apis/apps/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REPLICAS: usize = 100;
const IN_ORDER: usize = 10;
const MANY: usize = 1_000;

pub async fn run(server: &Server) -> Outcome<()> {
    let took = created(server, "deployments", "web", REPLICAS).await?;
    show_time(&format!("Deployment of {REPLICAS} → complete"), took, "≤ 2500");
    show(&format!("idle CPU with {REPLICAS} idle pods"), idle_cpu(server).await?, "%", "≤ 1");
    let took = rolled_out(server, "web").await?;
    show_time(&format!("rolling update of {REPLICAS} → complete"), took, "≤ 6000");
    delete(server, "deployments", "web", REPLICAS).await?;

    let took = created(server, "statefulsets", "db", IN_ORDER).await?;
    show_time(&format!("StatefulSet of {IN_ORDER}, in order → complete"), took, "≤ 1500");
    delete(server, "statefulsets", "db", IN_ORDER).await?;

    let before = server.memory()?.shared;
    let took = created(server, "deployments", "many", MANY).await?;
    show_time(&format!("Deployment of {MANY} → complete"), took, "≤ 15000");
    let each = (server.memory()?.shared - before) / MANY as f64;
    show("PSS of Gantry's processes, each of these pods", each, "MB", "≤ 2");
    let begun = Instant::now();
    delete(server, "deployments", "many", MANY).await?;
    show_time(&format!("{MANY} pods deleted → gone"), begun.elapsed(), "");
    Ok(())
}

fn complete(object: &Object, replicas: usize) -> bool {
    let status = &object.status;
    status.observed_generation >= object.metadata.generation
        && [status.replicas, status.updated_replicas, status.available_replicas] == [replicas; 3]
}

/// Makes a workload, and waits until its status says that it is complete.
async fn created(server: &Server, resource: &str, name: &str, replicas: usize) -> Outcome<Duration> {
    let path = format!("{APPS}/{resource}");
    let mut watch = Watch::open(server, &path).await?;
    let mut connection = Connection::open(server).await?;
    let body = workload(resource, name, replicas).to_string().into();
    let begun = Instant::now();
    connection.call(Method::POST, &path, body, StatusCode::CREATED).await?;
    watch.until(1, |event| event.object.metadata.name == name && complete(&event.object, replicas)).await?;
    Ok(begun.elapsed())
}

/// Changes a Deployment's template, and waits until its status says that all have it.
async fn rolled_out(server: &Server, name: &str) -> Outcome<Duration> {
    let path = format!("{APPS}/deployments");
    let mut watch = Watch::open(server, &path).await?;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"second": "yes"}}}}});
    let begun = Instant::now();
    let mut connection = Connection::open(server).await?;
    let one = format!("{path}/{name}");
    connection.call(Method::PATCH, &one, patch.to_string().into(), StatusCode::OK).await?;
    // The first event is what is there already.
    let second = |object: &Object| object.metadata.generation > 1 && complete(object, REPLICAS);
    watch.until(1, |event| second(&event.object)).await?;
    Ok(begun.elapsed())
}

async fn delete(server: &Server, resource: &str, name: &str, replicas: usize) -> Outcome<()> {
    let mut watch = Watch::open(server, PODS).await?;
    let mut connection = Connection::open(server).await?;
    let path = format!("{APPS}/{resource}/{name}");
    connection.call(Method::DELETE, &path, Bytes::new(), StatusCode::OK).await?;
    watch.until(replicas, |event| event.kind == "DELETED").await
}

fn workload(resource: &str, name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    let kind = if resource == "deployments" { "Deployment" } else { "StatefulSet" };
    let mut spec = json!({
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pods::spec()},
    });
    if kind == "StatefulSet" {
        spec["serviceName"] = name.into();
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
