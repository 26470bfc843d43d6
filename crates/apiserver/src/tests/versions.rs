//! Versions that are off unless somebody switches them on.

use http::Method;
use serde_json::{Value, json};

use super::TestServer;

const CLAIMS: &str = "/namespaces/default/resourceclaims";

#[tokio::test]
async fn a_version_that_is_on_shows_the_same_objects() {
    let server = TestServer::start_with("resource.k8s.io/v1beta1=true").await;
    let of = |version: &str| format!("/apis/resource.k8s.io/{version}{CLAIMS}");
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
        {"name": "gpu", "deviceClassName": "gpus"}]}}});
    let (code, made) = server.post(&of("v1beta1"), claim).await;
    assert_eq!((code, &made["apiVersion"]), (201, &json!("resource.k8s.io/v1beta1")), "{made}");
    assert_eq!(made["spec"]["devices"]["requests"][0]["deviceClassName"], "gpus", "{made}");
    assert_eq!(made["spec"]["devices"]["requests"][0]["allocationMode"], "ExactCount", "{made}");
    let (_, kept) = server.get(&format!("{}/c", of("v1"))).await;
    assert_eq!(kept["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"], "gpus", "{kept}");
    assert_eq!(kept["metadata"]["uid"], made["metadata"]["uid"]);

    let mut changed = made.clone();
    changed["spec"]["devices"]["requests"][0]["deviceClassName"] = "others".into();
    let (code, status) = server.call(Method::PUT, &format!("{}/c", of("v1beta1")), changed).await;
    assert_eq!(code, 422, "{status}");
    assert_eq!(server.call(Method::DELETE, &format!("{}/c", of("v1beta1")), Value::Null).await.0, 200);
    assert_eq!(server.get(&format!("{}/c", of("v1"))).await.0, 404);
}

#[tokio::test]
async fn a_version_that_is_off_is_not_there() {
    let server = TestServer::start_with("batch/v1/cronjobs=false").await;
    assert_eq!(server.get(&format!("/apis/resource.k8s.io/v1beta1{CLAIMS}")).await.0, 404);
    assert_eq!(server.get("/apis/batch/v1/namespaces/default/cronjobs").await.0, 404);
    assert_eq!(server.get("/apis/batch/v1/namespaces/default/jobs").await.0, 200);
}
