//! Server-side apply, and who owns what after all sorts of writes.

use auth::User;
use http::Method;
use serde_json::{Value, json};

use super::{MAPS, TestServer};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

async fn apply(server: &TestServer, path: &str, manager: &str, config: Value) -> (u16, Value) {
    server.patch(&format!("{path}?fieldManager={manager}"), APPLY, config).await
}

fn deployment(replicas: Option<u32>, image: &str) -> Value {
    let mut config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}});
    if let Some(n) = replicas {
        config["spec"]["replicas"] = n.into();
    }
    config
}

fn entry<'v>(object: &'v Value, manager: &str) -> &'v Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|e| e["manager"] == manager).unwrap_or(&Value::Null)
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_applied_object_comes_to_be_and_changes() {
    let server = TestServer::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let (code, made) = apply(&server, &path, "me", deployment(Some(2), "1")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        *entry(&made, "me"),
        json!({"manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}}})
    );
    let (code, same) = apply(&server, &path, "me", deployment(Some(2), "1")).await;
    assert_eq!((code, &same), (200, &made), "applying the same is no write");
    // Somebody scales; what is no longer said of replicas is left to them.
    let scale = json!({"spec": {"replicas": 5}});
    let (code, _) = server.patch(&format!("{path}/scale"), "application/merge-patch+json", scale).await;
    assert_eq!(code, 200);
    let (code, conflict) = apply(&server, &path, "me", deployment(Some(3), "1")).await;
    assert_eq!(code, 409, "{conflict}");
    assert_eq!(
        message(&conflict),
        "Apply failed with 1 conflict: conflict with \"unknown\" with subresource \"scale\" using apps/v1 at \
         2026-01-01T00:00:00Z: .spec.replicas"
    );
    assert_eq!(conflict["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let (code, changed) = apply(&server, &path, "me", deployment(None, "2")).await;
    assert_eq!((code, &changed["spec"]["replicas"]), (200, &json!(5)), "{changed}");
    assert_eq!(changed["spec"]["template"]["spec"]["containers"][0]["image"], "2");
    assert_eq!(changed["metadata"]["generation"], 3);
    let (code, forced) =
        server.patch(&format!("{path}?fieldManager=me&force=true"), APPLY, deployment(Some(1), "2")).await;
    assert_eq!((code, &forced["spec"]["replicas"]), (200, &json!(1)));
    assert!(entry(&forced, "unknown").is_null());
}

#[tokio::test]
async fn plain_writes_own_what_they_change() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/m");
    let map = json!({"metadata": {"name": "m", "labels": {"l": "1"}}, "data": {"a": "1"}});
    let (code, made) = server.post(&format!("{MAPS}?fieldManager=maker"), map).await;
    assert_eq!(code, 201);
    let fields = json!({"f:data": {".": {}, "f:a": {}}, "f:metadata": {"f:labels": {".": {}, "f:l": {}}}});
    assert_eq!(entry(&made, "maker")["fieldsV1"], fields);
    assert_eq!(entry(&made, "maker")["operation"], "Update");
    let merge = "application/merge-patch+json";
    let (_, changed) =
        server.patch(&format!("{path}?fieldManager=p"), merge, json!({"data": {"a": "2", "b": "3"}})).await;
    assert_eq!(entry(&changed, "p")["fieldsV1"], json!({"f:data": {"f:a": {}, "f:b": {}}}));
    assert_eq!(entry(&changed, "maker")["fieldsV1"]["f:data"], json!({}));
    let (_, gone) =
        server.patch(&format!("{path}?fieldManager=q"), merge, json!({"data": {"b": null}})).await;
    assert_eq!(entry(&gone, "p")["fieldsV1"], json!({"f:data": {"f:a": {}}}));
    assert!(entry(&gone, "q").is_null(), "{gone}");
    // A user may do away with owners, and hand fields over.
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let (code, none) = server.patch(&path, merge, reset).await;
    assert_eq!((code, &none["metadata"]["managedFields"]), (200, &Value::Null));
}

#[tokio::test]
async fn status_has_owners_of_its_own() {
    let server = TestServer::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&server, &path, "me", deployment(None, "1")).await;
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 9}, "status": {"replicas": 3}});
    let (code, status) = apply(&server, &format!("{path}/status"), "controller", config).await;
    assert_eq!((code, &status["status"]["replicas"]), (200, &json!(3)), "{status}");
    assert_eq!(status["spec"]["replicas"], 1);
    let owner = entry(&status, "controller");
    assert_eq!(
        (&owner["subresource"], &owner["fieldsV1"]),
        (&json!("status"), &json!({"f:status": {"f:replicas": {}}}))
    );
}

#[tokio::test]
async fn kubectl_may_take_over_from_its_client_side_self() {
    let server = TestServer::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut object = deployment(Some(2), "1");
    let last = object.to_string();
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    let (code, _) =
        server.post(&format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"), object).await;
    assert_eq!(code, 201);
    let (code, refused) = apply(&server, &path, "other", deployment(Some(3), "1")).await;
    assert_eq!(code, 409, "{refused}");
    let config = deployment(Some(3), "1");
    let (code, taken) = apply(&server, &path, "kubectl", config.clone()).await;
    assert_eq!((code, &taken["spec"]["replicas"]), (200, &json!(3)), "{taken}");
    let last = taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert_eq!(serde_json::from_str::<Value>(last.unwrap()).unwrap()["spec"], config["spec"]);
}

#[tokio::test]
async fn configurations_that_make_no_sense_are_refused() {
    let server = TestServer::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let (code, answer) = server.patch(&path, APPLY, deployment(None, "1")).await;
    assert_eq!(
        (code, message(&answer)),
        (
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        )
    );
    let long = "x".repeat(129);
    assert_eq!(apply(&server, &path, &long, deployment(None, "1")).await.0, 400);
    let (code, answer) = server
        .patch(&format!("{path}?force=true"), "application/merge-patch+json", json!({"spec": {}}))
        .await;
    assert_eq!((code, message(&answer).contains("may not be specified for non-apply patch")), (422, true));
    let mut config = deployment(None, "1");
    config["spec"]["replicaz"] = 1.into();
    let (code, answer) = apply(&server, &path, "me", config.clone()).await;
    assert_eq!(
        (code, message(&answer)),
        (
            500,
            "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): \
             .spec.replicaz: field not declared in schema"
        )
    );
    let strict = format!("{path}?fieldManager=me&fieldValidation=Strict");
    let (code, answer) = server.patch(&strict, APPLY, config).await;
    assert_eq!((code, message(&answer).contains("unknown field \"spec.replicaz\"")), (400, true), "{answer}");
    for (field, value, code) in [
        ("kind", json!("Pod"), 400),
        ("kind", Value::Null, 400),
        ("metadata", json!({"name": "other"}), 400),
        ("metadata", json!({"managedFields": [{"manager": "x"}]}), 400),
        ("metadata", json!({"uid": "x"}), 409),
        ("metadata", json!({"namespace": "other"}), 400),
    ] {
        let mut config = deployment(None, "1");
        config[field] = value;
        let (got, answer) = apply(&server, &path, "me", config).await;
        assert_eq!(got, code, "{answer}");
    }
    let mut twice = deployment(None, "1");
    twice["spec"]["template"]["spec"]["containers"] = json!([{"name": "c"}, {"name": "c"}]);
    let (code, answer) = apply(&server, &path, "me", twice).await;
    assert_eq!(
        (code, message(&answer).contains("duplicate entries for key [name=\"c\"]")),
        (500, true),
        "{answer}"
    );
    // Whoever may change but not make things cannot make them by applying.
    for (kind, verbs) in [("patcher", json!(["patch"])), ("maker", json!(["patch", "create"]))] {
        let role = json!({"metadata": {"name": kind}, "rules": [
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs}]});
        let binding = json!({"metadata": {"name": kind}, "subjects": [{"kind": "User", "name": kind,
            "apiGroup": "rbac.authorization.k8s.io"}], "roleRef": {"kind": "ClusterRole", "name": kind,
            "apiGroup": "rbac.authorization.k8s.io"}});
        server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
        server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
        let user = User::authenticated(kind, []);
        let path = format!("{path}?fieldManager=me");
        let (code, answer) =
            server.call_as(Method::PATCH, &path, APPLY, deployment(None, "1"), Some(&user)).await;
        assert_eq!(code, if kind == "maker" { 201 } else { 403 }, "{answer}");
    }
}

#[tokio::test]
async fn a_scale_can_be_applied() {
    let server = TestServer::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&server, &path, "me", deployment(Some(2), "1")).await;
    let scale = |n: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": n}});
    let (code, refused) = apply(&server, &format!("{path}/scale"), "hpa", scale(3)).await;
    assert_eq!(
        (code, message(&refused)),
        (409, "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas")
    );
    apply(&server, &path, "me", deployment(None, "1")).await;
    let (code, scaled) = apply(&server, &format!("{path}/scale"), "hpa", scale(3)).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(3)), "{scaled}");
    let (_, object) = server.get(&path).await;
    let owner = entry(&object, "hpa");
    assert_eq!((&owner["subresource"], &owner["operation"]), (&json!("scale"), &json!("Apply")));
    assert_eq!(owner["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "1");
}
