use http::Method;
use serde_json::{Value, json};

use super::{MAPS, TestServer};

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn an_object_lives_and_dies() {
    let server = TestServer::start().await;
    let (code, made) = server.post(MAPS, map("m")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    let (code, again) = server.post(MAPS, map("m")).await;
    assert_eq!((code, again["message"].as_str().unwrap()), (409, "configmaps \"m\" already exists"));

    let path = format!("{MAPS}/m");
    let (_, got) = server.get(&path).await;
    assert_eq!(got, made);
    let mut changed = made.clone();
    changed["data"]["a"] = "2".into();
    let (code, changed) = server.call(Method::PUT, &path, changed).await;
    assert_eq!(code, 200, "{changed}");
    assert_ne!(changed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (code, stale) =
        server.call(Method::PUT, &path, json!({"metadata": made["metadata"], "data": {"a": "3"}})).await;
    assert_eq!((code, stale["reason"].as_str().unwrap()), (409, "Conflict"));
    let (code, same) = server.call(Method::PUT, &path, changed.clone()).await;
    assert_eq!((code, &same), (200, &changed), "a write that changes nothing is none");

    let (code, gone) = server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!((code, gone["status"].as_str().unwrap()), (200, "Success"));
    let (code, none) = server.get(&path).await;
    assert_eq!((code, none["message"].as_str().unwrap()), (404, "configmaps \"m\" not found"));
}

#[tokio::test]
async fn patches_of_every_kind() {
    let server = TestServer::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let (code, made) = server.post(deployments, deployment()).await;
    assert_eq!((code, &made["metadata"]["generation"]), (201, &json!(1)), "{made}");
    let path = format!("{deployments}/web");
    let containers = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}, {"name": "d", "image": "k"}]}}}});
    let (code, merged) = server.patch(&path, "application/strategic-merge-patch+json", containers).await;
    assert_eq!((code, &merged["metadata"]["generation"]), (200, &json!(2)), "{merged}");
    let list = &merged["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        (&list[0]["image"], &list[0]["imagePullPolicy"], &list[1]["name"]),
        (&json!("j"), &json!("Always"), &json!("d"))
    );
    let (_, merged) = server
        .patch(&path, "application/merge-patch+json", json!({"metadata": {"labels": {"x": "y"}}}))
        .await;
    assert_eq!(
        (&merged["metadata"]["labels"]["x"], &merged["metadata"]["generation"]),
        (&json!("y"), &json!(2))
    );
    let (code, _) = server
        .patch(
            &path,
            "application/json-patch+json",
            json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]),
        )
        .await;
    assert_eq!(code, 200);
    let (code, bad) = server
        .patch(
            &path,
            "application/json-patch+json",
            json!([{"op": "test", "path": "/spec/replicas", "value": 9}]),
        )
        .await;
    assert_eq!(code, 422, "{bad}");
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let server = TestServer::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    server.post(deployments, deployment()).await;
    let path = format!("{deployments}/web");
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 2}});
    let (_, after) = server.patch(&format!("{path}/status"), "application/merge-patch+json", status).await;
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(1), &json!(2)));
    let (_, scale) = server.get(&format!("{path}/scale")).await;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(1), &json!("a=b"))
    );
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = 4.into();
    let (code, _) = server.call(Method::PUT, &format!("{path}/scale"), wanted).await;
    assert_eq!(code, 200);
    let (_, after) = server.get(&path).await;
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(4), &json!(2)));
}

#[tokio::test]
async fn finalizers_hold_and_grace_waits() {
    let server = TestServer::start().await;
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, held).await;
    let path = format!("{MAPS}/held");
    let (code, going) = server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!((code, &going["metadata"]["deletionTimestamp"]), (200, &json!("2026-01-01T00:00:00Z")));
    let (code, _) =
        server.patch(&path, "application/merge-patch+json", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    assert_eq!(server.get(&path).await.0, 404);

    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let (code, pod) = server
        .post(pods, json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}))
        .await;
    assert_eq!((code, &pod["status"]["qosClass"]), (201, &json!("BestEffort")), "{pod}");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let (code, bound) = server.post(&format!("{pods}/p/binding"), binding.clone()).await;
    assert_eq!(code, 201, "{bound}");
    assert_eq!(server.post(&format!("{pods}/p/binding"), binding).await.0, 409);
    let (_, going) = server.call(Method::DELETE, &format!("{pods}/p"), Value::Null).await;
    assert_eq!(
        (&going["metadata"]["deletionTimestamp"], &going["metadata"]["deletionGracePeriodSeconds"]),
        (&json!("2026-01-01T00:00:30Z"), &json!(30))
    );
    let (_, now) = server.call(Method::DELETE, &format!("{pods}/p"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(now["status"], "Success", "{now}");
}

#[tokio::test]
async fn nothing_is_kept_for_a_garbage_collector_that_is_not_there() {
    for (server, is_kept) in [(TestServer::start().await, true), (TestServer::uncollected().await, false)] {
        for wish in ["Foreground", "Orphan"] {
            server.post(MAPS, map("m")).await;
            let path = format!("{MAPS}/m?propagationPolicy={wish}");
            let (code, gone) = server.call(Method::DELETE, &path, Value::Null).await;
            assert_eq!(code, 200, "{gone}");
            let (code, left) = server.get(&format!("{MAPS}/m")).await;
            assert_eq!(code == 200, is_kept, "{wish}: {left}");
            let free = json!({"metadata": {"finalizers": null}});
            server.patch(&format!("{MAPS}/m"), "application/merge-patch+json", free).await;
        }
    }
}

#[tokio::test]
async fn namespaces_go_when_finalized() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "a"}})).await;
    let (_, going) = server.call(Method::DELETE, "/api/v1/namespaces/a", Value::Null).await;
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, refused) = server.post("/api/v1/namespaces/a/configmaps", map("m")).await;
    assert_eq!(code, 403, "{refused}");
    let (code, _) = server
        .call(
            Method::PUT,
            "/api/v1/namespaces/a/finalize",
            json!({"metadata": {"name": "a"}, "spec": {"finalizers": []}}),
        )
        .await;
    assert_eq!(code, 200);
    assert_eq!(server.get("/api/v1/namespaces/a").await.0, 404);
    assert_eq!(server.call(Method::DELETE, "/api/v1/namespaces/default", Value::Null).await.0, 403);
}

#[tokio::test]
async fn services_get_addresses_and_give_them_back() {
    let server = TestServer::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    let (code, a) = server.post(services, service("a", "NodePort")).await;
    assert_eq!(
        (code, &a["spec"]["clusterIP"], &a["spec"]["ports"][0]["nodePort"]),
        (201, &json!("10.43.0.16"), &json!(30000)),
        "{a}"
    );
    let mut taken = service("b", "NodePort");
    taken["spec"]["ports"][0]["nodePort"] = 30000.into();
    let (code, refused) = server.post(services, taken.clone()).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("provided port is already allocated"), "{refused}");
    server.call(Method::DELETE, &format!("{services}/a"), Value::Null).await;
    let (code, b) = server.post(services, taken).await;
    assert_eq!(code, 201, "{b}");
    let (_, plain) = server
        .patch(
            &format!("{services}/b"),
            "application/merge-patch+json",
            json!({"spec": {"type": "ClusterIP"}}),
        )
        .await;
    assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None, "{plain}");
    for name in ["c", "d", "e", "f"] {
        assert_eq!(server.post(services, service(name, "NodePort")).await.0, 201);
    }
    assert_eq!(server.post(services, service("g", "NodePort")).await.0, 422, "four ports are all there are");
}

#[tokio::test]
async fn an_address_is_an_object_and_comes_back_when_it_is_removed() {
    let server = TestServer::start().await;
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let (_, a) = server.post("/api/v1/namespaces/default/services", service).await;
    let address =
        format!("/apis/networking.k8s.io/v1/ipaddresses/{}", a["spec"]["clusterIP"].as_str().unwrap());
    let (code, first) = server.get(&address).await;
    assert_eq!(code, 200);
    assert_eq!(first["spec"]["parentRef"]["name"], "a");
    let (code, _) = server.call(Method::DELETE, &address, Value::Null).await;
    assert_eq!(code, 200);
    server.until(async || server.get(&address).await.0 == 200).await;
    server.call(Method::DELETE, "/api/v1/namespaces/default/services/a", Value::Null).await;
    assert_eq!(server.get(&address).await.0, 404);
    let server = server.restart().await;
    assert_eq!(server.get(&address).await.0, 404);
    let (_, range) = server.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await;
    assert_eq!(range["spec"]["cidrs"], json!(["10.43.0.0/24"]));
}

#[tokio::test]
async fn ranges_that_people_add_give_addresses_when_they_are_ready() {
    let server = TestServer::start().await;
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let service = |name: &str, address: Value| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "clusterIP": address}});
    let early = server.post(SERVICES, service("early", json!("10.50.0.2"))).await;
    let why = "the provided network does not match the current range 10.43.0.0/24";
    assert!(early.0 == 422 && early.1["message"].as_str().unwrap().contains(why), "{early:?}");
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.50.0.0/29"]}});
    let (code, made) = server.post(RANGES, range).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(server.post(SERVICES, service("early", json!("10.50.0.2"))).await.0, 422, "it is not ready");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let merge = "application/merge-patch+json";
    let (code, said) = server.patch(&format!("{RANGES}/more/status"), merge, ready).await;
    assert_eq!(code, 200, "{said}");
    let (code, given) = server.post(SERVICES, service("early", json!("10.50.0.2"))).await;
    assert_eq!(code, 201, "{given}");
    let (code, address) = server.get("/apis/networking.k8s.io/v1/ipaddresses/10.50.0.2").await;
    assert_eq!((code, &address["spec"]["parentRef"]["name"]), (200, &json!("early")));
    // When the server's own range is full, the added one goes on, to its last address and no further.
    let mut elsewhere = Vec::new();
    let full = loop {
        let name = format!("s{}", elsewhere.len());
        let (code, made) = server
            .post(SERVICES, json!({"metadata": {"generateName": name}, "spec": {"ports": [{"port": 80}]}}))
            .await;
        if code != 201 {
            break made;
        }
        let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        if address.starts_with("10.50.0.") {
            elsewhere.push(address);
        }
    };
    assert!(full["message"].as_str().unwrap().contains("range is full"), "{full}");
    elsewhere.sort();
    assert_eq!(elsewhere, ["10.50.0.1", "10.50.0.3", "10.50.0.4", "10.50.0.5", "10.50.0.6"]);
    // One that goes gives none any more.
    let held = json!({"metadata": {"finalizers": ["networking.k8s.io/service-cidr-finalizer"]}});
    server.patch(&format!("{RANGES}/more"), merge, held).await;
    server.call(Method::DELETE, &format!("{RANGES}/more"), Value::Null).await;
    server.call(Method::DELETE, &format!("{SERVICES}/early"), Value::Null).await;
    let late = server.post(SERVICES, service("late", json!("10.50.0.2"))).await;
    assert_eq!(late.0, 422, "{late:?}");
}

/// Two who delete one address used to wait for each other for ever.
#[tokio::test]
async fn addresses_are_written_like_anything_else() {
    const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
    let server = TestServer::start().await;
    let parent = json!({"resource": "things", "group": "example", "name": "x", "namespace": "default"});
    let address = json!({"metadata": {"name": "192.0.2.1"}, "spec": {"parentRef": parent}});
    let (code, made) = server.post(ADDRESSES, address.clone()).await;
    assert_eq!(code, 201, "{made}");
    let (code, again) = server.post(ADDRESSES, address).await;
    let taken = "ipaddresses.networking.k8s.io \"192.0.2.1\" already exists";
    assert_eq!((code, again["message"].as_str().unwrap()), (409, taken));
    let registry = server.api.0.registry();
    let def = registry.find("networking.k8s.io", "v1", "ipaddresses").unwrap();
    let first = server.api.0.remove(def, "", &made, store::Expect::Present).await;
    let second = server.api.0.remove(def, "", &made, store::Expect::Present).await;
    assert!(first.is_ok() && matches!(second, Err(store::CommitError::NotFound { .. })), "{second:?}");
}

#[tokio::test]
async fn says_what_is_wrong_with_input() {
    let server = TestServer::start().await;
    for (path, body, code, message) in [
        (
            MAPS,
            json!({"metadata": {"name": "A"}}),
            422,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
        ),
        (
            MAPS,
            json!({"metadata": {}}),
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            MAPS,
            json!({"apiVersion": "v2", "metadata": {"name": "a"}}),
            400,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "a"}, "data": {"a": 1}}),
            400,
            "json: cannot unmarshal number into Go struct field ConfigMap.data.a of type string",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "a", "namespace": "b"}}),
            400,
            "does not match the namespace sent on the request",
        ),
        (
            "/api/v1/namespaces/none/configmaps",
            json!({"metadata": {"name": "a"}}),
            404,
            "namespaces \"none\" not found",
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": {"name": "a"}}),
            422,
            "spec.selector: Required value",
        ),
    ] {
        let (got, status) = server.post(path, body).await;
        assert_eq!(got, code, "{status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{status}");
    }
    let (code, strict) = server
        .post(&format!("{MAPS}?fieldValidation=Strict"), json!({"metadata": {"name": "a"}, "dta": {}}))
        .await;
    assert_eq!(code, 400);
    assert!(
        strict["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"dta\""),
        "{strict}"
    );
    let (code, dry) = server.post(&format!("{MAPS}?dryRun=All"), map("dry")).await;
    assert_eq!((code, server.get(&format!("{MAPS}/dry")).await.0), (201, 404), "{dry}");
    let (_, generated) = server.post(MAPS, json!({"metadata": {"generateName": "x-"}})).await;
    assert_eq!(generated["metadata"]["name"].as_str().unwrap().len(), 7);
}

/// One object that typed clients cannot read would stop the watch of its whole kind.
#[tokio::test]
async fn subresources_take_only_what_fits_their_types() {
    let server = TestServer::start().await;
    let (code, refused) = server
        .call(
            Method::PUT,
            "/api/v1/namespaces/default/finalize",
            json!({"metadata": {"name": "default"}, "spec": {"finalizers": [{"a": 1}]}}),
        )
        .await;
    assert_eq!((code, refused["reason"].as_str().unwrap()), (400, "BadRequest"), "{refused}");
    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.post(pods, pod).await.0, 201);
    let binding = json!({"metadata": {"name": "p", "annotations": {"a": 5}}, "target": {"name": "n"}});
    let (code, refused) = server.post(&format!("{pods}/p/binding"), binding).await;
    assert_eq!(code, 400, "{refused}");
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "no base64!"}});
    let (code, refused) = server.post("/api/v1/namespaces/default/secrets", secret).await;
    assert_eq!(code, 400, "{refused}");
    let lease = json!({"metadata": {"name": "l"}, "spec": {"renewTime": "tomorrow"}});
    let (code, refused) = server.post("/apis/coordination.k8s.io/v1/namespaces/default/leases", lease).await;
    assert_eq!(code, 400, "{refused}");
}

#[tokio::test]
async fn a_small_patch_cannot_blow_up_the_server() {
    let server = TestServer::start().await;
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let made = json!({"metadata": {"name": "r"}, "revision": 1, "data": {"text": "x".repeat(1000)}});
    assert_eq!(server.post(revisions, made).await.0, 201);
    let path = format!("{revisions}/r");
    let wrap = [
        json!({"op": "add", "path": "/n", "value": {}}),
        json!({"op": "move", "from": "/data", "path": "/n/c"}),
        json!({"op": "move", "from": "/n", "path": "/data"}),
    ];
    let deep: Vec<Value> = wrap.iter().cycle().take(9999).cloned().collect();
    let double: Vec<Value> =
        (0..60).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/c{n}")})).collect();
    for patch in [deep, double] {
        let (code, refused) = server.patch(&path, "application/json-patch+json", patch.into()).await;
        assert_eq!((code, refused["reason"].as_str().unwrap()), (422, "Invalid"), "{refused}");
    }
    assert_eq!(server.get(&path).await.1["data"]["text"], "x".repeat(1000));
}

#[tokio::test]
async fn fields_that_come_twice_are_told_or_refused() {
    let server = TestServer::start().await;
    let body = r#"{"metadata": {"name": "m"}, "data": {"a": "1", "a": "2"}, "datum": 1}"#;
    let send = async |query: &str| {
        let request = http::Request::post(format!("{MAPS}?{query}"))
            .header("content-type", "application/json")
            .body(crate::respond::full(body))
            .unwrap();
        let response = server.api.handle(request, Some(&server.admin)).await;
        let warnings = response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned());
        (response.status().as_u16(), warnings.collect::<Vec<_>>())
    };
    assert_eq!(send("fieldValidation=Strict").await.0, 400);
    let (code, warnings) = send("").await;
    assert_eq!(code, 201);
    assert_eq!(warnings, [r#"299 - "duplicate field \"data.a\"""#, r#"299 - "unknown field \"datum\"""#]);
    let (_, made) = server.get(&format!("{MAPS}/m")).await;
    assert_eq!(made["data"]["a"], "2");
    let path = format!("{MAPS}/m?fieldValidation=Strict");
    let patch = json!({"datum": 1});
    let (code, refused) = server.patch(&path, "application/merge-patch+json", patch).await;
    assert_eq!((code, refused["message"].as_str().unwrap().contains("unknown field \"datum\"")), (400, true));
}

#[tokio::test]
async fn what_would_be_filled_in_anyway_is_no_change() {
    let server = TestServer::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let (_, made) = server.post(deployments, deployment()).await;
    let mut again = deployment();
    again["metadata"]["name"] = "web".into();
    let (code, same) = server.call(Method::PUT, &format!("{deployments}/web"), again).await;
    assert_eq!((code, &same), (200, &made));
}

#[tokio::test]
async fn small_writes_are_put_down_to_their_writers() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}});
    let (code, made) = server.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 201, "{made}");
    let strategic = "application/strategic-merge-patch+json";
    let owner = |object: &Value, subresource: &str| {
        let fields = object["metadata"]["managedFields"].as_array().unwrap();
        fields
            .iter()
            .find(|f| f["subresource"] == subresource)
            .cloned()
            .unwrap_or_else(|| panic!("{object:#}"))
    };
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    let path = "/api/v1/namespaces/default/pods/a/ephemeralcontainers?fieldManager=debugger";
    let (code, written) = server.patch(path, strategic, debug.clone()).await;
    assert_eq!(code, 200, "{written}");
    let own = owner(&written, "ephemeralcontainers");
    assert_eq!((&own["manager"], &own["operation"]), (&json!("debugger"), &json!("Update")));
    assert!(!own["fieldsV1"]["f:spec"]["f:ephemeralContainers"]["k:{\"name\":\"e\"}"].is_null(), "{own}");
    let (_, again) = server.patch(path, strategic, debug).await;
    assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
    let more = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    let path = "/api/v1/namespaces/default/pods/a/resize?fieldManager=sizer";
    let (code, written) = server.patch(path, strategic, more).await;
    assert_eq!(code, 200, "{written}");
    let own = owner(&written, "resize");
    assert_eq!(own["manager"], "sizer");
    let container = &own["fieldsV1"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!(container["f:resources"]["f:requests"]["f:cpu"], json!({}), "{own}");
    // Namespaces and certificate requests.
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    let (_, mut namespace) = server.get("/api/v1/namespaces/n").await;
    namespace["spec"]["finalizers"] = json!(["kubernetes", "example.com/mine"]);
    let path = "/api/v1/namespaces/n/finalize?fieldManager=ender";
    let (code, written) = server.call(Method::PUT, path, namespace).await;
    assert_eq!(code, 200, "{written}");
    assert_eq!(owner(&written, "finalize")["manager"], "ender");
    let group = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let request = request.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    use base64::Engine as _;
    let request = base64::engine::general_purpose::STANDARD.encode(request);
    let request = json!({"metadata": {"name": "r"}, "spec": {"request": request, "signerName": "example.com/x", "usages": ["client auth"]}});
    let (code, mut request) = server.post(group, request).await;
    assert_eq!(code, 201, "{request}");
    request["status"] =
        json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]});
    let (code, written) =
        server.call(Method::PUT, &format!("{group}/r/approval?fieldManager=boss"), request).await;
    assert_eq!(code, 200, "{written}");
    assert_eq!(owner(&written, "approval")["manager"], "boss");
}
