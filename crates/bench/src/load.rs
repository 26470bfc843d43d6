//! The loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::connection::Connection;
use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str) -> Bytes {
    let payload = "x".repeat(900);
    format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\"}},\"data\":{{\"payload\":\"{payload}\"}}}}").into()
}

/// Runs `total` requests over `clients` connections; gives how many a second.
pub async fn spread<F>(server: &Server, clients: usize, total: usize, request: F) -> Outcome<f64>
where
    F: Fn(usize) -> (Method, String, Bytes, StatusCode) + Send + Sync + 'static,
{
    let request = Arc::new(request);
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(server).await?);
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let (request, next) = (request.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= total {
                    return Ok(());
                }
                let (method, path, body, want) = request(i);
                connection.call(method, &path, body, want).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        let done: Outcome<()> = done?;
        done?;
    }
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}

/// How long `count` took at this many a second.
pub fn seconds(count: usize, rate: f64) -> f64 {
    count as f64 / rate
}

pub async fn creates(server: &Server, clients: usize, total: usize) -> Outcome<f64> {
    spread(server, clients, total, |i| {
        (Method::POST, MAPS.to_owned(), config_map(&format!("m{i:06}")), StatusCode::CREATED)
    })
    .await
}

pub async fn gets(server: &Server, clients: usize, total: usize) -> Outcome<f64> {
    spread(server, clients, total, |i| {
        (Method::GET, format!("{MAPS}/m{:06}", i % 1000), Bytes::new(), StatusCode::OK)
    })
    .await
}

/// Lists of 5,000 objects a second, and their size in bytes.
pub async fn lists(server: &Server, clients: usize, total: usize) -> Outcome<(f64, usize)> {
    let namespace = "/api/v1/namespaces/kube-public/configmaps";
    spread(server, clients, 5_000, move |i| {
        (Method::POST, namespace.to_owned(), config_map(&format!("l{i:06}")), StatusCode::CREATED)
    })
    .await?;
    let mut one = Connection::open(server).await?;
    let size = one.call(Method::GET, namespace, Bytes::new(), StatusCode::OK).await?;
    let rate = spread(server, clients, total, move |_| {
        (Method::GET, namespace.to_owned(), Bytes::new(), StatusCode::OK)
    })
    .await?;
    Ok((rate, size))
}

/// Events delivered a second when `changes` objects are made before the eyes of `watchers`.
pub async fn watch_fan_out(server: &Server, watchers: usize, changes: usize) -> Outcome<f64> {
    let namespace = "/api/v1/namespaces/kube-system/configmaps";
    let watch = format!("{namespace}?watch=1&resourceVersion=");
    let mut one = Connection::open(server).await?;
    let list = one.send(Method::GET, &format!("{namespace}?limit=1"), Bytes::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&list.collect().await?.to_bytes())?;
    let path = format!("{watch}{}", list["metadata"]["resourceVersion"].as_str().unwrap_or_default());
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut connection = Connection::open(server).await?;
        let mut response = connection.send(Method::GET, &path, Bytes::new()).await?;
        tasks.spawn(async move {
            let _connection = connection;
            let mut seen = 0;
            while seen < changes {
                let Some(Ok(frame)) = response.frame().await else { break };
                seen += frame.data_ref().map_or(0, |d| d.iter().filter(|b| **b == b'\n').count());
            }
            seen
        });
    }
    let begun = Instant::now();
    spread(server, 8, changes, move |i| {
        (Method::POST, namespace.to_owned(), config_map(&format!("w{i:06}")), StatusCode::CREATED)
    })
    .await?;
    let mut seen = 0;
    while let Some(done) = tasks.join_next().await {
        seen += done?;
    }
    Ok(seen as f64 / begun.elapsed().as_secs_f64())
}
