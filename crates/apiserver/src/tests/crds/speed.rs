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
