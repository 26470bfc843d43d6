use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

fn condition(crd: &Value, kind: &str) -> Value {
    let list = crd["status"]["conditions"].as_array().into_iter().flatten();
    list.into_iter().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_definition_is_established_at_once() {
    let server = TestServer::start().await;
    let made = server.define(open_definition()).await;
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    let (_, crd) = server.get(&format!("{CRDS}/things.example.com")).await;
    assert_eq!(condition(&crd, "Established")["status"], "True");
    assert_eq!(condition(&crd, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(crd["status"]["acceptedNames"]["listKind"], "ThingList");

    let (_, groups) = server.get("/apis").await;
    let group = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "example.com").unwrap();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let (_, resources) = server.get("/apis/example.com/v1").await;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["th"]));
    assert_eq!(resources["resources"][0]["categories"], json!(["all"]));
    assert_eq!(resources["resources"][0]["singularName"], "thing");
    let (_, list) = server.get(THINGS).await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ThingList"), &json!("example.com/v1")));
}

#[tokio::test]
async fn definitions_are_served_again_after_a_restart() {
    let server = TestServer::with(open_definition()).await;
    let made = server.make(THINGS, thing("a", json!({"x": 1}))).await;
    let server = server.restart().await;
    let (code, again) = server.get(&format!("{THINGS}/a")).await;
    assert_eq!((code, again), (200, made));
}

#[tokio::test]
async fn names_are_given_to_who_comes_first_and_freed() {
    let server = TestServer::with(open_definition()).await;
    let mut other = open_definition();
    other["metadata"]["name"] = "thingies.example.com".into();
    other["spec"]["names"] = json!({"plural": "thingies", "kind": "Thing", "shortNames": ["th"]});
    server.define(other).await;
    let path = format!("{CRDS}/thingies.example.com");
    let (_, crd) = server.get(&path).await;
    assert_eq!(condition(&crd, "NamesAccepted")["status"], "False");
    assert_eq!(condition(&crd, "NamesAccepted")["message"], "\"ThingList\" is already in use");
    assert_eq!(condition(&crd, "Established")["status"], "False");
    assert_eq!(server.get("/apis/example.com/v1/thingies").await.0, 404);

    let (code, _) = server.call(Method::DELETE, &format!("{CRDS}/things.example.com"), Value::Null).await;
    assert_eq!(code, 200);
    server.until(|| async { server.get("/apis/example.com/v1/thingies").await.0 == 200 }).await;
    // It is served before it says so.
    let established = async || condition(&server.get(&path).await.1, "Established")["status"] == "True";
    server.until(established).await;
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_along() {
    let server = TestServer::with(open_definition()).await;
    server.make(THINGS, thing("free", json!({}))).await;
    let mut held = thing("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.make(THINGS, held).await;
    let path = format!("{CRDS}/things.example.com");
    let (code, going) = server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(code, 200, "{going}");
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(condition(&going, "Terminating")["reason"], "InstanceDeletionPending");
    server.until(|| async { server.get(&format!("{THINGS}/free")).await.0 == 404 }).await;
    assert_eq!(
        server.refusal(THINGS, thing("new", json!({}))).await,
        "create not allowed while custom resource definition is terminating"
    );
    let (_, crd) = server.get(&path).await;
    assert_eq!(condition(&crd, "Terminating")["status"], "True");
    let (code, _) = server
        .patch(
            &format!("{THINGS}/held"),
            "application/merge-patch+json",
            json!({"metadata": {"finalizers": null}}),
        )
        .await;
    assert_eq!(code, 200);
    server.until(|| async { server.get(&path).await.0 == 404 }).await;
    assert_eq!(server.get(THINGS).await.0, 404);
    // The same name can come back, and nothing of the old objects with it.
    server.define(open_definition()).await;
    assert_eq!(server.get(THINGS).await.1["items"], json!([]));
}

#[tokio::test]
async fn watches_end_with_their_kind() {
    let server = TestServer::with(open_definition()).await;
    let request = http::Request::get(format!("{THINGS}?watch=1")).body(crate::respond::empty()).unwrap();
    let mut body = server.api.handle(request, Some(&server.admin)).await.into_body();
    server.make(THINGS, thing("a", json!({}))).await;
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    server.call(Method::DELETE, &format!("{CRDS}/things.example.com"), Value::Null).await;
    let rest = tokio::time::timeout(Duration::from_secs(10), body.collect()).await.expect("the watch ends");
    let text = String::from_utf8(rest.unwrap().to_bytes().to_vec()).unwrap();
    assert!(text.contains("DELETED"), "{text}");
}

#[tokio::test]
async fn definitions_that_make_no_sense_are_refused() {
    let server = TestServer::start().await;
    let mut bad = open_definition();
    bad["metadata"]["name"] = "other.example.com".into();
    assert_eq!(
        server.refusal(CRDS, bad).await,
        "CustomResourceDefinition.apiextensions.k8s.io \"other.example.com\" is invalid: metadata.name: Invalid value: \"other.example.com\": must be spec.names.plural+\".\"+spec.group"
    );
    let bad = definition(json!({"type": "object", "properties": {"a": {"description": "no type"}}}));
    assert!(server.refusal(CRDS, bad).await.ends_with(
        "spec.validation.openAPIV3Schema.properties[spec].properties[a].type: Required value: must not be empty for specified object fields"
    ));
}

#[tokio::test]
async fn definitions_look_like_definitions_in_tables() {
    let server = TestServer::with(open_definition()).await;
    let request = http::Request::get(CRDS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(crate::respond::empty())
        .unwrap();
    let (_, table) = server.send(request, Some(&server.admin)).await;
    assert_eq!(table["columnDefinitions"][1]["name"], "Created At");
    assert_eq!(table["rows"][0]["cells"], json!(["things.example.com", "2026-01-01T00:00:00Z"]));
}

#[tokio::test]
async fn openapi_describes_custom_kinds() {
    let server = TestServer::with(definition(json!({"type": "object", "description": "What is wanted.",
        "properties": {"size": {"type": "integer"}}})))
    .await;
    let (_, index) = server.get("/openapi/v3").await;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (_, document) = server.get("/openapi/v3/apis/example.com/v1").await;
    let thing = &document["components"]["schemas"]["com.example.v1.Thing"];
    assert_eq!(thing["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert_eq!(thing["x-kubernetes-group-version-kind"][0]["kind"], "Thing");
    assert!(document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    assert!(
        document["paths"]["/apis/example.com/v1/namespaces/{namespace}/things/{name}"]["patch"].is_object()
    );
    server
        .redefine("things.example.com", |crd| {
            crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["color"] =
                json!({"type": "string"});
        })
        .await;
    let (_, index) = server.get("/openapi/v3").await;
    assert_ne!(
        index["paths"]["apis/example.com/v1"]["serverRelativeURL"], url,
        "the tag changes with the schema"
    );
}

#[tokio::test]
async fn built_in_kinds_cannot_be_taken_over() {
    let server = TestServer::start().await;
    let mut crd = open_definition();
    crd["metadata"] = json!({"name": "leases.coordination.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}});
    crd["spec"]["group"] = "coordination.k8s.io".into();
    crd["spec"]["names"] = json!({"plural": "leases", "kind": "Lease"});
    crd["spec"]["versions"][0]["name"] = "v9".into();
    server.define(crd).await;
    let path = format!("{CRDS}/leases.coordination.k8s.io");
    let (_, crd) = server.get(&path).await;
    assert_eq!(condition(&crd, "NamesAccepted")["status"], "False");
    assert_eq!(condition(&crd, "KubernetesAPIApprovalPolicyConformant")["reason"], "UnapprovedAnnotation");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    server
        .make(
            leases,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}}),
        )
        .await;
    let status = json!({"status": {"conditions": [{"type": "Established", "status": "True"}],
        "acceptedNames": {"plural": "leases", "kind": "Lease"}}});
    let (code, _) = server.patch(&format!("{path}/status"), "application/merge-patch+json", status).await;
    assert_eq!(code, 200);
    assert_eq!(server.get("/apis/coordination.k8s.io/v9/leases").await.0, 404);
    server.call(Method::DELETE, &path, Value::Null).await;
    server.until(|| async { server.get(&path).await.0 == 404 }).await;
    assert_eq!(server.get(&format!("{leases}/a")).await.0, 200);
}
