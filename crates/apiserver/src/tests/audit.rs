use auth::User;
use http::{Method, Request};
use serde_json::{Value, json};

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::remote::Https;
use super::{MAPS, TestServer};
use crate::respond::{empty, full};
use crate::{
    AccessConfig, AuditBatch, AuditConfig, AuditDelivery, AuditFormat, AuditLog, AuditMode, AuditPolicy,
    AuditWebhook,
};

struct Audited {
    server: TestServer,
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

async fn audited(rules: Value) -> Audited {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
    let log = Some(AuditLog::new(path.clone()));
    let access = AccessConfig {
        audit: Some(AuditConfig { policy: AuditPolicy::read(&policy).unwrap(), log, webhook: None }),
        ..AccessConfig::default()
    };
    Audited { server: TestServer::with_access(access).await, path, _folder: folder }
}

impl Audited {
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn what_was_asked_and_answered_is_noted() {
    let audited = audited(json!([
        {"level": "None", "nonResourceURLs": ["/healthz"]},
        {"level": "RequestResponse", "omitStages": ["RequestReceived"], "omitManagedFields": true,
            "verbs": ["create"], "resources": [{"resources": ["configmaps"]}]},
        {"level": "Metadata"},
    ]))
    .await;
    let server = &audited.server;
    server.call_as(Method::GET, "/healthz", "", Value::Null, None).await;
    assert!(audited.events().is_empty());
    let request = Request::post(MAPS)
        .header("audit-id", "my-id")
        .header("user-agent", "probe/1")
        .header("x-forwarded-for", "10.1.1.1, 10.1.1.2")
        .header("content-type", "application/yaml")
        .body(full("metadata: {name: a}\ndata: {k: v}\n"))
        .unwrap();
    let response = server.api.handle(request, Some(&server.admin)).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["audit-id"], "my-id");
    let events = audited.events();
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0];
    for (path, value) in [
        ("/kind", json!("Event")),
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("RequestResponse")),
        ("/auditID", json!("my-id")),
        ("/stage", json!("ResponseComplete")),
        ("/requestURI", json!(MAPS)),
        ("/verb", json!("create")),
        ("/user/username", json!("admin")),
        ("/sourceIPs", json!(["10.1.1.1", "10.1.1.2"])),
        ("/userAgent", json!("probe/1")),
        (
            "/objectRef",
            json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}),
        ),
        ("/responseStatus/code", json!(201)),
        ("/requestObject/data/k", json!("v")),
        ("/responseObject/data/k", json!("v")),
        ("/requestReceivedTimestamp", json!("2026-01-01T00:00:00.000000Z")),
        ("/annotations/authorization.k8s.io~1decision", json!("allow")),
    ] {
        assert_eq!(event.pointer(path), Some(&value), "{path} {event}");
    }
    assert!(event["responseObject"]["metadata"].get("managedFields").is_none());
    // A refusal, by somebody who is taken for another.
    let request = Request::get(MAPS).header("impersonate-user", "bob").body(empty()).unwrap();
    let admin = User::authenticated("root", [User::MASTERS.to_owned()]);
    server.api.handle(request, Some(&admin)).await;
    let events = audited.events();
    let [_, received, complete] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(
        (received["stage"].as_str(), received["level"].as_str()),
        (Some("RequestReceived"), Some("Metadata"))
    );
    assert_eq!(received["auditID"], complete["auditID"]);
    assert_eq!(complete["impersonatedUser"]["username"], "bob");
    assert_eq!(complete["user"]["username"], "root");
    assert_eq!(complete["responseStatus"]["code"], 403);
    assert_eq!(complete["responseStatus"]["reason"], "Forbidden");
    assert_eq!(complete["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert!(complete.get("responseObject").is_none());
}

#[tokio::test]
async fn watches_are_noted_when_they_begin_and_end() {
    let audited =
        audited(json!([{"level": "Metadata", "omitStages": ["RequestReceived"], "verbs": ["watch"]}])).await;
    let server = &audited.server;
    let request = Request::get(format!("{MAPS}?watch=1")).body(empty()).unwrap();
    let response = server.api.handle(request, Some(&server.admin)).await;
    assert_eq!(response.status(), 200);
    let stages =
        || audited.events().iter().map(|e| e["stage"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(stages(), ["ResponseStarted"]);
    drop(response);
    assert_eq!(stages(), ["ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn without_a_policy_nothing_is_done() {
    let server = TestServer::start().await;
    let request = Request::get(MAPS).body(empty()).unwrap();
    let response = server.api.handle(request, Some(&server.admin)).await;
    assert!(response.headers().get("audit-id").is_none());
}

/// A server that tells a webhook, which fails as often as it is told to.
async fn told(
    mode: AuditMode,
    failures: usize,
    longest: Option<usize>,
) -> (TestServer, Arc<Mutex<Vec<Value>>>, Https) {
    let lists = Arc::new(Mutex::new(Vec::new()));
    let (kept, left) = (lists.clone(), Mutex::new(failures));
    let hook = Https::start(move |_, _, list| {
        let mut left = left.lock();
        if *left > 0 {
            *left -= 1;
            return json!(503);
        }
        kept.lock().push(list.clone());
        json!({})
    })
    .await;
    let rules = json!([{"level": "Request", "verbs": ["create"]}, {"level": "None"}]);
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
    let webhook = AuditWebhook {
        remote: hook.remote(),
        initial_backoff: Duration::from_millis(1),
        delivery: AuditDelivery { mode, longest },
    };
    let audit =
        AuditConfig { policy: AuditPolicy::read(&policy).unwrap(), log: None, webhook: Some(webhook) };
    let access = AccessConfig { audit: Some(audit), ..AccessConfig::default() };
    (TestServer::with_access(access).await, lists, hook)
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

async fn metric(server: &TestServer, name: &str) -> f64 {
    let (_, text) = server.get("/metrics").await;
    let line = text.as_str().unwrap().lines().find(|line| line.starts_with(name)).map(str::to_owned);
    line.and_then(|line| line.rsplit(' ').next().unwrap().parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn a_webhook_is_told_of_many_events_at_once() {
    let batch = AuditBatch { most: 4, wait: Duration::from_millis(50), ..AuditBatch::webhook() };
    let (server, lists, _hook) = told(AuditMode::Batch(batch), 2, None).await;
    for i in 0..5 {
        assert_eq!(server.post(MAPS, map(&format!("m{i}"))).await.0, 201);
    }
    // Two stages of each, whatever the first attempts came to.
    let count = || lists.lock().iter().map(|l| l["items"].as_array().unwrap().len()).sum::<usize>();
    server.until(|| async { count() == 10 }).await;
    let lists = lists.lock().clone();
    assert!(lists.iter().all(|l| l["kind"] == "EventList" && l["apiVersion"] == "audit.k8s.io/v1"));
    assert!(lists.iter().all(|l| l["items"].as_array().unwrap().len() <= 4));
    let event = &lists[0]["items"][0];
    assert!(event.get("kind").is_none() && event["stage"].is_string() && event["auditID"].is_string());
    assert_eq!(metric(&server, "apiserver_audit_event_total").await, 10.0);
    assert_eq!(metric(&server, "apiserver_audit_error_total{plugin=\"webhook\"}").await, 0.0);
}

#[tokio::test]
async fn what_waits_is_delivered_when_the_server_ends() {
    let batch = AuditBatch { wait: Duration::from_secs(3600), ..AuditBatch::webhook() };
    let (server, lists, _hook) = told(AuditMode::Batch(batch), 0, None).await;
    server.post(MAPS, map("a")).await;
    assert!(lists.lock().is_empty());
    server.api.0.drain.drain().await;
    assert_eq!(lists.lock()[0]["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn requests_may_wait_for_the_webhook_and_fail_with_it() {
    let (server, lists, hook) = told(AuditMode::BlockingStrict, 5, None).await;
    let (code, refused) = server.post(MAPS, map("a")).await;
    assert_eq!((code, hook.asked()), (500, 6), "{refused}");
    assert_eq!(refused["message"], "Internal error occurred: failed to store audit event");
    assert_eq!(metric(&server, "apiserver_audit_error_total{plugin=\"webhook\"}").await, 1.0);
    assert_eq!(metric(&server, "apiserver_audit_requests_rejected_total").await, 1.0);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.0, 404);
    lists.lock().clear();
    assert_eq!(server.post(MAPS, map("a")).await.0, 201);
    assert_eq!(lists.lock().len(), 2);
    let (server, lists, _hook) = told(AuditMode::Blocking, 5, None).await;
    assert_eq!(server.post(MAPS, map("a")).await.0, 201);
    assert_eq!(lists.lock().len(), 1);
}

#[tokio::test]
async fn events_that_are_too_long_are_shortened() {
    let (server, lists, _hook) = told(AuditMode::Blocking, 0, Some(1000)).await;
    let long = json!({"metadata": {"name": "a"}, "data": {"k": "v".repeat(2000)}});
    assert_eq!(server.post(MAPS, long).await.0, 201);
    let event = lists.lock()[1]["items"][0].clone();
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert!(event.get("requestObject").is_none());
    let (server, lists, _hook) = told(AuditMode::Blocking, 0, Some(10)).await;
    assert_eq!(server.post(MAPS, map("a")).await.0, 201);
    assert!(lists.lock().is_empty());
    assert_eq!(metric(&server, "apiserver_audit_error_total{plugin=\"truncate\"}").await, 2.0);
}

#[tokio::test]
async fn a_log_may_be_short_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata", "verbs": ["create"]}]});
    let delivery = AuditDelivery { mode: AuditMode::Batch(AuditBatch::log()), longest: None };
    let log = AuditLog { format: AuditFormat::Legacy, delivery, ..AuditLog::new(path.clone()) };
    let audit = AuditConfig { policy: AuditPolicy::read(&policy).unwrap(), log: Some(log), webhook: None };
    let server =
        TestServer::with_access(AccessConfig { audit: Some(audit), ..AccessConfig::default() }).await;
    server.post(MAPS, map("a")).await;
    let text = || std::fs::read_to_string(&path).unwrap();
    server.until(|| async { text().lines().count() == 2 }).await;
    assert!(text().lines().all(|l| l.contains(" AUDIT: id=") && l.contains("user=\"admin\"")), "{}", text());
}

#[tokio::test]
async fn nothing_is_read_of_those_who_are_refused() {
    let audited = audited(json!([{"level": "RequestResponse"}])).await;
    let stuck = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, crate::BoxError>,
    >());
    let request = Request::post(MAPS).body(http_body_util::BodyExt::boxed_unsync(stuck)).unwrap();
    let eve = User::authenticated("eve", []);
    let answer =
        tokio::time::timeout(std::time::Duration::from_secs(10), audited.server.send(request, Some(&eve)));
    assert_eq!(answer.await.unwrap().0, 403);
    assert!(audited.events().iter().all(|event| event.get("requestObject").is_none()));
}
