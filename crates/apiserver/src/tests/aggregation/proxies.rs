//! The `proxy` subresource of Services, over HTTPS.

use http::Request;
use serde_json::json;

use super::requests::echo;
use super::{text, with_toys};
use crate::respond::empty;

const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test]
async fn paths_and_queries_arrive_as_they_are() {
    let (server, toys) = with_toys().await;
    for name in ["https:toys:https", "https:toys:443", "https:toys:"] {
        let (code, echo) = server.get(&format!("{SERVICES}/{name}/proxy/a%2Fb/c/?x=1&y=%20")).await;
        assert_eq!((code, echo["path"].as_str()), (200, Some("/a%2Fb/c/")), "{name}");
        assert_eq!(echo["query"], "x=1&y=%20");
    }
    let seen = toys.seen("/a%2Fb").remove(0);
    assert_eq!(seen.headers["x-forwarded-uri"], format!("{SERVICES}/https:toys:https/proxy/a%2Fb/c/"));
    assert!(!seen.headers.contains_key("x-remote-user"));
    assert_eq!(text(&server, &format!("{SERVICES}/https:toys:8/proxy/")).await.0, 503);
    assert_eq!(text(&server, &format!("{SERVICES}/https:none:443/proxy/")).await.0, 404);
    let outside = json!({"metadata": {"name": "outside"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    assert_eq!(server.post(SERVICES, outside).await.0, 201);
    assert_eq!(text(&server, &format!("{SERVICES}/outside:{}/proxy/", toys.port)).await.0, 503);
    let (code, refused) = server.get(&format!("{SERVICES}/ftp:toys:443/proxy/")).await;
    assert_eq!((code, &refused["message"]), (400, &json!("invalid service request \"ftp:toys:443\"")));
}

#[tokio::test]
async fn places_are_told_as_seen_from_outside() {
    let (server, _toys) = with_toys().await;
    let location = async |path: String| {
        let request = Request::get(path).body(empty()).unwrap();
        let response = server.api.handle(request, Some(&server.admin)).await;
        let to = response.headers()["location"].to_str().unwrap().to_owned();
        (response.status().as_u16(), to)
    };
    let proxy = format!("{SERVICES}/https:toys:443/proxy");
    assert_eq!(location(format!("{proxy}?a=b")).await, (301, format!("{proxy}/?a=b")));
    assert_eq!(location(format!("{proxy}/moved")).await, (302, format!("{proxy}/elsewhere/")));
}

#[tokio::test]
async fn other_protocols_pass_through() {
    let (server, _toys) = with_toys().await;
    echo(&server, &format!("{SERVICES}/https:toys:443/proxy/socket")).await;
}
