//! The loads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::Outcome;
use crate::connection::{Connection, dial};
use crate::report::quantile;
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
    let connections = open(server, clients).await?;
    spread_over(connections, total, Duration::ZERO, request).await
}

async fn open(server: &Server, clients: usize) -> Outcome<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(server).await?);
    }
    Ok(connections)
}

/// The same over connections that are there, each request not before its turn: they are `pace` apart.
async fn spread_over<F>(
    connections: Vec<Connection>,
    total: usize,
    pace: Duration,
    request: F,
) -> Outcome<f64>
where
    F: Fn(usize) -> (Method, String, Bytes, StatusCode) + Send + Sync + 'static,
{
    let request = Arc::new(request);
    let next = Arc::new(AtomicUsize::new(0));
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
                if !pace.is_zero() {
                    tokio::time::sleep_until((begun + pace * i as u32).into()).await;
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

/// Creates a second, of objects numbered from `first` on.
pub async fn creates(server: &Server, clients: usize, first: usize, total: usize) -> Outcome<f64> {
    spread(server, clients, total, move |i| {
        (Method::POST, MAPS.to_owned(), config_map(&format!("m{:06}", first + i)), StatusCode::CREATED)
    })
    .await
}

pub async fn gets(server: &Server, clients: usize, total: usize) -> Outcome<f64> {
    spread(server, clients, total, |i| {
        (Method::GET, format!("{MAPS}/m{:06}", i % 1000), Bytes::new(), StatusCode::OK)
    })
    .await
}

/// Merge patches a second, of 1,000 objects in turn.
pub async fn merge_patches(server: &Server, clients: usize, total: usize) -> Outcome<f64> {
    spread(server, clients, total, |i| {
        let body = format!("{{\"data\":{{\"n\":\"{i}\"}}}}");
        (Method::PATCH, format!("{MAPS}/m{:06}", i % 1000), body.into(), StatusCode::OK)
    })
    .await
}

/// Server-side applies a second, of 1,000 objects in turn.
pub async fn applies(server: &Server, clients: usize, total: usize) -> Outcome<f64> {
    spread(server, clients, total, |i| {
        let name = format!("m{:06}", i % 1000);
        let body = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\"}},\"data\":{{\"applied\":\"{i}\"}}}}"
        );
        let path = format!("{MAPS}/{name}?fieldManager=bench&force=true");
        (Method::PATCH, path, body.into(), StatusCode::OK)
    })
    .await
}

/// Lists of 5,000 objects in protobuf a second; they are there from [`lists`].
pub async fn protobuf_lists(server: &Server, clients: usize, total: usize) -> Outcome<f64> {
    spread(server, clients, total, |_| {
        let path = "/api/v1/namespaces/kube-public/configmaps?protobuf=1";
        (Method::GET, path.to_owned(), Bytes::new(), StatusCode::OK)
    })
    .await
}

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Definitions made and listed for the first time, a second; and objects of one of them made a second.
pub async fn custom(
    server: &Server,
    clients: usize,
    definitions: usize,
    objects: usize,
) -> Outcome<[f64; 2]> {
    let definition = |i: usize| -> Bytes {
        serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("things.g{i}.example")}, "spec": {"group": format!("g{i}.example"),
                "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object", "properties": {
                        "size": {"type": "integer", "minimum": 0}, "text": {"type": "string"}}}}}}}]}})
        .to_string()
        .into()
    };
    let mut one = Connection::open(server).await?;
    let begun = Instant::now();
    for i in 0..definitions {
        one.call(Method::POST, CRDS, definition(i), StatusCode::CREATED).await?;
        let path = format!("/apis/g{i}.example/v1/things");
        one.call(Method::GET, &path, Bytes::new(), StatusCode::OK).await?;
    }
    let made = definitions as f64 / begun.elapsed().as_secs_f64();
    let text = "x".repeat(900);
    let objects = spread(server, clients, objects, move |i| {
        let body = format!(
            "{{\"apiVersion\":\"g0.example/v1\",\"kind\":\"Thing\",\"metadata\":{{\"name\":\"t{i}\"}},\"spec\":{{\"size\":{i},\"text\":\"{text}\"}}}}"
        );
        let path = "/apis/g0.example/v1/namespaces/default/things".to_owned();
        (Method::POST, path, body.into(), StatusCode::CREATED)
    })
    .await?;
    Ok([made, objects])
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

/// Events delivered a second when `changes` objects are made before the eyes of `watchers`, and the time that 99 of 100
/// take from when their object's creation is due until a watcher has them. Creations are due when one of eight writers is
/// free, or `pace` apart from each other, whether a writer is free or not. Each `take` makes objects of its own.
pub async fn watch_fan_out(
    server: &Server,
    watchers: usize,
    changes: usize,
    pace: Duration,
    take: usize,
) -> Outcome<(f64, Duration)> {
    let namespace = "/api/v1/namespaces/kube-system/configmaps";
    let prefix = format!("w{watchers}-{}-{take}-", pace.as_micros());
    let watch = format!("{namespace}?watch=1&resourceVersion=");
    let mut one = Connection::open(server).await?;
    let list = one.send(Method::GET, &format!("{namespace}?limit=1"), Bytes::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&list.collect().await?.to_bytes())?;
    let path = format!("{watch}{}", list["metadata"]["resourceVersion"].as_str().unwrap_or_default());
    let sent: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..changes).map(|_| OnceLock::new()).collect());
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut stream = dial(server).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
        let mut text = BytesMut::with_capacity(64 * 1024);
        while memchr::memmem::find(&text, b"\r\n\r\n").is_none() {
            if stream.read_buf(&mut text).await? == 0 {
                break;
            }
        }
        if !text.starts_with(b"HTTP/1.1 200") {
            return Err(format!("{path}: {}", String::from_utf8_lossy(&text)).into());
        }
        let (sent, prefix) = (sent.clone(), prefix.clone());
        tasks.spawn(watcher(stream, text, prefix, sent));
    }
    let writers = open(server, 8).await?;
    let begun = Instant::now();
    spread_over(writers, changes, pace, move |i| {
        let due = if pace.is_zero() { Instant::now() } else { begun + pace * i as u32 };
        let _ = sent[i].set(due);
        (Method::POST, namespace.to_owned(), config_map(&format!("{prefix}{i:06}")), StatusCode::CREATED)
    })
    .await?;
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done?);
    }
    if times.len() != watchers * changes {
        return Err(format!("{} events of {} came", times.len(), watchers * changes).into());
    }
    Ok((times.len() as f64 / begun.elapsed().as_secs_f64(), quantile(&mut times, 0.99)))
}

/// Reads events until all that were to be seen are, and gives the time of each. As little is done with them as can be: what
/// clients do is not what is measured.
async fn watcher(
    mut stream: TlsStream<TcpStream>,
    mut text: BytesMut,
    prefix: String,
    sent: Arc<Vec<OnceLock<Instant>>>,
) -> Vec<Duration> {
    /// How many digits follow the prefix.
    const DIGITS: usize = 6;
    let finder = memchr::memmem::Finder::new(&prefix);
    let mut times = Vec::with_capacity(sent.len());
    while times.len() < sent.len() {
        let now = Instant::now();
        while let Some(at) = finder.find(&text) {
            let Some(digits) = text.get(at + prefix.len()..at + prefix.len() + DIGITS) else { break };
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
            times.extend(number.and_then(|n| sent.get(n)?.get()).map(|sent| now - *sent));
            text.advance(at + prefix.len() + DIGITS);
        }
        // What may be the beginning of a name stays.
        text.advance(text.len().saturating_sub(prefix.len() + DIGITS));
        if times.len() < sent.len() && !matches!(stream.read_buf(&mut text).await, Ok(1..)) {
            break;
        }
    }
    times
}
