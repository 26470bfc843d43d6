use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{MAPS, TestServer};
use crate::respond::empty;

async fn three_maps(server: &TestServer) {
    for (name, app) in [("a", "web"), ("b", "web"), ("c", "db")] {
        let (code, _) = server.post(MAPS, json!({"metadata": {"name": name, "labels": {"app": app}}})).await;
        assert_eq!(code, 201);
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn selects_and_pages() {
    let server = TestServer::start().await;
    three_maps(&server).await;
    let list = |query: &str| format!("{MAPS}?{query}");
    assert_eq!(names(&server.get(&list("labelSelector=app%3Dweb")).await.1), ["a", "b"]);
    assert_eq!(names(&server.get(&list("fieldSelector=metadata.name%3Dc")).await.1), ["c"]);
    // Of all namespaces; the last one is the server's own.
    let everywhere = server.get("/api/v1/configmaps").await.1;
    assert_eq!(names(&everywhere), ["a", "b", "c", "kube-apiserver-legacy-service-account-token-tracking"]);
    let (code, status) = server.get(&list("fieldSelector=data.x%3D1")).await;
    assert_eq!((code, status["message"].as_str().unwrap()), (400, "field label not supported: data.x"));

    let (_, first) = server.get(&list("limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(1)));
    // What comes and goes in between does not change the pages.
    server.post(MAPS, json!({"metadata": {"name": "d"}})).await;
    server.call(Method::DELETE, &format!("{MAPS}/c"), Value::Null).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = server.get(&list(&format!("limit=2&continue={token}"))).await;
    assert_eq!((names(&second), second["metadata"].get("continue")), (vec!["c"], None));
    assert_eq!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    assert_eq!(server.get(&list("continue=zz")).await.0, 400);
    let exact = first["metadata"]["resourceVersion"].as_str().unwrap();
    let (_, then) = server.get(&list(&format!("resourceVersion={exact}&resourceVersionMatch=Exact"))).await;
    assert_eq!(names(&then), ["a", "b", "c"]);
    let (code, _) = server.call(Method::DELETE, &list("labelSelector=app%3Dweb"), Value::Null).await;
    assert_eq!((code, names(&server.get(MAPS).await.1)), (200, vec!["d"]));
}

#[tokio::test]
async fn tables_and_metadata() {
    let server = TestServer::start().await;
    three_maps(&server).await;
    // Sorting by a field of its own takes the whole object.
    let whole = format!("{MAPS}?includeObject=Object");
    for (accept, kind, uri) in [
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table", MAPS),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table", &whole),
        (
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "PartialObjectMetadataList",
            MAPS,
        ),
    ] {
        let request = Request::builder().uri(uri).header("accept", accept).body(empty()).unwrap();
        let (_, got) = server
            .send(request, Some(&auth::User::authenticated("a", [auth::User::MASTERS.to_owned()])))
            .await;
        assert_eq!(got["kind"], kind);
        if kind == "Table" {
            assert_eq!(got["columnDefinitions"][0]["name"], "Name");
            assert_eq!(got["rows"][2]["cells"], json!(["c", 0, "0s"]));
            let object = if uri == MAPS { "PartialObjectMetadata" } else { "ConfigMap" };
            assert_eq!(got["rows"][2]["object"]["kind"], object);
        }
    }
}

/// Reads a watch until it has given `count` events.
async fn events(server: &TestServer, path: &str, count: usize) -> Vec<(String, Value)> {
    let request = Request::builder().uri(path).body(empty()).unwrap();
    let admin = auth::User::authenticated("a", [auth::User::MASTERS.to_owned()]);
    let mut body = server.api.handle(request, Some(&admin)).await.into_body();
    let (mut text, mut found) = (String::new(), Vec::new());
    while found.len() < count {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await;
        let frame = frame.expect("events in time").expect("more events").unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        while let Some((line, rest)) = text.split_once('\n') {
            let event: Value = serde_json::from_str(line).unwrap();
            found.push((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            text = rest.to_owned();
        }
    }
    found
}

#[tokio::test]
async fn watches_tell_what_happens_to_what_they_select() {
    let server = TestServer::start().await;
    three_maps(&server).await;
    let (_, list) = server.get(MAPS).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let relabel = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    server.patch(&format!("{MAPS}/a"), "application/merge-patch+json", relabel("db")).await;
    server.patch(&format!("{MAPS}/c"), "application/merge-patch+json", relabel("web")).await;
    server.call(Method::DELETE, &format!("{MAPS}/b"), Value::Null).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={from}&labelSelector=app%3Dweb");
    let got = events(&server, &path, 3).await;
    let told: Vec<(&str, &str)> =
        got.iter().map(|(t, o)| (t.as_str(), o["metadata"]["name"].as_str().unwrap())).collect();
    assert_eq!(told, [("DELETED", "a"), ("ADDED", "c"), ("DELETED", "b")]);
    assert_eq!(got[0].1["metadata"]["labels"]["app"], "web", "as the watcher last knew it");

    let initial = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    );
    let got = events(&server, &initial, 3).await;
    assert_eq!(got[2].0, "BOOKMARK");
    assert_eq!(got[2].1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn many_watchers_are_told_of_all_changes_in_order() {
    let server = TestServer::start().await;
    let from = server.api.store().revision();
    let path = format!("{MAPS}?watch=1&resourceVersion={from}");
    let names = async || -> Vec<String> {
        let seen = events(&server, &path, 20).await;
        seen.iter().map(|(_, map)| map["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let wanted: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    let write = async {
        for name in &wanted {
            server.post(MAPS, json!({"metadata": {"name": name}})).await;
        }
    };
    let (told, ()) = tokio::join!(futures::future::join_all((0..100).map(|_| names())), write);
    assert!(told.iter().all(|names| *names == wanted));
}

#[tokio::test]
async fn a_watch_from_the_past_is_told_so() {
    let server = TestServer::start().await;
    three_maps(&server).await;
    server.api.store().compact(server.api.store().revision()).await.unwrap();
    let (code, status) = server.get(&format!("{MAPS}?watch=1&resourceVersion=1")).await;
    assert_eq!((code, status["reason"].as_str().unwrap()), (410, "Expired"), "{status}");
}

#[tokio::test]
async fn every_page_says_how_much_remains() {
    let server = TestServer::start().await;
    let (_, all) = server.get("/api/v1/namespaces").await;
    let total = all["items"].as_array().unwrap().len();
    let mut path = "/api/v1/namespaces?limit=1".to_owned();
    for left in (1..total).rev() {
        let (_, page) = server.get(&path).await;
        assert_eq!(page["metadata"]["remainingItemCount"], left, "{page}");
        path =
            format!("/api/v1/namespaces?limit=1&continue={}", page["metadata"]["continue"].as_str().unwrap());
    }
    let (_, last) = server.get(&path).await;
    assert_eq!(last["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&last["metadata"]["continue"], &last["metadata"]["remainingItemCount"]),
        (&Value::Null, &Value::Null)
    );
}
