use auth::User;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{MAPS, TestServer};
use crate::respond::{empty, full};
use crate::{AccessConfig, AuditConfig, AuditLog, AuditPolicy};

struct Audited {
    server: TestServer,
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

async fn audited(rules: Value) -> Audited {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
    let log = AuditLog { path: path.clone(), max_bytes: 0, max_age: Default::default(), max_backups: 0 };
    let access = AccessConfig {
        audit: Some(AuditConfig { policy: AuditPolicy::read(&policy).unwrap(), log: Some(log) }),
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
