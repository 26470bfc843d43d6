use super::hook::{Hook, patched};
use super::*;

fn configuration(kind: &str, name: &str, hooks: Vec<Value>) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "webhooks": hooks})
}

impl TestServer {
    async fn mutating(&self, name: &str, hooks: Vec<Value>) {
        let object = configuration("MutatingWebhookConfiguration", name, hooks);
        self.made(&format!("{REG}/mutatingwebhookconfigurations"), object).await;
    }

    async fn validating(&self, name: &str, hooks: Vec<Value>) {
        let object = configuration("ValidatingWebhookConfiguration", name, hooks);
        self.made(&format!("{REG}/validatingwebhookconfigurations"), object).await;
    }
}

#[tokio::test]
async fn the_review_says_all_there_is_to_know() {
    let (server, hook) = (TestServer::start().await, Hook::start().await);
    server.validating("v", vec![hook.webhook("see")]).await;
    let user = auth::User {
        name: "eve".into(),
        uid: "7".into(),
        groups: vec![auth::User::MASTERS.into(), "devs".into()],
        extra: [("team".to_owned(), vec!["a".to_owned()])].into(),
    };
    let path = format!("{MAPS}?dryRun=All&fieldManager=me");
    let (code, _) = server
        .call_as(Method::POST, &path, "application/json", map("a", json!({"x": "1"})), Some(&user))
        .await;
    assert_eq!(code, 201);
    let (_, review) = hook.taken().pop().unwrap();
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    let mut request = review["request"].clone();
    for field in ["uid", "object"] {
        assert!(request.as_object_mut().unwrap().remove(field).is_some());
    }
    let (kind, resource) = (
        json!({"group": "", "version": "v1", "kind": "ConfigMap"}),
        json!({"group": "", "version": "v1", "resource": "configmaps"}),
    );
    assert_eq!(
        request,
        json!({"kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
            "name": "a", "namespace": "default", "operation": "CREATE", "dryRun": true, "oldObject": null,
            "userInfo": {"username": "eve", "uid": "7", "groups": ["system:masters", "devs"], "extra": {"team": ["a"]}},
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "me"}})
    );
    server.made(MAPS, map("a", json!({"x": "1"}))).await;
    server.patch(&format!("{MAPS}/a"), "application/merge-patch+json", json!({"data": {"x": "2"}})).await;
    server.gone(&format!("{MAPS}/a")).await;
    let seen = hook.taken();
    let brief: Vec<_> = seen
        .iter()
        .map(|(_, r)| {
            let r = &r["request"];
            (
                r["operation"].as_str().unwrap(),
                r["object"]["data"]["x"].as_str(),
                r["oldObject"]["data"]["x"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        brief,
        [("CREATE", Some("1"), None), ("UPDATE", Some("2"), Some("1")), ("DELETE", None, Some("2"))]
    );
    assert_eq!(seen[1].1["request"]["options"]["kind"], "PatchOptions");
}

#[tokio::test]
async fn refusals_and_failures_are_worded_as_upstream_words_them() {
    let (server, hook) = (TestServer::start().await, Hook::start().await);
    server.validating("v", vec![hook.webhook("judge")]).await;
    for (answer, code, message) in [
        (
            json!({"allowed": false, "status": {"message": "not so", "code": 409, "reason": "Conflict"}}),
            409,
            "admission webhook \"judge.example.com\" denied the request: not so",
        ),
        (
            json!({"allowed": false}),
            400,
            "admission webhook \"judge.example.com\" denied the request without explanation",
        ),
        (
            json!({"allowed": false, "status": {"reason": "TooBig", "code": 200}}),
            400,
            "admission webhook \"judge.example.com\" denied the request: TooBig",
        ),
        (
            patched(json!([{"op": "add", "path": "/data/y", "value": "1"}])),
            500,
            "Internal error occurred: failed calling webhook \"judge.example.com\": received invalid webhook response: a validating webhook may not return response.patch",
        ),
        (
            json!({"allowed": true, "uid": "other"}),
            500,
            "Internal error occurred: failed calling webhook \"judge.example.com\": received invalid webhook response: expected response.uid=",
        ),
    ] {
        hook.answers(move |_, _| answer.clone());
        let (got, said) = server.post(MAPS, map("a", json!({}))).await;
        assert_eq!((got, said["status"].as_str()), (code, Some("Failure")), "{said}");
        assert!(said["message"].as_str().unwrap().starts_with(message), "{said}");
    }
    // A hook that is not there: the failure policy decides.
    let mut lost = hook.webhook("lost");
    lost["clientConfig"]["url"] = "https://127.0.0.1:1/lost".into();
    lost["rules"][0]["resources"] = json!(["secrets"]);
    server.validating("w", vec![lost.clone()]).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let (code, said) = server.post(secrets, secret.clone()).await;
    assert_eq!(code, 500);
    assert_eq!(
        said["message"],
        "Internal error occurred: failed calling webhook \"lost.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/lost?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
    let place = format!("{REG}/validatingwebhookconfigurations/w");
    let ignore = json!([{"op": "add", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    assert_eq!(server.patch(&place, "application/json-patch+json", ignore).await.0, 200);
    server.made(secrets, secret).await;
}

#[tokio::test]
async fn mutations_come_in_order_and_again_where_asked() {
    let (server, hook) = (TestServer::start().await, Hook::start().await);
    let mut first = hook.webhook("first");
    first["reinvocationPolicy"] = "IfNeeded".into();
    server.mutating("a", vec![first, hook.webhook("second")]).await;
    hook.answers(|path, request| {
        let data = &request["object"]["data"];
        let seen = |key: &str| data.get(key).is_some();
        match path {
            "/first" if !seen("one") => patched(json!([{"op": "add", "path": "/data/one", "value": "1"}])),
            "/first" if seen("two") && !seen("three") => {
                patched(json!([{"op": "add", "path": "/data/three", "value": "3"}]))
            }
            "/second" => {
                let mut answer = patched(json!([{"op": "add", "path": "/data/two", "value": "2"}]));
                answer["warnings"] = json!(["mind the gap"]);
                answer
            }
            _ => json!({"allowed": true}),
        }
    });
    let made = server.made(MAPS, map("a", json!({"zero": "0"}))).await;
    assert_eq!(made["data"], json!({"zero": "0", "one": "1", "two": "2", "three": "3"}));
    let paths: Vec<String> = hook.taken().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/first", "/second", "/first"]);
    // The configurations themselves are never shown to a hook.
    let mut all = hook.webhook("all");
    all["rules"] = json!([{"operations": ["*"], "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    server.mutating("b", vec![all]).await;
    hook.taken();
    hook.answers(|_, _| json!({"allowed": false}));
    server.gone(&format!("{REG}/mutatingwebhookconfigurations/b")).await;
    server.gone(&format!("{REG}/mutatingwebhookconfigurations/a")).await;
    assert!(hook.taken().is_empty());
}

#[tokio::test]
async fn selectors_conditions_and_side_effects_say_when() {
    let (server, hook) = (TestServer::start().await, Hook::start().await);
    let mut picky = hook.webhook("picky");
    picky["objectSelector"] = json!({"matchLabels": {"look": "yes"}});
    picky["namespaceSelector"] = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]});
    picky["matchConditions"] = json!([{"name": "big", "expression": "size(object.data) > 1"},
        {"name": "not-admin", "expression": "request.userInfo.username == 'admin'"}]);
    server.validating("v", vec![picky]).await;
    let labelled = |name: &str, data: Value| {
        let mut map = map(name, data);
        map["metadata"]["labels"] = json!({"look": "yes"});
        map
    };
    server.made(MAPS, map("a", json!({"x": "1", "y": "2"}))).await;
    server.made(MAPS, labelled("b", json!({"x": "1"}))).await;
    server
        .made("/api/v1/namespaces/kube-system/configmaps", labelled("c", json!({"x": "1", "y": "2"})))
        .await;
    assert!(hook.taken().is_empty());
    server.made(MAPS, labelled("d", json!({"x": "1", "y": "2"}))).await;
    assert_eq!(hook.taken().len(), 1);
    // A condition that fails, and none that says no.
    let (code, said) = server
        .post(MAPS, {
            let mut map = labelled("e", Value::Null);
            map.as_object_mut().unwrap().remove("data");
            map
        })
        .await;
    assert_eq!(code, 403);
    assert_eq!(
        said["message"],
        "configmaps \"e\" is forbidden: expression 'size(object.data) > 1' resulted in error: no such key: data"
    );
    let (code, said) = server
        .post(
            &format!("{REG}/validatingwebhookconfigurations"),
            configuration(
                "ValidatingWebhookConfiguration",
                "w",
                vec![{
                    let mut bad = hook.webhook("bad");
                    bad["matchConditions"] = json!([{"name": "x", "expression": "object.x +"}]);
                    bad
                }],
            ),
        )
        .await;
    assert_eq!(code, 422);
    assert!(said["message"].as_str().unwrap().contains("webhooks[0].matchConditions[0].expression: Invalid value: \"object.x +\": compilation failed: ERROR: <input>:1:11: Syntax error"), "{said}");
}

#[tokio::test]
async fn other_versions_and_subresources_are_matched() {
    let (server, hook) = (TestServer::start().await, Hook::start().await);
    let mut old = hook.webhook("old");
    old["rules"] = json!([{"operations": ["UPDATE", "CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"]}]);
    let mut scale = hook.webhook("scale");
    scale["rules"] = json!([{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["*"],
        "resources": ["deployments/scale"]}]);
    server.mutating("v", vec![old, scale]).await;
    let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    hook.answers(|path, _| match path {
        "/old" => patched(json!([{"op": "replace", "path": "/spec/maxReplicas", "value": 4}])),
        _ => json!({"allowed": true}),
    });
    let made = server.made("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", hpa).await;
    assert_eq!((&made["apiVersion"], &made["spec"]["maxReplicas"]), (&json!("autoscaling/v2"), &json!(4)));
    let (_, review) = hook.taken().remove(0);
    assert_eq!(review["request"]["object"]["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(review["request"]["kind"]["version"], "v1");
    assert_eq!(review["request"]["requestKind"]["version"], "v2");

    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    server.made(deployments, deployment).await;
    hook.answers(|_, _| patched(json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])));
    let (code, scaled) = server
        .patch(
            &format!("{deployments}/d/scale"),
            "application/merge-patch+json",
            json!({"spec": {"replicas": 9}}),
        )
        .await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(2)));
    let (path, review) = hook.taken().remove(0);
    let request = &review["request"];
    assert_eq!(path, "/scale");
    assert_eq!((&request["subResource"], &request["kind"]["kind"]), (&json!("scale"), &json!("Scale")));
    assert_eq!(
        (&request["object"]["spec"]["replicas"], &request["oldObject"]["spec"]["replicas"]),
        (&json!(9), &json!(1))
    );
}

#[tokio::test]
async fn questions_and_small_writes_pass_webhooks() {
    let (server, hook) = (TestServer::start().await, Hook::start().await);
    server.made("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    server.made("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for name in ["a", "b"] {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        server.made("/api/v1/namespaces/default/pods", pod).await;
    }
    let mut see = hook.webhook("see");
    see["rules"] =
        json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]);
    server.validating("v", vec![see]).await;
    hook.taken();
    let default = "/api/v1/namespaces/default";
    let access = json!({"spec": {"user": "x", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let authz = "/apis/authorization.k8s.io/v1";
    for (path, body, kind, resource, subresource, name, namespace) in [
        (
            format!("{authz}/subjectaccessreviews"),
            access.clone(),
            "SubjectAccessReview",
            "subjectaccessreviews",
            "",
            "",
            "",
        ),
        (
            format!("{authz}/namespaces/default/localsubjectaccessreviews"),
            access,
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            "",
            "",
            "default",
        ),
        (
            format!("{authz}/selfsubjectrulesreviews"),
            json!({"spec": {"namespace": "default"}}),
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
            "",
            "",
            "",
        ),
        (
            "/apis/authentication.k8s.io/v1/tokenreviews".to_owned(),
            json!({"spec": {"token": "x"}}),
            "TokenReview",
            "tokenreviews",
            "",
            "",
            "",
        ),
        (
            "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
            json!({}),
            "SelfSubjectReview",
            "selfsubjectreviews",
            "",
            "",
            "",
        ),
        (
            format!("{default}/serviceaccounts/default/token"),
            json!({"spec": {}}),
            "TokenRequest",
            "serviceaccounts",
            "token",
            "default",
            "default",
        ),
        (
            format!("{default}/pods/a/binding"),
            json!({"metadata": {"name": "a"}, "target": {"name": "n1"}}),
            "Binding",
            "pods",
            "binding",
            "a",
            "default",
        ),
        (
            format!("{default}/bindings"),
            json!({"metadata": {"name": "b"}, "target": {"name": "n1"}}),
            "Binding",
            "bindings",
            "",
            "b",
            "default",
        ),
        (
            format!("{default}/pods/a/eviction"),
            json!({"metadata": {"name": "a"}}),
            "Eviction",
            "pods",
            "eviction",
            "a",
            "default",
        ),
    ] {
        let (code, said) = server.post(&path, body).await;
        assert_eq!(code, 201, "{path} {said}");
        let seen: Vec<Value> = hook.taken().into_iter().map(|(_, r)| r["request"].clone()).collect();
        let asked =
            seen.iter().find(|r| r["kind"]["kind"] == kind).unwrap_or_else(|| panic!("{path} {seen:?}"));
        let text = |field: &str| asked[field].as_str().unwrap_or_default();
        assert_eq!(
            (
                text("operation"),
                asked["resource"]["resource"].as_str().unwrap(),
                text("subResource"),
                text("name"),
                text("namespace")
            ),
            ("CREATE", resource, subresource, name, namespace),
            "{path}"
        );
        assert_eq!(asked["object"]["kind"], kind, "{path}");
    }
    hook.answers(
        |_, r| json!({"allowed": r["kind"]["kind"] != "SelfSubjectReview", "status": {"message": "no"}}),
    );
    let (code, _) = server.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(code, 400);
    let odd =
        json!({"metadata": {"name": "x"}, "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let (code, refused) = server.post(&format!("{authz}/selfsubjectaccessreviews"), odd).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("metadata")));
}
