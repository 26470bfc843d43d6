use http::Request;
use serde_json::{Value, json};

use super::{TestServer, condition, register, with_toys};
use crate::respond::empty;

async fn aggregated(server: &TestServer, version: &str) -> Value {
    let accept = format!(
        "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json"
    );
    let request = Request::get("/apis").header("accept", accept).body(empty()).unwrap();
    server.send(request, Some(&server.admin)).await.1
}

fn toys(list: &Value) -> Value {
    let mut items = list["items"].as_array().unwrap().iter();
    items.find(|i| i["metadata"]["name"] == "toys.example.com").unwrap()["versions"][0].clone()
}

#[tokio::test]
async fn shows_what_others_serve() {
    let (server, remote) = with_toys().await;
    let (_, groups) = server.get("/apis").await;
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apps", "events.k8s.io", "authentication.k8s.io"]);
    // Definitions' groups have a lower one still.
    let last = names.iter().rfind(|name| **name != "snapshot.storage.k8s.io");
    assert_eq!(last, Some(&"toys.example.com"), "lower priorities come later");
    let (code, group) = server.get("/apis/toys.example.com").await;
    assert_eq!((code, &group["preferredVersion"]["groupVersion"]), (200, &json!("toys.example.com/v1")));
    let (code, list) = server.get("/apis/toys.example.com/v1").await;
    assert_eq!((code, &list["resources"][0]["name"]), (200, &json!("toys")));
    for (version, api_version) in
        [("v2", "apidiscovery.k8s.io/v2"), ("v2beta1", "apidiscovery.k8s.io/v2beta1")]
    {
        let list = aggregated(&server, version).await;
        assert_eq!(list["apiVersion"], api_version);
        let version = toys(&list);
        assert_eq!((&version["freshness"], &version["version"]), (&json!("Current"), &json!("v1")));
        let resource = &version["resources"][0];
        assert_eq!((&resource["resource"], &resource["scope"]), (&json!("toys"), &json!("Namespaced")));
        assert_eq!(resource["shortNames"], json!(["ty"]));
        assert_eq!(resource["subresources"][0]["subresource"], "status");
    }
    remote.die().await;
    server.api.0.aggregation.ask_again();
    condition(&server, "FailedDiscoveryCheck").await;
    let version = toys(&aggregated(&server, "v2").await);
    assert_eq!(
        (&version["freshness"], &version["resources"][0]["resource"]),
        (&json!("Stale"), &json!("toys"))
    );
}

#[tokio::test]
async fn the_never_heard_are_stale() {
    let (server, _) = super::cluster().await;
    register(&server, json!({"insecureSkipTLSVerify": true, "groupPriorityMinimum": 20000})).await;
    condition(&server, "ServiceNotFound").await;
    let list = aggregated(&server, "v2").await;
    assert_eq!(list["items"][0]["metadata"]["name"], "toys.example.com", "higher priorities come first");
    assert_eq!(toys(&list), json!({"version": "v1", "freshness": "Stale"}));
}

#[tokio::test]
async fn same_lists_have_the_same_tag() {
    let (server, _toys) = with_toys().await;
    let ask = async |tag: Option<http::HeaderValue>| {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let mut request = Request::get("/apis").header("accept", accept).body(empty()).unwrap();
        if let Some(tag) = tag {
            request.headers_mut().insert("if-none-match", tag);
        }
        let response = server.api.handle(request, Some(&server.admin)).await;
        (response.status().as_u16(), response.headers()["etag"].clone())
    };
    let (code, tag) = ask(None).await;
    assert_eq!(code, 200);
    assert_eq!(ask(Some(tag)).await.0, 304);
}

#[tokio::test]
async fn types_are_described_by_who_has_them() {
    let (server, _toys) = with_toys().await;
    let path = "apis/toys.example.com/v1";
    server.until(async || !server.get("/openapi/v3").await.1["paths"][path].is_null()).await;
    let (_, index) = server.get("/openapi/v3").await;
    let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(url, "/openapi/v3/apis/toys.example.com/v1?hash=ABC");
    assert_eq!(server.get(&url).await.1["info"]["title"], "toys");
    let (_, document) = server.get("/openapi/v2").await;
    assert!(document["definitions"]["com.example.toys.v1.Toy"].is_object());
    assert!(document["paths"][super::TOYS].is_object());
    assert!(document["paths"]["/api/v1/pods"].is_object());
}
