use std::sync::Arc;

use futures::FutureExt;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{APISERVICES, cluster};
use crate::respond::empty;

#[tokio::test]
async fn what_is_served_here_is_registered() {
    let (server, _) = cluster().await;
    let apps = format!("{APISERVICES}/v1.apps");
    server.until(async || server.get(&apps).await.0 == 200).await;
    server.until(async || server.get(APISERVICES).await.1["items"].as_array().unwrap().len() > 15).await;
    let (_, object) = server.get(&apps).await;
    assert_eq!(object["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}));
    assert_eq!(
        object["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    let condition = &object["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Local")));
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = Request::get(&apps).header("accept", accept).body(empty()).unwrap();
    let (_, table) = server.send(request, Some(&server.admin)).await;
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Service", "Available", "Age"]);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("v1.apps"), json!("Local"), json!("True")]
    );
}

#[tokio::test]
async fn custom_kinds_are_registered_as_long_as_they_are_there() {
    let (server, _) = cluster().await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let crd = json!({"metadata": {"name": "cars.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "cars", "kind": "Car"}, "versions": [version("v1", true), version("v2", false)]}});
    assert_eq!(server.post(crds, crd).await.0, 201);
    let path = |version: &str| format!("{APISERVICES}/{version}.example.com");
    server
        .until(async || server.get(&path("v1")).await.0 == 200 && server.get(&path("v2")).await.0 == 200)
        .await;
    let (_, object) = server.get(&path("v1")).await;
    assert_eq!(object["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "true"}));
    assert_eq!(
        (&object["spec"]["groupPriorityMinimum"], &object["spec"]["versionPriority"]),
        (&json!(1000), &json!(100))
    );
    // What somebody takes away comes back.
    server.call(Method::DELETE, &path("v1"), Value::Null).await;
    server.until(async || server.get(&path("v1")).await.0 == 200).await;
    server.call(Method::DELETE, &format!("{crds}/cars.example.com"), Value::Null).await;
    server
        .until(async || server.get(&path("v1")).await.0 == 404 && server.get(&path("v2")).await.0 == 404)
        .await;
}

#[tokio::test]
async fn extension_servers_can_read_whom_to_believe() {
    let (server, proxies) = cluster().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    server.until(async || server.get(path).await.0 == 200).await;
    let (_, map) = server.get(path).await;
    let data = &map["data"];
    assert_eq!(data["client-ca-file"], server.api.0.config.ca_pem);
    assert_eq!(data["requestheader-client-ca-file"], proxies);
    assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert_eq!(data["requestheader-username-headers"], "[\"X-Remote-User\"]");
    assert_eq!(data["requestheader-extra-headers-prefix"], "[\"X-Remote-Extra-\"]");
    let reader = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/extension-apiserver-authentication-reader";
    assert_eq!(server.get(reader).await.0, 200);
}

/// A component of this process serves a version until somebody registers another server for it.
#[tokio::test]
async fn a_component_serves_a_version() {
    let (server, _) = cluster().await;
    let serve = |user: auth::User, request: Request<crate::Body>| {
        let path = request.uri().path().to_owned();
        let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "m.example/v1",
            "resources": [{"name": "things", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["get"]}]});
        let said = if path.ends_with("/v1") { list } else { json!({"path": path, "user": user.name}) };
        async move { crate::respond::json_value(&said) }.boxed()
    };
    server.api.serve_beside("m.example", "v1", (100, 50), Arc::new(serve));
    let registered = format!("{APISERVICES}/v1.m.example");
    server
        .until(async || {
            let (code, object) = server.get(&registered).await;
            code == 200 && object["status"]["conditions"][0]["reason"] == "Local"
        })
        .await;
    let (_, object) = server.get(&registered).await;
    let spec =
        json!({"group": "m.example", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 50});
    assert_eq!(object["spec"], spec);
    let thing = "/apis/m.example/v1/namespaces/a/things/b";
    let (code, said) = server.get(thing).await;
    assert_eq!((code, &said["path"]), (200, &json!(thing)));
    // Rights are asked for as for everything else.
    let nobody = auth::User::authenticated("nobody", []);
    let request = Request::get(thing).body(empty()).unwrap();
    assert_eq!(server.send(request, Some(&nobody)).await.0, 403);
    let (_, list) = server.get("/apis/m.example/v1").await;
    assert_eq!(list["resources"][0]["name"], "things");
    let (_, groups) = server.get("/apis").await;
    let groups = groups["groups"].as_array().unwrap();
    assert!(groups.iter().any(|group| group["name"] == "m.example"), "{groups:?}");
    // Another server takes its place, and is not there.
    let patch = json!({"spec": {"service": {"name": "other", "namespace": "default"}, "insecureSkipTLSVerify": true}});
    let request = Request::patch(&registered).header("content-type", "application/merge-patch+json");
    let request = request.body(crate::respond::full(patch.to_string())).unwrap();
    let (code, said) = server.send(request, Some(&server.admin)).await;
    assert_eq!(code, 200, "{said}");
    server.until(async || server.get(thing).await.0 == 503).await;
    // Taken away, it is ours again.
    server.call(Method::DELETE, &registered, Value::Null).await;
    server.until(async || server.get(thing).await.0 == 200).await;
}
