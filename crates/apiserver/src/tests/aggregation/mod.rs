//! Extension API servers: real ones, over TLS.

mod discovery;
mod extension;
mod local;
mod proxies;
mod requests;
mod states;

use extension::{GROUP, PATIENCE, TOYS, ToyServer};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::Expect;

use super::TestServer;
use super::admission::hook::base64;
use crate::AccessConfig;

const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const TOY_SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.toys.example.com";

/// A cluster that is a front proxy, and its authority for that.
async fn cluster() -> (TestServer, String) {
    let folder = tempfile::tempdir().unwrap();
    let pki = auth::Pki::open_as(folder.path(), "front", &base::SystemClock).unwrap();
    let request = auth::CertificateRequest {
        file: "client".into(),
        common_name: crate::FrontProxy::CLIENT.into(),
        organization: String::new(),
        names: Vec::new(),
        usage: auth::Usage::Client,
    };
    let mut access = AccessConfig::default();
    access.stand_before(&pki.issue(&request).unwrap(), pki.ca()).unwrap();
    (TestServer::with_access(access).await, pki.ca().to_owned())
}

/// A cluster and a server of toys, which it knows and has heard of.
async fn with_toys() -> (TestServer, ToyServer) {
    let (server, proxies) = cluster().await;
    let toys = ToyServer::start("toys.default.svc", &proxies).await;
    stand_behind(&server, toys.port).await;
    let bundle = base64(toys.ca.as_bytes());
    register(&server, json!({"caBundle": bundle})).await;
    condition(&server, "Passed").await;
    (server, toys)
}

/// Makes the Service of toys, and puts this port of the machine behind it.
async fn stand_behind(server: &TestServer, port: u16) {
    let (code, said) = server
        .post(
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "toys"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}}),
        )
        .await;
    assert!(code == 201 || code == 409, "{said}");
    slice(server, port, true).await;
}

/// Says who stands behind the Service. Written directly: addresses of this machine are not allowed.
async fn slice(server: &TestServer, port: u16, ready: bool) {
    let inner = &server.api.0;
    let registry = inner.registry();
    let def = registry.find("discovery.k8s.io", "v1", "endpointslices").unwrap();
    let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "toys", "namespace": "default", "uid": "s", "labels": {"kubernetes.io/service-name": "toys"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}]});
    let expect = match inner.store.get(&def.table, "default/toys") {
        Some(record) => Expect::Revision(record.revision),
        None => Expect::Absent,
    };
    inner.put(def, "default", &object, expect).await.unwrap();
}

/// Registers the group, with this beside the service in its spec.
async fn register(server: &TestServer, more: Value) {
    let mut object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.toys.example.com"},
        "spec": {"group": GROUP, "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 15,
            "service": {"namespace": "default", "name": "toys"}}});
    object["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (code, said) = server.post(APISERVICES, object).await;
    assert_eq!(code, 201, "{said}");
}

/// Waits until the condition has this reason, and gives it.
async fn condition(server: &TestServer, reason: &str) -> Value {
    server
        .until(async || server.get(TOY_SERVICE).await.1["status"]["conditions"][0]["reason"] == reason)
        .await;
    server.get(TOY_SERVICE).await.1["status"]["conditions"][0].clone()
}

/// Code and text of an answer.
async fn text(server: &TestServer, path: &str) -> (u16, String) {
    let request = Request::get(path).body(crate::respond::empty()).unwrap();
    let response = server.api.handle(request, Some(&server.admin)).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(bytes.to_vec()).unwrap())
}
