use http::Method;
use serde_json::{Value, json};

use super::*;

const MERGE: &str = "application/merge-patch+json";

fn full() -> Value {
    let mut crd = definition(json!({"type": "object", "properties": {
        "replicas": {"type": "integer", "minimum": 0, "default": 1}, "color": {"type": "string"},
        "mode": {"type": "string", "enum": ["a", "b"]}, "ready": {"type": "boolean"}}}));
    let version = &mut crd["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}});
    version["additionalPrinterColumns"] = json!([
        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "description": "the paint"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
    version["selectableFields"] = json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.ready"}]);
    crd
}

#[tokio::test]
async fn a_life() {
    let server = TestServer::with(full()).await;
    let made = server.make(THINGS, thing("a", json!({"color": "red"}))).await;
    assert_eq!(made["spec"], json!({"color": "red", "replicas": 1}), "defaults are filled in");
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{THINGS}/a");
    assert_eq!(server.get(&path).await, (200, made.clone()));
    let (code, changed) =
        server.patch(&path, MERGE, json!({"spec": {"color": "blue"}, "status": {"x": 1}})).await;
    assert_eq!((code, &changed["metadata"]["generation"]), (200, &json!(2)));
    assert!(changed.get("status").is_none(), "status is a subresource");
    let (_, relabelled) = server.patch(&path, MERGE, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(relabelled["metadata"]["generation"], 2);
    let (code, with_status) = server
        .patch(&format!("{path}/status"), MERGE, json!({"status": {"replicas": 3}, "spec": {"color": "no"}}))
        .await;
    assert_eq!((code, &with_status["status"]["replicas"]), (200, &json!(3)), "{with_status}");
    assert_eq!(with_status["spec"]["color"], "blue");
    assert_eq!(with_status["metadata"]["generation"], 2);
    let (code, answer) =
        server.patch(&path, "application/strategic-merge-patch+json", json!({"spec": {}})).await;
    assert_eq!(code, 415, "{answer}");
    let (code, answer) = server
        .patch(&path, "application/json-patch+json", json!([{"op": "remove", "path": "/spec/replicas"}]))
        .await;
    assert_eq!((code, &answer["spec"]["replicas"]), (200, &json!(1)), "{answer}");
    let (_, answer) = server.call(Method::PUT, &path, thing("a", json!({}))).await;
    assert_eq!(
        answer["message"],
        "Thing.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
    );
    let (code, answer) = server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!((code, &answer["status"]), (200, &json!("Success")));
    let (code, answer) = server.call(Method::PUT, &path, made).await;
    assert_eq!(code, 404, "{answer}");
}

#[tokio::test]
async fn scale() {
    let server = TestServer::with(full()).await;
    server.make(THINGS, thing("a", json!({"replicas": 2}))).await;
    let path = format!("{THINGS}/a/scale");
    server
        .patch(&format!("{THINGS}/a/status"), MERGE, json!({"status": {"replicas": 1, "selector": "a=b"}}))
        .await;
    let (_, scale) = server.get(&path).await;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(2), &json!({"replicas": 1, "selector": "a=b"}))
    );
    let (code, scale) = server.patch(&path, MERGE, json!({"spec": {"replicas": 5}})).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(5)));
    let (_, object) = server.get(&format!("{THINGS}/a")).await;
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(5), &json!(2)));
    let (_, resources) = server.get("/apis/example.com/v1").await;
    let names: Vec<&str> =
        resources["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["things", "things/scale", "things/status"]);
}

#[tokio::test]
async fn columns() {
    let server = TestServer::with(full()).await;
    server.make(THINGS, thing("a", json!({"color": "red"}))).await;
    server
        .patch(
            &format!("{THINGS}/a/status"),
            MERGE,
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        )
        .await;
    let request = http::Request::get(THINGS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(crate::respond::empty())
        .unwrap();
    let (_, table) = server.send(request, Some(&server.admin)).await;
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red", 1, "True", "0s"]), "{table}");
    assert_eq!(table["columnDefinitions"][1]["description"], "the paint");
    assert_eq!(table["columnDefinitions"][3]["priority"], 1);
}

#[tokio::test]
async fn field_selectors() {
    let mut plain = full();
    plain["spec"]["versions"][0].as_object_mut().unwrap().remove("selectableFields");
    let server = TestServer::with(plain).await;
    server.make(THINGS, thing("old", json!({"color": "red", "ready": true}))).await;
    let (code, answer) = server.get(&format!("{THINGS}?fieldSelector=spec.color%3Dred")).await;
    assert_eq!((code, &answer["message"]), (400, &json!("field label not supported: spec.color")));
    server
        .redefine("things.example.com", |crd| {
            crd["spec"]["versions"][0]["selectableFields"] =
                json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.ready"}]);
        })
        .await;
    server.make(THINGS, thing("red", json!({"color": "red"}))).await;
    server.make(THINGS, thing("blue", json!({"color": "blue"}))).await;
    let names = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, list) = server.get(&format!("{THINGS}?fieldSelector=spec.color%3Dred")).await;
    assert_eq!(names(list), ["old", "red"], "objects that were there before are selectable too");
    let (_, list) = server.get(&format!("{THINGS}?fieldSelector=spec.ready%3Dtrue,spec.color!%3Dblue")).await;
    assert_eq!(names(list), ["old"]);
    let (_, list) = server.get(&format!("{THINGS}?fieldSelector=spec.color%3D")).await;
    assert_eq!(names(list), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_fields_are_told_or_refused_and_always_pruned() {
    let server = TestServer::with(full()).await;
    let object = thing("a", json!({"colour": "red"}));
    assert_eq!(
        server.refusal(&format!("{THINGS}?fieldValidation=Strict"), object.clone()).await,
        "Thing in version \"v1\" cannot be handled as a Thing: strict decoding error: unknown field \"spec.colour\""
    );
    let request = http::Request::post(THINGS)
        .header("content-type", "application/json")
        .body(crate::respond::full(object.to_string()))
        .unwrap();
    let response = server.api.handle(request, Some(&server.admin)).await;
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"spec.colour\\\"\"");
    let (_, got) = server.get(&format!("{THINGS}/a")).await;
    assert_eq!(got["spec"], json!({"replicas": 1}));
}

#[tokio::test]
async fn kinds_of_the_cluster_have_no_namespace() {
    let mut crd = open_definition();
    crd["spec"]["scope"] = "Cluster".into();
    let server = TestServer::with(crd).await;
    let made = server.make("/apis/example.com/v1/things", thing("a", json!({}))).await;
    assert!(made["metadata"].get("namespace").is_none());
    assert_eq!(server.get(THINGS).await.0, 404);
}

#[tokio::test]
async fn rights_are_those_of_any_resource() {
    let server = TestServer::with(open_definition()).await;
    let eve = auth::User::authenticated("eve", []);
    let (code, answer) =
        server.call_as(Method::GET, THINGS, "application/json", Value::Null, Some(&eve)).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "things.example.com is forbidden: User \"eve\" cannot list resource \"things\" in API group \"example.com\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn collections_are_deleted_as_one() {
    let server = TestServer::with(open_definition()).await;
    for name in ["a", "b"] {
        server.make(THINGS, thing(name, json!({}))).await;
    }
    let (code, list) = server.call(Method::DELETE, THINGS, Value::Null).await;
    assert_eq!((code, &list["kind"], list["items"].as_array().unwrap().len()), (200, &json!("ThingList"), 2));
    assert_eq!(server.get(THINGS).await.1["items"], json!([]));
}
