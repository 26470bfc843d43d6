use http::Method;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn objects_that_break_the_schema_are_refused() {
    let server = TestServer::with(definition(json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "replicas": {"type": "integer", "maximum": 10},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
            "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}}},
        "target": {"x-kubernetes-int-or-string": true},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "maybe": {"type": "string", "nullable": true}}}))).await;
    for (spec, want) in [
        (json!({}), "spec.name: Required value"),
        (
            json!({"name": "a", "replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            json!({"name": 1}),
            "spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\"",
        ),
        (
            json!({"name": "a", "ports": [{"port": 1}, {"port": 1}]}),
            "spec.ports[1]: Duplicate value: {\"port\":1}",
        ),
        (
            json!({"name": "a", "template": {"kind": "Pod"}}),
            "spec.template.apiVersion: Required value: must not be empty",
        ),
    ] {
        assert_eq!(
            server.refusal(THINGS, thing("a", spec)).await,
            format!("Thing.example.com \"a\" is invalid: {want}")
        );
    }
    let spec = json!({"name": "a", "target": "50%", "maybe": null, "ports": null,
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "junk": 1}, "any": {"thing": 1}}});
    let made = server.make(THINGS, thing("a", spec)).await;
    assert_eq!(made["spec"]["maybe"], Value::Null);
    assert!(made["spec"].as_object().unwrap().contains_key("maybe"), "null is a value here");
    assert!(!made["spec"].as_object().unwrap().contains_key("ports"), "and here it is absence");
    assert_eq!(made["spec"]["template"]["any"]["thing"], 1);
}

#[tokio::test]
async fn what_was_wrong_before_may_stay() {
    let server = TestServer::with(definition(json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"type": "string"}}})))
    .await;
    server.make(THINGS, thing("x", json!({"a": "LOUD", "b": "1"}))).await;
    server
        .redefine("things.example.com", |crd| {
            crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"]
                ["pattern"] = "^[a-z]*$".into();
        })
        .await;
    let path = format!("{THINGS}/x");
    let merge = "application/merge-patch+json";
    let (code, answer) = server.patch(&path, merge, json!({"spec": {"b": "2"}})).await;
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = server.patch(&path, merge, json!({"spec": {"a": "LOUDER"}})).await;
    assert_eq!(code, 422);
    assert_eq!(
        answer["message"],
        "Thing.example.com \"x\" is invalid: spec.a: Invalid value: \"LOUDER\": spec.a in body should match '^[a-z]*$'"
    );
    assert_eq!(answer["details"]["causes"][0]["field"], "spec.a");
}

#[tokio::test]
async fn a_schema_that_changes_is_seen_by_what_is_stored() {
    let server = TestServer::with(definition(json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"type": "string"}}})))
    .await;
    server.make(THINGS, thing("x", json!({"a": "1", "b": "2"}))).await;
    server
        .redefine("things.example.com", |crd| {
            crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] =
                json!({"a": {"type": "string"}, "c": {"type": "integer", "default": 7}});
        })
        .await;
    let wanted = json!({"a": "1", "c": 7});
    for _ in 0..2 {
        let (_, got) = server.get(&format!("{THINGS}/x")).await;
        assert_eq!(got["spec"], wanted, "pruned and defaulted on the way out");
        let (_, list) = server.get(THINGS).await;
        assert_eq!(list["items"][0]["spec"], wanted);
    }
    let record = server.api.store().get("things.example.com", "default/x").unwrap();
    assert!(String::from_utf8_lossy(&record.value).contains("\"b\":\"2\""), "the stored bytes stay");
    let (_, watched) = server.first_event(&format!("{THINGS}?watch=1")).await;
    assert_eq!(watched["spec"], wanted);
}

#[tokio::test]
async fn bytes_are_copied_where_nothing_changes() {
    let server = TestServer::with(definition(json!({"type": "object", "properties": {
        "c": {"type": "integer", "default": 7}}})))
    .await;
    server.make(THINGS, thing("x", json!({}))).await;
    let registry = server.api.0.registry();
    let def = registry.find("example.com", "v1", "things").unwrap();
    let record = server.api.store().get("things.example.com", "default/x").unwrap();
    let shown = server.api.0.shown(def, &record).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&shown, &record));
    // After a restart nobody knows whether old objects fit, until they are looked at once.
    let server = server.restart().await;
    let registry = server.api.0.registry();
    let def = registry.find("example.com", "v1", "things").unwrap();
    let record = server.api.store().get("things.example.com", "default/x").unwrap();
    assert!(!def.custom.as_ref().unwrap().vintage.fits(record.revision));
    let shown = server.api.0.shown(def, &record).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&shown, &record));
    assert!(def.custom.as_ref().unwrap().vintage.fits(record.revision));
}

#[tokio::test]
async fn deprecated_versions_say_so() {
    let mut crd = open_definition();
    crd["spec"]["versions"][0]["deprecated"] = true.into();
    let server = TestServer::with(crd).await;
    let request = http::Request::get(THINGS).body(crate::respond::empty()).unwrap();
    let response = server.api.handle(request, Some(&server.admin)).await;
    assert_eq!(response.headers()["warning"], "299 - \"example.com/v1 Thing is deprecated\"");
}

#[tokio::test]
async fn metadata_is_checked_like_any_other() {
    let server = TestServer::with(open_definition()).await;
    let mut object = thing("a", json!({}));
    object["metadata"]["labels"] = json!({"a": 1});
    let (code, answer) = server.call(Method::POST, THINGS, object).await;
    assert_eq!(code, 400, "{answer}");
    let (code, answer) = server.post(THINGS, thing("Not_A_Name", json!({}))).await;
    assert_eq!(code, 422, "{answer}");
}
