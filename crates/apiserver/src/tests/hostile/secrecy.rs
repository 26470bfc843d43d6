use std::collections::BTreeSet;
use std::sync::Arc;

use auth::User;
use parking_lot::Mutex;
use registry::Verb;
use serde_json::json;

use super::*;
use crate::{AccessConfig, AuditConfig, AuditLog, AuditPolicy};

fn definition(plural: &str, kind: &str, scope: &str) -> Value {
    json!({"metadata": {"name": format!("{plural}.secret.example.com")}, "spec": {"group": "secret.example.com", "scope": scope,
        "names": {"plural": plural, "kind": kind}, "versions": [{"name": "v1", "served": true, "storage": true,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.r", "statusReplicasPath": ".status.r"}},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

const REVIEWS: [&str; 3] = ["selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];

/// Whoever may do nothing gets one answer, whatever there is: all kinds, all verbs, all subresources, what is served and
/// what is not, sensible bodies and junk.
#[tokio::test]
async fn one_refusal_for_all_there_is_and_is_not() {
    let server = TestServer::start().await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for (plural, kind, scope) in [("things", "Thing", "Namespaced"), ("wides", "Wide", "Cluster")] {
        assert_eq!(server.post(crds, definition(plural, kind, scope)).await.0, 201);
    }
    server.post(MAPS, json!({"metadata": {"name": "there"}})).await;
    let mut paths = BTreeSet::new();
    let registry = server.api.0.registry();
    let verbless = |group: &str, version: &str| {
        if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
    };
    for def in registry.resources().filter(|d| !REVIEWS.contains(&&*d.resource)) {
        let root = verbless(&def.gvk.group, &def.gvk.version);
        let all = format!("{root}/{}", def.resource);
        let within =
            if def.namespaced { format!("{root}/namespaces/NS/{}", def.resource) } else { all.clone() };
        paths.extend([all, within.clone(), format!("{within}/NAME"), format!("{within}/NAME/nothing")]);
        paths.extend(def.subresources.keys().map(|sub| format!("{within}/NAME/{sub}")));
    }
    // What nobody serves looks the same.
    for root in [
        "/api/v1",
        "/api/v9",
        "/apis/apps/v1",
        "/apis/apps/v9",
        "/apis/secret.example.com/v1",
        "/apis/secret.example.com/v2",
        "/apis/absent.example.com/v1",
    ] {
        for rest in [
            "nothings",
            "nothings/NAME",
            "namespaces/NS/nothings/NAME",
            "namespaces/NS/things/NAME",
            "namespaces/NS/wides/NAME",
            "wides/NAME/x/y",
        ] {
            paths.insert(format!("{root}/{rest}"));
        }
    }
    assert!(paths.len() > 300, "{}", paths.len());
    let eve = User::authenticated("eve", []);
    let queries = [
        "",
        "?watch=maybe&limit=x&labelSelector=(((",
        "?dryRun=Perhaps&fieldValidation=Hard&resourceVersion=x",
    ];
    for (n, path) in paths.iter().enumerate() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            for (user, name) in [(Some(&eve), "eve"), (None, "system:anonymous")] {
                let mut answers = BTreeSet::new();
                for (namespace, object) in [("default", "there"), ("absent", "absent")] {
                    let path =
                        path.replace("NS", namespace).replace("NAME", object) + queries[n % queries.len()];
                    let body = ["{}", "{\"metadata\":5", "nonsense: ["][n % 3];
                    let request = Request::builder()
                        .method(&method)
                        .uri(&path)
                        .header("content-type", "application/yaml");
                    let (code, status) = server.send(request.body(full(body)).unwrap(), user).await;
                    assert_eq!(code, 403, "{name} {method} {path}: {status}");
                    assert_eq!(status["reason"], "Forbidden", "{path}");
                    let message = status["message"].as_str().unwrap();
                    assert!(message.contains(&format!("User \"{name}\" cannot ")), "{message}");
                    let shown = status.to_string();
                    answers.insert(
                        shown
                            .replace(&format!("\\\"{namespace}\\\""), "_")
                            .replace(&format!("\\\"{object}\\\""), "_")
                            .replace(&format!("\"name\":\"{object}\""), "_")
                            .replace(&format!("\"name\":\"{namespace}\""), "_"),
                    );
                }
                assert_eq!(answers.len(), 1, "{name} {method} {path}: {answers:#?}");
            }
        }
    }
    // Served and not served: the same words.
    let said = async |path: &str| {
        let (_, status) = server.call_as(Method::GET, path, "", Value::Null, Some(&eve)).await;
        status["message"].as_str().unwrap().to_owned()
    };
    let there = said("/apis/secret.example.com/v1/namespaces/default/things/x").await;
    let absent = said("/apis/secret.example.com/v1/namespaces/default/stones/x").await;
    assert_eq!(there, absent.replace("stones", "things"));
}

#[tokio::test]
async fn what_is_no_resource_is_closed_as_well() {
    let server = TestServer::start().await;
    let eve = User::authenticated("eve", []);
    let ask = async |path: &str, user: Option<&User>| {
        server.call_as(Method::GET, path, "", Value::Null, user).await.0
    };
    for path in [
        "/metrics",
        "/metrics/slis",
        "/debug/pprof/",
        "/debug/pprof/profile",
        "/debug/flags/v",
        "/logs",
        "/logs/",
        "/logs/../etc",
        "/configz",
        "/statusz",
        "/flagz",
        "/nothing",
        "/",
        "/openid/v1/keys",
        "/metrics/../healthz",
        "/%6detrics",
        "//metrics",
    ] {
        assert_eq!(ask(path, Some(&eve)).await, 403, "{path}");
        assert_eq!(ask(path, None).await, 403, "{path}");
    }
    for path in
        ["/api", "/apis", "/apis/apps", "/apis/apps/v1", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"]
    {
        assert_eq!(ask(path, None).await, 403, "{path}");
        assert_eq!(ask(path, Some(&eve)).await, 200, "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(path, None).await, 200, "{path}");
    }
    // Only to look.
    for path in ["/healthz", "/version", "/api"] {
        assert_eq!(server.call_as(Method::POST, path, "", Value::Null, Some(&eve)).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn reviews_are_for_oneself() {
    let server = TestServer::start().await;
    let eve = User::authenticated("eve", []);
    let (authn, authz) = ("/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1");
    let attributes =
        json!({"spec": {"user": "admin", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    for (path, body, code, stranger) in [
        (format!("{authn}/tokenreviews"), json!({"spec": {"token": "secret"}}), 403, 403),
        (format!("{authz}/subjectaccessreviews"), attributes.clone(), 403, 403),
        (format!("{authz}/namespaces/default/localsubjectaccessreviews"), attributes.clone(), 403, 403),
        (format!("{authn}/selfsubjectreviews"), json!({}), 201, 403),
        (
            format!("{authz}/selfsubjectaccessreviews"),
            json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}),
            201,
            403,
        ),
        (format!("{authz}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}}), 201, 403),
    ] {
        let ask =
            async |user| server.call_as(Method::POST, &path, "application/json", body.clone(), user).await;
        let (got, said) = ask(Some(&eve)).await;
        assert_eq!(got, code, "{path}: {said}");
        assert_eq!(ask(None).await.0, stranger, "{path}");
    }
    // A question about oneself is about oneself, whatever else is written in it.
    let (_, said) = server
        .call_as(Method::POST, &format!("{authz}/selfsubjectaccessreviews"), "application/json",
            json!({"spec": {"user": "admin", "groups": ["system:masters"], "resourceAttributes": {"verb": "get", "resource": "secrets"}}}), Some(&eve))
        .await;
    assert_eq!(said["status"]["allowed"], false, "{said}");
    // A token that does not hold is not said to be wrong in this way or that.
    let review = async |token: &str| {
        let body = json!({"spec": {"token": token}});
        server.post(&format!("{authn}/tokenreviews"), body).await.1["status"].clone()
    };
    assert_ne!(review("wrong").await["authenticated"], true);
    assert_eq!(review("wrong").await, review("secret2").await);
}

/// Everything that is written to the log, at any level.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<String>>);

impl tracing::field::Visit for Listener {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        *self.0.lock() += &format!(" {field}={value:?}");
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn secrets_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]});
    let sink = AuditLog { path: log.clone(), max_bytes: 0, max_age: Default::default(), max_backups: 0 };
    let access = AccessConfig {
        audit: Some(AuditConfig { policy: AuditPolicy::read(&policy).unwrap(), log: Some(sink) }),
        ..AccessConfig::default()
    };
    let heard = Listener::default();
    let _listening = tracing::subscriber::set_default(heard.clone());
    let server = TestServer::with_access(access).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let (plain, coded) = ("hushhushhush", "aHVzaGh1c2hodXNo");
    let kept = |text: &str| text.contains(plain) || text.contains(coded);
    let ask = async |method: Method, path: &str, media: &str, body: Value| {
        let (code, said) = server.throw(method.clone(), path, media, body.to_string()).await;
        if code >= 400 {
            assert!(!kept(&said.to_string()), "{method} {path}: {said}");
        }
        code
    };
    let made = json!({"metadata": {"name": "s"}, "immutable": true, "data": {"k": coded}, "stringData": {"l": plain}});
    assert_eq!(ask(Method::POST, secrets, "application/json", made.clone()).await, 201);
    let path = format!("{secrets}/s");
    let (merge, json_patch) = ("application/merge-patch+json", "application/json-patch+json");
    let apply = format!("{path}?fieldManager=m");
    for (method, path, media, body) in [
        (Method::POST, secrets, "application/json", made.clone()),
        (
            Method::POST,
            secrets,
            "application/json",
            json!({"metadata": {"name": "b/c"}, "data": {"k": coded}}),
        ),
        (
            Method::POST,
            secrets,
            "application/json",
            json!({"metadata": {"name": "b"}, "data": {"a/b": coded}}),
        ),
        (
            Method::POST,
            secrets,
            "application/json",
            json!({"metadata": {"name": "b"}, "data": {"k": format!("!{plain}")}}),
        ),
        (
            Method::POST,
            secrets,
            "application/json",
            json!({"metadata": {"name": "b"}, "data": {"k": [coded]}}),
        ),
        (Method::POST, secrets, "application/json", json!({"metadata": {"name": "b"}, "data": plain})),
        (
            Method::POST,
            secrets,
            "application/json",
            json!({"metadata": {"name": "b"}, "stringData": {"k": {"x": plain}}}),
        ),
        (
            Method::POST,
            secrets,
            "application/json",
            json!({"metadata": {"name": "b"}, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": coded}}),
        ),
        (
            Method::POST,
            secrets,
            "application/json",
            json!({"metadata": {"name": "b"}, "type": "kubernetes.io/tls", "data": {"tls.key": coded}}),
        ),
        (
            Method::PUT,
            &path,
            "application/json",
            json!({"metadata": {"name": "s"}, "immutable": true, "data": {"k": "YQ=="}}),
        ),
        (Method::PATCH, &path, merge, json!({"data": {"k": "YQ=="}})),
        (Method::PATCH, &path, merge, json!({"data": null, "stringData": {"k": plain}})),
        (Method::PATCH, &path, json_patch, json!([{"op": "test", "path": "/data/k", "value": plain}])),
        (Method::PATCH, &path, json_patch, json!([{"op": "add", "path": "/data/k/x", "value": plain}])),
        (
            Method::PATCH,
            &apply,
            "application/apply-patch+yaml",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "YQ=="}}),
        ),
    ] {
        let code = ask(method, path, media, body).await;
        assert!((400..=422).contains(&code), "{code}");
    }
    // A token that was shown is not shown again.
    let request =
        Request::get(secrets).header("authorization", format!("Bearer {plain}")).body(full("")).unwrap();
    let (code, said) = server.send(request, None).await;
    assert!(code == 401 && !kept(&said.to_string()));
    let review = json!({"spec": {"token": plain}});
    server
        .throw(
            Method::POST,
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "application/json",
            review.to_string(),
        )
        .await;
    assert_eq!(server.get(&path).await.0, 200);
    let noted = std::fs::read_to_string(&log).unwrap();
    assert!(noted.contains("\"secrets\"") && !kept(&noted), "the audit log repeats it");
    assert!(!kept(&heard.0.lock()), "the log repeats it");
    let registry = server.api.0.registry();
    let events = registry.find("", "v1", "events").unwrap();
    assert!(events.verbs.has(Verb::List));
    let (_, events) = server.get("/api/v1/events").await;
    assert!(!kept(&events.to_string()));
    let (_, metrics) = server.get("/metrics").await;
    assert!(!kept(&metrics.to_string()));
}
