use auth::User;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{MAPS, TestServer};
use crate::respond::empty;

async fn with_token(server: &TestServer, path: &str, token: &str) -> (u16, Value) {
    let request = Request::builder()
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .body(empty())
        .unwrap();
    server.send(request, None).await
}

/// Each verb, asked by nobody known, is refused and tells nothing.
#[tokio::test]
async fn strangers_are_refused_everywhere() {
    let server = TestServer::start().await;
    server.post(MAPS, json!({"metadata": {"name": "a"}})).await;
    let object = format!("{MAPS}/a");
    for (method, path) in [
        (Method::GET, object.as_str()),
        (Method::GET, MAPS),
        (Method::GET, "/api/v1/namespaces/default/configmaps?watch=1"),
        (Method::POST, MAPS),
        (Method::PUT, &object),
        (Method::PATCH, &object),
        (Method::DELETE, &object),
        (Method::DELETE, MAPS),
        (Method::GET, "/api/v1/namespaces/default/pods/x/exec"),
        (Method::GET, "/apis"),
        (Method::GET, "/metrics"),
    ] {
        let (code, status) = server.call_as(method, path, "application/json", json!({}), None).await;
        assert_eq!(code, 403, "{path}: {status}");
        assert!(status["message"].as_str().unwrap().contains("system:anonymous"), "{status}");
    }
    assert_eq!(server.call_as(Method::GET, "/healthz", "", Value::Null, None).await.0, 200);
    assert_eq!(with_token(&server, MAPS, "wrong").await.0, 401);
}

#[tokio::test]
async fn running_something_in_a_pod_takes_more_than_the_right_to_read() {
    let server = TestServer::start().await;
    let rbac = |kind: &str| format!("/apis/rbac.authorization.k8s.io/v1/namespaces/default/{kind}");
    let rules = |verbs: Value| json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": verbs}]);
    server.post(&rbac("roles"), json!({"metadata": {"name": "r"}, "rules": rules(json!(["get"]))})).await;
    let binding = json!({"metadata": {"name": "eve"}, "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "eve"}]});
    server.post(&rbac("rolebindings"), binding).await;
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdout=1";
    let (code, refused) = with_token(&server, exec, "secret").await;
    assert_eq!(code, 403);
    let said = refused["message"].as_str().unwrap();
    assert!(said.contains("cannot create resource \"pods/exec\""), "{said}");
    let wider = json!({"metadata": {"name": "r"}, "rules": rules(json!(["get", "create"]))});
    server.call(Method::PUT, &format!("{}/r", rbac("roles")), wider).await;
    // Now it is only the pod that is missing.
    assert_eq!(with_token(&server, exec, "secret").await.0, 404);
}

#[tokio::test]
async fn roles_open_doors() {
    let server = TestServer::start().await;
    let (code, refused) = with_token(&server, MAPS, "secret").await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"eve\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = json!({"metadata": {"name": "eve"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "eve"}]});
    assert_eq!(server.post(bindings, binding).await.0, 201);
    assert_eq!(with_token(&server, MAPS, "secret").await.0, 200);
    assert_eq!(with_token(&server, "/api/v1/configmaps", "secret").await.0, 403);
    let review = |verb: &str| json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "configmaps", "namespace": "default"}, "user": "eve"}});
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(server.post(reviews, review("get")).await.1["status"]["allowed"], true);
    assert_eq!(server.post(reviews, review("delete")).await.1["status"]["allowed"], false);
}

#[tokio::test]
async fn tokens_die_with_their_account() {
    let server = TestServer::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, json!({"metadata": {"name": "web"}})).await;
    let (code, token) =
        server.post(&format!("{accounts}/web/token"), json!({"spec": {"expirationSeconds": 600}})).await;
    assert_eq!(code, 201, "{token}");
    let token = token["status"]["token"].as_str().unwrap();
    assert_eq!(with_token(&server, MAPS, token).await.0, 403, "known, but without rights");
    let (_, review) =
        server.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await;
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:web");
    server.call(Method::DELETE, &format!("{accounts}/web"), Value::Null).await;
    assert_eq!(with_token(&server, MAPS, token).await.0, 401);
    assert_eq!(server.post(&format!("{accounts}/web/token"), json!({})).await.0, 404);
}

#[tokio::test]
async fn only_those_allowed_take_another_name() {
    let server = TestServer::start().await;
    let as_bob = |user: User| {
        let request = Request::builder().uri(MAPS).header("impersonate-user", "bob").body(empty()).unwrap();
        (request, user)
    };
    let (request, admin) = as_bob(User::authenticated("root", [User::MASTERS.to_owned()]));
    let (code, refused) = server.send(request, Some(&admin)).await;
    assert_eq!(code, 403);
    assert!(refused["message"].as_str().unwrap().contains("User \"bob\" cannot list"), "{refused}");
    let (request, eve) = as_bob(User::authenticated("eve", []));
    let (_, refused) = server.send(request, Some(&eve)).await;
    assert!(
        refused["message"].as_str().unwrap().contains("User \"eve\" cannot impersonate resource \"users\""),
        "{refused}"
    );
}

#[tokio::test]
async fn discovery_tells_what_there_is() {
    let server = TestServer::start().await;
    let (_, groups) = server.get("/apis").await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "apps"));
    let (_, core) = server.get("/api/v1").await;
    let pods = core["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods").unwrap();
    assert_eq!(pods["shortNames"], json!(["po"]));
    let (_, openapi) = server.get("/openapi/v3/apis/apps/v1").await;
    let patch = &openapi["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(
        patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"),
        "{patch}"
    );
    assert!(openapi["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"].is_object());
    assert_eq!(server.get("/readyz").await, (200, json!("ok")));
}

#[tokio::test]
async fn requests_are_told_apart_by_flow_schemas() {
    let server = TestServer::start().await;
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let level = json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    let (code, level) = server.post(&format!("{group}/prioritylevelconfigurations"), level).await;
    assert_eq!(code, 201, "{level}");
    let schema = json!({"metadata": {"name": "eves"}, "spec": {"matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": "narrow"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "eve"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}]}]}});
    let (code, schema) = server.post(&format!("{group}/flowschemas"), schema).await;
    assert_eq!(code, 201, "{schema}");
    let uids = async |user: User, path: &str| {
        let request = http::Request::get(path).body(crate::respond::empty()).unwrap();
        let response = server.api.handle(request, Some(&user)).await;
        let uid = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        [uid("x-kubernetes-pf-flowschema-uid"), uid("x-kubernetes-pf-prioritylevel-uid")]
    };
    let of = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(uids(User::authenticated("eve", []), "/version").await, [of(&schema), of(&level)]);
    let (_, default) = server.get(&format!("{group}/flowschemas/global-default")).await;
    for (user, path) in [("eve", "/healthz"), ("adam", "/version")] {
        let [by, _] = uids(User::authenticated(user, []), path).await;
        assert_eq!(by == of(&default), path == "/version", "{user} {path}");
    }
    // What is said of it in its status is written by and by.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let (_, schema) = server.get(&format!("{group}/flowschemas/eves")).await;
        if schema["status"]["conditions"][0]["status"] == "False" {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{schema}");
        tokio::task::yield_now().await;
    }
}

/// A request without rights learns nothing of what exists.
#[tokio::test]
async fn refusals_do_not_tell_what_exists() {
    let server = TestServer::start().await;
    server.post(MAPS, json!({"metadata": {"name": "there"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let eve = User::authenticated("eve", []);
    let ask = async |method: Method, path: String| {
        let (code, status) = server.call_as(method, &path, "application/json", json!({}), Some(&eve)).await;
        (code, status.to_string().replace("there", "X").replace("absent", "X"))
    };
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::POST] {
        for path in [
            format!("{MAPS}/NAME"),
            format!("{MAPS}?fieldSelector=metadata.name=NAME"),
            format!("{MAPS}?watch=1&fieldSelector=metadata.name=NAME"),
            format!("{pods}/NAME/exec"),
            format!("{pods}/NAME/log"),
            format!("{pods}/NAME/status"),
            format!("{pods}/NAME/eviction"),
            "/api/v1/namespaces/default/serviceaccounts/NAME/token".to_owned(),
            "/api/v1/namespaces/NAME".to_owned(),
        ] {
            let there = ask(method.clone(), path.replace("NAME", "there")).await;
            let absent = ask(method.clone(), path.replace("NAME", "absent")).await;
            assert_eq!(there, absent, "{method} {path}");
            assert!(matches!(there.0, 403 | 405), "{method} {path} {there:?}");
        }
    }
}

#[tokio::test]
async fn who_gives_rights_away_must_have_them() {
    let server = TestServer::start().await;
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let rbac = |kind: &str| format!("{group}/namespaces/default/{kind}");
    let allow = |verbs: Value, resources: Value| json!({"apiGroups": ["", "rbac.authorization.k8s.io"], "verbs": verbs, "resources": resources});
    let own = json!({"metadata": {"name": "own"}, "rules": [
        allow(json!(["create", "update", "patch"]), json!(["roles", "rolebindings"])), allow(json!(["get"]), json!(["pods"]))]});
    assert_eq!(server.post(&rbac("roles"), own).await.0, 201);
    let bind = |name: &str, role: &str| {
        json!({"metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]})
    };
    assert_eq!(server.post(&rbac("rolebindings"), bind("own", "own")).await.0, 201);
    let eve = User::authenticated("eve", []);
    let ask = async |path: &str, body: Value| {
        server.call_as(Method::POST, path, "application/json", body, Some(&eve)).await
    };
    let role = |verb: &str| json!({"metadata": {"name": format!("new-{verb}")}, "rules": [{"apiGroups": [""], "verbs": [verb], "resources": ["pods"]}]});
    assert_eq!(ask(&rbac("roles"), role("get")).await.0, 201);
    let (code, refused) = ask(&rbac("roles"), role("delete")).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"new-delete\" is forbidden: user \"eve\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    // What is there already is not widened, either.
    let patch = json!({"rules": [{"apiGroups": [""], "verbs": ["*"], "resources": ["secrets"]}]});
    let path = format!("{}/new-get", rbac("roles"));
    let patched =
        server.call_as(Method::PATCH, &path, "application/merge-patch+json", patch, Some(&eve)).await;
    assert_eq!(patched.0, 403, "{}", patched.1);
    server.post(&rbac("roles"), role("delete")).await;
    assert_eq!(ask(&rbac("rolebindings"), bind("b", "new-delete")).await.0, 403);
    assert_eq!(ask(&rbac("rolebindings"), bind("b", "absent")).await.0, 404);
    assert_eq!(ask(&rbac("rolebindings"), bind("b", "new-get")).await.0, 201);
    // The verbs `escalate` and `bind` are the right to do so all the same.
    let wide = json!({"metadata": {"name": "wide"}, "rules": [allow(json!(["escalate", "bind"]), json!(["roles"]))]});
    server.post(&rbac("roles"), wide).await;
    server.post(&rbac("rolebindings"), bind("wide", "wide")).await;
    assert_eq!(ask(&rbac("roles"), role("watch")).await.0, 201);
    assert_eq!(ask(&rbac("rolebindings"), bind("b2", "new-delete")).await.0, 201);
}

#[tokio::test]
async fn a_node_asks_for_its_own() {
    let server = TestServer::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, json!({"metadata": {"name": "default"}})).await;
    for name in ["mine", "other"] {
        server.post(secrets, json!({"metadata": {"name": name}})).await;
    }
    let node = User::authenticated("system:node:n1", ["system:nodes".to_owned()]);
    let get = async |path: &str| {
        server.call_as(Method::GET, path, "application/json", Value::Null, Some(&node)).await.0
    };
    assert_eq!(get(&format!("{secrets}/mine")).await, 403);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "secret": {"secretName": "mine"}}]}});
    let (code, made) = server.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 201, "{made}");
    // At once: nothing has to catch up first.
    assert_eq!(get(&format!("{secrets}/mine")).await, 200);
    assert_eq!(get(&format!("{secrets}?fieldSelector=metadata.name%3Dmine")).await, 200);
    assert_eq!(get(&format!("{secrets}/other")).await, 403);
    assert_eq!(get(secrets).await, 403);
    assert_eq!(get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, 200);
    assert_eq!(get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await, 403);
    assert_eq!(get("/api/v1/pods").await, 403);
    server.call(Method::DELETE, "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0", Value::Null).await;
    assert_eq!(get(&format!("{secrets}/mine")).await, 403);
}

#[tokio::test]
async fn issuer_and_keys_are_told() {
    let server = TestServer::start().await;
    let (_, told) = server.get("/.well-known/openid-configuration").await;
    assert_eq!(told["issuer"], "https://test");
    assert!(told["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"));
    let (_, keys) = server.get("/openid/v1/jwks").await;
    assert_eq!(keys["keys"][0]["kty"], "EC");
    let account = User::authenticated("system:serviceaccount:a:b", ["system:serviceaccounts".to_owned()]);
    let path = "/openid/v1/jwks";
    assert_eq!(server.call_as(Method::GET, path, "", Value::Null, Some(&account)).await.0, 200);
    assert_eq!(server.call_as(Method::GET, path, "", Value::Null, None).await.0, 403);
}

#[tokio::test]
async fn secrets_of_tokens_are_filled_and_go_with_their_account() {
    let server = TestServer::start().await;
    let (secrets, accounts) =
        ("/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/serviceaccounts");
    let secret = json!({"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"});
    // One for nobody goes at once.
    let (code, made) = server.post(secrets, secret.clone()).await;
    assert_eq!(code, 201, "{made}");
    server.until(async || server.get(&format!("{secrets}/t")).await.0 == 404).await;
    let (_, account) = server.post(accounts, json!({"metadata": {"name": "robot"}})).await;
    server.post(secrets, secret).await;
    let read = async || server.get(&format!("{secrets}/t")).await.1;
    server.until(async || read().await["data"]["token"].is_string()).await;
    let filled = read().await;
    assert_eq!(
        filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"],
        account["metadata"]["uid"]
    );
    let data = |key: &str| {
        String::from_utf8(types::decode_base64(filled["data"][key].as_str().unwrap()).unwrap()).unwrap()
    };
    assert_eq!(data("namespace"), "default");
    assert!(data("ca.crt").starts_with("-----BEGIN CERTIFICATE"));
    let who = async || {
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("authorization", format!("Bearer {}", data("token")))
            .header("content-type", "application/json")
            .body(crate::respond::full("{}"))
            .unwrap();
        server.send(request, None).await
    };
    let (code, known) = who().await;
    assert_eq!(
        (code, &known["status"]["userInfo"]["username"]),
        (201, &json!("system:serviceaccount:default:robot")),
        "{known}"
    );
    let used = read().await;
    assert_eq!(used["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"], "2026-01-01");
    who().await;
    assert_eq!(
        read().await["metadata"]["resourceVersion"],
        used["metadata"]["resourceVersion"],
        "once a day"
    );
    // What is marked invalid lets nobody in.
    let path = format!("{secrets}/t");
    let mark =
        |value: Value| json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": value}}});
    server.patch(&path, "application/merge-patch+json", mark(json!("2026-01-01"))).await;
    assert_eq!(who().await.0, 401);
    server.patch(&path, "application/merge-patch+json", mark(Value::Null)).await;
    assert_eq!(who().await.0, 201);
    // A token that is taken out is made anew; the account takes its Secrets along.
    server.patch(&path, "application/merge-patch+json", json!({"data": {"token": null}})).await;
    server.until(async || read().await["data"]["token"].is_string()).await;
    assert_eq!(server.call(Method::DELETE, &format!("{accounts}/robot"), Value::Null).await.0, 200);
    server.until(async || server.get(&path).await.0 == 404).await;
    assert_eq!(who().await.0, 401);
}

#[tokio::test]
async fn a_review_has_no_metadata_of_its_own() {
    let server = TestServer::start().await;
    let review = |metadata: Value| {
        let spec = json!({"resourceAttributes": {"verb": "get", "resource": "pods"}});
        server.post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json!({"metadata": metadata, "spec": spec}),
        )
    };
    assert_eq!(review(json!({"creationTimestamp": null, "generation": 0, "name": ""})).await.0, 201);
    let (code, refused) = review(json!({"name": "x"})).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("must be empty"), "{refused}");
}
