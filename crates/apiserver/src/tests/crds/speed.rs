use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn numbered(n: usize) -> serde_json::Value {
    let mut crd = definition(json!({"type": "object", "properties": {
        "a": {"type": "string", "pattern": "^[a-z]+$"}, "b": {"type": "integer", "default": 1}}}));
    crd["metadata"]["name"] = format!("things.group{n}.example").into();
    crd["spec"]["group"] = format!("group{n}.example").into();
    crd
}

/// Each definition costs what the first did, however many there are; figures are printed, and held to generous bounds.
#[tokio::test]
async fn many_definitions() {
    let server = TestServer::start().await;
    let mut times = Vec::new();
    for n in 0..150 {
        let crd = numbered(n);
        let begun = Instant::now();
        server.define(crd).await;
        let (code, _) = server.get(&format!("/apis/group{n}.example/v1/things")).await;
        times.push(begun.elapsed());
        assert_eq!(code, 200, "served when the answer is there");
    }
    let mean = |times: &[Duration]| times.iter().sum::<Duration>() / times.len() as u32;
    let (first, last) = (mean(&times[10..40]), mean(&times[120..150]));
    println!("established in {first:?}, with 120 others in {last:?}");
    assert!(last < first * 4 + Duration::from_millis(5), "{first:?} {last:?}");
    let begun = Instant::now();
    server.get("/openapi/v3").await;
    server.get("/apis").await;
    println!("index and groups in {:?}", begun.elapsed());
}

/// Custom objects are made about as fast as built-in ones.
#[tokio::test]
async fn many_objects() {
    let server = TestServer::with(numbered(0)).await;
    let things = "/apis/group0.example/v1/namespaces/default/things";
    let time = async |path: &str, object: &dyn Fn(usize) -> serde_json::Value| {
        let begun = Instant::now();
        for n in 0..100 {
            server.make(path, object(n)).await;
        }
        begun.elapsed()
    };
    let thing = |n: usize| {
        json!({"apiVersion": "group0.example/v1", "kind": "Thing",
        "metadata": {"name": format!("t{n}"), "labels": {"app": "x"}}, "spec": {"a": "abcdefgh"}})
    };
    let map = |n: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("t{n}"), "labels": {"app": "x"}}, "data": {"a": "abcdefgh"}})
    };
    let (maps, things) = (time(super::super::MAPS, &map).await, time(things, &thing).await);
    println!("100 ConfigMaps in {maps:?}, 100 custom objects in {things:?}");
    assert!(things < maps * 3 + Duration::from_millis(50), "{maps:?} {things:?}");
}

/// The same for the end of definitions.
#[tokio::test]
async fn many_ends() {
    let server = TestServer::start().await;
    for n in 0..100 {
        server.define(numbered(n)).await;
    }
    let begun = Instant::now();
    for n in 0..100 {
        let path = format!("{CRDS}/things.group{n}.example");
        server.call(http::Method::DELETE, &path, serde_json::Value::Null).await;
    }
    let asked = begun.elapsed();
    server.until(|| async { server.get(CRDS).await.1["items"].as_array().is_some_and(Vec::is_empty) }).await;
    println!("100 definitions deleted in {asked:?}, gone in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(15));
}
