//! What generators, editors and `kubectl explain` read.

use std::collections::BTreeSet;

use http::{Request, header};
use serde_json::{Value, json};

use super::TestServer;
use crate::respond::empty;

/// Every reference in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn lead_somewhere(document: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(found.len() > 5);
    for reference in found {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn operation_ids(document: &Value) -> Vec<&str> {
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|item| item.as_object().unwrap().values());
    operations.filter_map(|op| op["operationId"].as_str()).collect()
}

#[tokio::test]
async fn every_document_of_version_3_is_whole() {
    let server = TestServer::start().await;
    let (_, index) = server.get("/openapi/v3").await;
    for (path, at) in index["paths"].as_object().unwrap() {
        let (code, document) = server.get(at["serverRelativeURL"].as_str().unwrap()).await;
        assert_eq!(code, 200, "{path}");
        lead_somewhere(&document);
    }
    let (_, core) = server.get("/openapi/v3/api/v1").await;
    let spec = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    assert!(spec["description"].as_str().unwrap().contains("PodSpec"));
    assert!(spec["properties"]["nodeName"]["description"].as_str().unwrap().len() > 20);
    let ids = operation_ids(&core);
    for id in [
        "listCoreV1NamespacedPod",
        "listCoreV1PodForAllNamespaces",
        "readCoreV1NamespacedPodLog",
        "createCoreV1NamespacedPodBinding",
        "patchCoreV1NamespacedPodStatus",
        "connectCoreV1GetNamespacedPodExec",
        "replaceCoreV1Node",
        "deleteCoreV1CollectionNode",
    ] {
        assert!(ids.contains(&id), "{id}");
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "each operation has a name of its own");
}

#[tokio::test]
async fn version_2_says_it_all_in_one_document() {
    let server = TestServer::start().await;
    let (_, document) = server.get("/openapi/v2").await;
    lead_somewhere(&document);
    let deployment = &document["definitions"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert!(deployment["properties"]["spec"]["description"].is_string());
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["consumes"].as_array().unwrap().contains(&json!("application/apply-patch+yaml")));
    let body = patch["parameters"].as_array().unwrap().iter().find(|p| p["in"] == "body").unwrap();
    assert_eq!(body["schema"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch");
}

#[tokio::test]
async fn documents_that_did_not_change_are_not_sent_again() {
    let server = TestServer::start().await;
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    for (path, accept) in
        [("/openapi/v2", "*/*"), ("/openapi/v2", accept), ("/openapi/v3/apis/apps/v1", "*/*")]
    {
        let get = async |tag: Option<&header::HeaderValue>| {
            let mut request = Request::get(path).header(header::ACCEPT, accept);
            if let Some(tag) = tag {
                request = request.header(header::IF_NONE_MATCH, tag);
            }
            let response = server.api.handle(request.body(empty()).unwrap(), Some(&server.admin)).await;
            (response.status().as_u16(), response.headers().get(header::ETAG).cloned())
        };
        let (code, tag) = get(None).await;
        assert_eq!((code, tag.is_some()), (200, true), "{path}");
        assert_eq!(get(tag.as_ref()).await.0, 304, "{path}");
    }
}
