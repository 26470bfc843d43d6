use http::Uri;
use serde_json::json;

use super::*;

const JSON: &str = "application/json";

#[tokio::test]
async fn paths_with_tricks_lead_nowhere() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await;
    for namespace in ["default", "other"] {
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        assert_eq!(
            server.post(&path, json!({"metadata": {"name": "s"}, "stringData": {"k": "hush"}})).await.0,
            201
        );
    }
    let long = "a".repeat(60_000);
    for (path, codes) in [
        ("/api/v1/namespaces/default/../other/secrets/s", 404..=404),
        ("/api/v1/namespaces/default/%2e%2e/other/secrets/s", 404..=404),
        ("/api/v1/namespaces/default%2f..%2fother/secrets/s", 404..=404),
        ("/api/v1/namespaces/default/secrets/..%2f..%2fother%2fsecrets%2fs", 404..=404),
        ("/api/v1/namespaces/default/secrets/s%00", 404..=404),
        ("/api/v1/namespaces/default/secrets/s%ff", 400..=400),
        ("/api/v1/namespaces/default/secrets/s;x=y", 404..=404),
        ("/api/v1/namespaces/default/secrets/s%20", 404..=404),
        ("/api/v1/namespaces/default/secrets/S", 404..=404),
        ("/api/v1/namespaces/default/secrets/%EF%BC%B3", 404..=404),
        ("/api/v1/namespaces/default/secrets/s/status/x", 404..=404),
        ("/api/v1/namespaces/default/secrets/s/s", 404..=404),
        ("/api/v1/secrets/default%2fs", 404..=404),
        ("/API/v1/namespaces/default/secrets/s", 404..=404),
        ("/api/V1/namespaces/default/secrets/s", 404..=404),
        ("/apis//v1/namespaces/default/secrets/s", 404..=404),
        ("/api/v1/namespaces/default/secrets/%73", 200..=200),
        ("/api/v1/namespaces/default//secrets/s", 200..=200),
        ("/api/v1/namespaces/default/secrets/%", 404..=404),
        ("/api/v1/namespaces/default/secrets/%zz", 404..=404),
        ("/api/v1/namespaces/default/secrets/%252e", 404..=404),
        ("/healthz/../api/v1/namespaces/default/secrets/s", 404..=404),
        ("/api/v1/watch/watch/pods", 404..=404),
        ("/api/v1/namespaces/default/namespaces/default", 404..=404),
        ("/api/v1/namespaces/namespaces/namespaces", 404..=404),
        ("/openapi/v3/../../api/v1", 404..=404),
        ("/openapi/v3/apis/%2e%2e/v1", 404..=404),
        ("/livez/%00", 404..=404),
        (long.as_str(), 404..=404),
    ] {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/api/v1/namespaces/default/secrets/{path}")
        };
        let request = Request::get(path.parse::<Uri>().unwrap_or_else(|e| panic!("{path}: {e}")));
        let (code, answer) = server.send(request.body(full("")).unwrap(), Some(&server.admin)).await;
        assert!(codes.contains(&code), "{path}: {code} {answer}");
    }
    // A name from a path is a name like any other.
    for name in ["..", ".", "a%2fb", "a%25b", "%00", "A", "a b", "a\u{200b}", "💩"] {
        let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
        let encoded = name.replace(' ', "%20").replace('\u{200b}', "%e2%80%8b").replace('💩', "%f0%9f%92%a9");
        let path = format!("{MAPS}/{encoded}?fieldManager=m");
        let (code, said) =
            server.throw(Method::PATCH, &path, "application/apply-patch+yaml", apply.to_string()).await;
        assert!((400..=422).contains(&code), "{name}: {code} {said}");
    }
}

/// A selector narrows; it does not lead out of the namespace that was asked for.
#[tokio::test]
async fn selectors_stay_in_their_namespace() {
    let server = TestServer::start().await;
    for namespace in ["mine", "other"] {
        server.post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        server.post(&path, json!({"metadata": {"name": "s"}, "stringData": {"k": "hush"}})).await;
    }
    for selector in [
        "metadata.namespace%3Dother",
        "metadata.namespace%3Dother,metadata.name%3Ds",
        "metadata.name%3Dother/s",
    ] {
        let path = format!("/api/v1/namespaces/mine/secrets?fieldSelector={selector}");
        let (code, list) = server.get(&path).await;
        assert_eq!((code, &list["items"]), (200, &json!([])), "{selector}");
        let (code, deleted) = server.call(Method::DELETE, &path, Value::Null).await;
        assert_eq!((code, &deleted["items"]), (200, &json!([])), "{selector}");
        let watch = format!(
            "{path}&watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        );
        assert_eq!(server.first_event(&watch).await.0, "BOOKMARK", "{selector}");
    }
    assert_eq!(server.get("/api/v1/namespaces/other/secrets/s").await.0, 200);
    let (_, list) = server.get("/api/v1/secrets?fieldSelector=metadata.namespace%3Dother").await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn parameters_beyond_all_bounds() {
    let server = TestServer::start().await;
    server.post(MAPS, json!({"metadata": {"name": "a", "labels": {"a": "b"}}})).await;
    let many = |term: &str, n: usize| vec![term; n].join("%2C");
    for (query, codes) in [
        ("limit=9223372036854775807".to_owned(), 200..=200),
        ("limit=18446744073709551615".to_owned(), 200..=400),
        ("limit=99999999999999999999".to_owned(), 400..=400),
        ("limit=-1".to_owned(), 200..=400),
        ("limit=1&continue=zz".to_owned(), 400..=400),
        ("limit=1&continue=3a".to_owned(), 400..=400),
        ("continue=".to_owned() + &"3".repeat(60_000), 400..=400),
        // A revision that is yet to come, keys of other places.
        ("limit=1&continue=393939393939393939393a61".to_owned(), 200..=410),
        ("limit=1&continue=303a6f746865722f78".to_owned(), 200..=410),
        ("limit=1&continue=31383434363734343037333730393535313631353a61".to_owned(), 200..=410),
        ("resourceVersion=-1".to_owned(), 400..=422),
        ("resourceVersion=18446744073709551616".to_owned(), 400..=422),
        ("resourceVersion=0x10".to_owned(), 400..=422),
        ("resourceVersion=0&resourceVersionMatch=Exact".to_owned(), 422..=422),
        ("timeoutSeconds=18446744073709551615".to_owned(), 200..=400),
        ("timeoutSeconds=-5".to_owned(), 200..=400),
        ("timeoutSeconds=1e9".to_owned(), 400..=400),
        ("timeout=999999999999999999h".to_owned(), 200..=400),
        ("labelSelector=".to_owned() + &many("a!%3Db", 4_000), 200..=200),
        ("labelSelector=a+in+(".to_owned() + &many("v", 12_000) + ")", 200..=200),
        ("labelSelector=".to_owned() + &"(".repeat(50_000), 400..=400),
        ("labelSelector=".to_owned() + &"!".repeat(50_000) + "a", 400..=400),
        ("labelSelector=a%3D".to_owned() + &"v".repeat(60_000), 400..=400),
        ("fieldSelector=".to_owned() + &many("metadata.name!%3Dx", 2_000), 200..=200),
        ("fieldSelector=".to_owned() + &"%5C".repeat(19_000), 400..=400),
        ("fieldSelector=spec.x%3Dy".to_owned(), 400..=400),
        ("watch=maybe".to_owned(), 400..=400),
        ("labelSelector=%ff".to_owned(), 400..=400),
        (vec!["a=b"; 10_000].join("&"), 200..=200),
    ] {
        let shown: String = query.chars().take(60).collect();
        let (code, said) = server.throw(Method::GET, &format!("{MAPS}?{query}"), JSON, "").await;
        assert!(codes.contains(&code), "{shown}: {code} {said}");
    }
    for seconds in ["0", "18446744073709551615", "9223372036854775807", "1"] {
        let path = format!("{MAPS}?watch=1&timeoutSeconds={seconds}");
        assert_eq!(server.first_event(&path).await.0, "ADDED", "{seconds}");
    }
    for grace in ["-9223372036854775808", "9223372036854775807", "99999999999999999999"] {
        let (code, _) =
            server.throw(Method::DELETE, &format!("{MAPS}/none?gracePeriodSeconds={grace}"), JSON, "").await;
        assert!((400..=422).contains(&code), "{grace}");
    }
}
