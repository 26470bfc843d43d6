//! The kinds of volume snapshots, which every cluster starts with.

use auth::User;
use http::Method;
use serde_json::{Value, json};

use super::TestServer;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GROUP: &str = "/apis/snapshot.storage.k8s.io/v1";
const SNAPSHOTS: &str = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots";
const MERGE: &str = "application/merge-patch+json";

fn snapshot(name: &str, source: Value) -> Value {
    json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": name},
        "spec": {"source": source}})
}

fn content(name: &str, node: &str) -> Value {
    json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "labels": {"local.gantry.io/node": node},
            "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]},
        "spec": {"driver": "local.gantry.io", "deletionPolicy": "Delete", "source": {"volumeHandle": "v"},
            "volumeSnapshotRef": {"namespace": "default", "name": "s", "uid": "1"}}})
}

#[tokio::test]
async fn fields_have_upstreams_rules() {
    let server = TestServer::start().await;
    for name in ["volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses"] {
        let (_, crd) = server.get(&format!("{CRDS}/{name}.snapshot.storage.k8s.io")).await;
        let conditions = crd["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().all(|c| c["type"] != "NonStructuralSchema"), "{crd}");
        assert!(conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"), "{crd}");
    }
    let (_, class) = server.get(&format!("{GROUP}/volumesnapshotclasses/local")).await;
    assert_eq!(class["driver"], "local.gantry.io");
    assert_eq!(class["metadata"]["annotations"]["snapshot.storage.kubernetes.io/is-default-class"], "true");
    for source in [json!({}), json!({"persistentVolumeClaimName": "c", "volumeSnapshotContentName": "d"})] {
        let (code, said) = server.post(SNAPSHOTS, snapshot("bad", source)).await;
        assert_eq!(code, 422, "{said}");
        assert!(said["message"].as_str().unwrap().contains("exactly one of"), "{said}");
    }
    let (code, made) = server.post(SNAPSHOTS, snapshot("s", json!({"persistentVolumeClaimName": "c"}))).await;
    assert_eq!(code, 201, "{made}");
    let path = format!("{SNAPSHOTS}/s");
    let change = |spec: Value| server.patch(&path, MERGE, json!({"spec": spec}));
    let (code, said) = change(json!({"source": {"persistentVolumeClaimName": "d"}})).await;
    assert!(code == 422 && said["message"].as_str().unwrap().contains("is immutable"), "{said}");
    let (code, said) = change(json!({"source": {"persistentVolumeClaimName": null}})).await;
    assert!(code == 422 && said["message"].as_str().unwrap().contains("is required once set"), "{said}");
    let (code, said) = change(json!({"volumeSnapshotClassName": ""})).await;
    assert!(
        code == 422 && said["message"].as_str().unwrap().contains("must not be the empty string"),
        "{said}"
    );
    assert_eq!(change(json!({"volumeSnapshotClassName": "local"})).await.0, 200);
    let status =
        json!({"status": {"readyToUse": true, "restoreSize": "1Gi", "creationTime": "2026-01-01T00:00:00Z"}});
    let (code, said) = server.patch(&format!("{path}/status"), MERGE, status.clone()).await;
    assert_eq!((code, &said["status"]["restoreSize"]), (200, &json!("1Gi")), "{said}");
    // The status is written by itself.
    let (_, said) = server.patch(&path, MERGE, json!({"status": {"readyToUse": false}})).await;
    assert_eq!(said["status"]["readyToUse"], true);
    let contents = format!("{GROUP}/volumesnapshotcontents");
    let mut nowhere = content("c", "n1");
    types::object(&mut nowhere["spec"]["volumeSnapshotRef"]).remove("namespace");
    let (code, said) = server.post(&contents, nowhere).await;
    assert!(code == 422 && said["message"].as_str().unwrap().contains("must be set"), "{said}");
    assert_eq!(server.post(&contents, content("c", "n1")).await.0, 201);
    let (code, said) = server
        .patch(&format!("{contents}/c"), MERGE, json!({"spec": {"source": {"volumeHandle": "w"}}}))
        .await;
    assert!(code == 422 && said["message"].as_str().unwrap().contains("is immutable"), "{said}");
}

#[tokio::test]
async fn definitions_that_somebody_has_applied_stay() {
    let server = TestServer::start().await;
    assert_eq!(server.post(SNAPSHOTS, snapshot("s", json!({"persistentVolumeClaimName": "c"}))).await.0, 201);
    let path = format!("{CRDS}/volumesnapshots.snapshot.storage.k8s.io");
    let (_, mut crd) = server.get(&path).await;
    // As upstream's have it: an older version besides, and another word about who agreed.
    let mut old = crd["spec"]["versions"][0].clone();
    for (field, value) in [("name", json!("v1beta1")), ("served", json!(false)), ("storage", json!(false))] {
        old[field] = value;
    }
    crd["spec"]["versions"].as_array_mut().unwrap().push(old);
    crd["metadata"]["annotations"]["api-approved.kubernetes.io"] = "https://example.com/1".into();
    let (code, said) = server.call(Method::PUT, &path, crd).await;
    assert_eq!(code, 200, "{said}");
    let class = format!("{GROUP}/volumesnapshotclasses/local");
    assert_eq!(server.call(Method::DELETE, &class, Value::Null).await.0, 200);
    let contents = format!("{CRDS}/volumesnapshotcontents.snapshot.storage.k8s.io");
    assert_eq!(server.call(Method::DELETE, &contents, Value::Null).await.0, 200);
    server.until(|| async { server.get(&contents).await.0 == 404 }).await;
    let server = server.restart().await;
    let (_, crd) = server.get(&path).await;
    assert_eq!(crd["spec"]["versions"].as_array().unwrap().len(), 2);
    assert_eq!(crd["metadata"]["annotations"]["api-approved.kubernetes.io"], "https://example.com/1");
    assert_eq!(server.get(&format!("{SNAPSHOTS}/s")).await.0, 200);
    assert_eq!(server.get(&class).await.0, 200, "what is missing is made");
    assert_eq!(server.post(&format!("{GROUP}/volumesnapshotcontents"), content("c", "n1")).await.0, 201);
}

/// A node's rights, through the whole pipeline.
#[tokio::test]
async fn a_node_looks_after_its_own_contents_only() {
    let settings = ::admission::Settings { enable: vec!["NodeRestriction".into()], ..Default::default() };
    let server = TestServer::with_admission(Default::default(), settings).await;
    let contents = format!("{GROUP}/volumesnapshotcontents");
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        assert_eq!(server.post(&contents, content(name, node)).await.0, 201);
    }
    let node = User::authenticated("system:node:n1", ["system:nodes".to_owned()]);
    let ask = |method: Method, path: String, body: Value| {
        let (server, node) = (&server, &node);
        async move { server.call_as(method, &path, MERGE, body, Some(node)).await }
    };
    let get = |path: String| ask(Method::GET, path, Value::Null);
    let patch = |path: String, body: Value| ask(Method::PATCH, path, body);
    let (code, list) = get(format!("{contents}?labelSelector=local.gantry.io/node%3Dn1")).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(1)), "{list}");
    for path in [
        contents.clone(),
        format!("{contents}?labelSelector=local.gantry.io/node%3Dn2"),
        format!("{contents}/other"),
    ] {
        assert_eq!(get(path.clone()).await.0, 403, "{path}");
    }
    let ready = |handle: &str| json!({"status": {"readyToUse": true, "snapshotHandle": handle}});
    assert_eq!(patch(format!("{contents}/mine/status"), ready("n1/s")).await.0, 200);
    for (path, body) in [
        ("other/status", ready("n1/s")),
        ("mine/status", ready("n2/s")),
        ("other", json!({"metadata": {"finalizers": null}})),
        ("mine", json!({"metadata": {"labels": {"local.gantry.io/node": "n2"}}})),
        ("mine", json!({"metadata": {"labels": null}})),
        ("mine", json!({"spec": {"deletionPolicy": "Retain"}})),
        ("mine", json!({"metadata": {"finalizers": ["example.com/mine"]}})),
    ] {
        let (code, said) = patch(format!("{contents}/{path}"), body.clone()).await;
        assert_eq!(code, 403, "{path} {body}: {said}");
    }
    assert_eq!(ask(Method::DELETE, format!("{contents}/mine"), Value::Null).await.0, 403);
    let mut new = content("new", "n1");
    new["metadata"]["finalizers"] = Value::Null;
    assert_eq!(server.call_as(Method::POST, &contents, "application/json", new, Some(&node)).await.0, 403);
    assert_eq!(patch(format!("{contents}/mine"), json!({"metadata": {"finalizers": null}})).await.0, 200);
}
