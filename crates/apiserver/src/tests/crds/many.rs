use serde_json::json;

use super::*;

fn numbered(n: usize) -> serde_json::Value {
    let mut crd = definition(json!({"type": "object", "properties": {
        "a": {"type": "string", "pattern": "^[a-z]+$"}, "b": {"type": "integer", "default": 1}}}));
    crd["metadata"]["name"] = format!("things.group{n}.example").into();
    crd["spec"]["group"] = format!("group{n}.example").into();
    crd
}

#[tokio::test]
async fn many_definitions_are_served_at_once_and_go() {
    let server = TestServer::start().await;
    for n in 0..100 {
        server.define(numbered(n)).await;
        let (code, _) = server.get(&format!("/apis/group{n}.example/v1/things")).await;
        assert_eq!(code, 200, "served when the answer is there");
    }
    let (_, groups) = server.get("/apis").await;
    let custom = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|g| g["name"].as_str().unwrap().starts_with("group"));
    assert_eq!(custom.count(), 100);
    for n in 0..100 {
        let path = format!("{CRDS}/things.group{n}.example");
        server.call(http::Method::DELETE, &path, serde_json::Value::Null).await;
    }
    let is_ours = |crd: &serde_json::Value| {
        crd["spec"]["group"].as_str().is_some_and(|group| group.starts_with("group"))
    };
    server
        .until(|| async {
            let (_, list) = server.get(CRDS).await;
            list["items"].as_array().is_some_and(|all| !all.iter().any(is_ours))
        })
        .await;
}
