//! What requests of each kind take of the processor, without network, TLS and clients.
//!
//! `cargo run --release -p apiserver --example requests -- [create|get|patch|apply|pod] [COUNT]`

#![allow(missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::{AccessConfig, ApiServer, Config};
use auth::{StaticTokens, TokenIssuer, User};
use base::{Drain, RandomIds, SystemClock};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use store::{Options, Store};

/// Requests that are under way at once: commits are made in groups.
const AT_ONCE: usize = 32;

/// One request: method, path, media type and body.
type Make = fn(usize) -> (&'static str, String, &'static str, String);

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

const KINDS: &[(&str, Make)] = &[
    ("create", |i| {
        let text = "x".repeat(900);
        let map = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m{i}"}},"data":{{"payload":"{text}"}}}}"#
        );
        ("POST", MAPS.into(), JSON, map)
    }),
    ("get", |i| ("GET", format!("{MAPS}/m{}", i % 1000), JSON, String::new())),
    ("patch", |i| {
        let patch = format!(r#"{{"data":{{"n":"{i}"}}}}"#);
        ("PATCH", format!("{MAPS}/m{}", i % 1000), "application/merge-patch+json", patch)
    }),
    ("apply", |i| {
        let name = format!("m{}", i % 1000);
        let map = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"applied":"{i}"}}}}"#
        );
        ("PATCH", format!("{MAPS}/{name}?fieldManager=bench&force=true"), "application/apply-patch+yaml", map)
    }),
    ("pod", |i| {
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p{i}","labels":{{"app":"web","n":"{i}"}}}},
            "spec":{{"containers":[{{"name":"main","image":"web:v1","ports":[{{"containerPort":80}}],
            "resources":{{"requests":{{"cpu":"10m","memory":"16Mi"}}}},"env":[{{"name":"A","value":"b"}}]}}]}}}}"#
        );
        ("POST", "/api/v1/namespaces/default/pods".into(), JSON, pod)
    }),
];

async fn server(folder: &std::path::Path) -> ApiServer {
    let store = Store::open(&folder.join("store"), Options::default()).expect("a store");
    let pki = auth::Pki::open(&folder.join("pki"), &SystemClock).expect("certificates");
    let (private, public) = pki.service_account_key().expect("a key");
    let clock = Arc::new(SystemClock);
    let tokens = TokenIssuer::new("https://test", &private, &public, clock.clone()).expect("an issuer");
    let config = Config {
        clock,
        ids: Arc::new(RandomIds),
        tokens: Arc::new(tokens),
        static_tokens: StaticTokens::default(),
        ca_pem: pki.ca().to_owned(),
        service_cidr: "10.43.0.0/16".parse().expect("a range"),
        node_ports: 30000..=32767,
        advertise: ([127, 0, 0, 1].into(), 6443),
        in_flight: 600,
        garbage_collection: true,
        access: AccessConfig::default(),
        admission: Default::default(),
        runtime_config: Default::default(),
        tracing: None,
        node_client: None,
    };
    ApiServer::start(config, store, Drain::new()).await.expect("a server")
}

async fn send(
    api: &ApiServer,
    user: &User,
    (method, path, media, body): (&str, String, &str, String),
) -> http::StatusCode {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .header("accept", JSON)
        .header("user-agent", "bench/1")
        .body(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync())
        .expect("a request");
    let response = api.handle(request, Some(user)).await;
    let status = response.status();
    response.into_body().collect().await.expect("a whole answer");
    status
}

/// Time on a processor, of all threads so far.
fn busy() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this process's threads");
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = words.first().map(String::as_str).unwrap_or("all");
    let count = words.get(1).map_or(20_000, |text| text.parse().expect("a number"));
    // Of memory if there is such a place: the disk is another matter.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let api = server(folder.path()).await;
    let admin = User::authenticated("admin", [User::MASTERS.to_owned()]);
    let account = r#"{"metadata":{"name":"default"}}"#.to_owned();
    send(&api, &admin, ("POST", "/api/v1/namespaces/default/serviceaccounts".into(), JSON, account)).await;
    for (kind, make) in KINDS {
        // The others need what this one makes.
        if wanted != "all" && wanted != *kind && *kind != "create" {
            continue;
        }
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let before = busy();
        let worker = async || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return;
                }
                if !send(&api, &admin, make(i)).await.is_success() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        futures::future::join_all((0..AT_ONCE).map(|_| worker())).await;
        let each = (busy() - before).as_secs_f64() * 1e6 / count as f64;
        println!("{kind:8} {each:6.1} µs, {} failed", failed.into_inner());
    }
}
