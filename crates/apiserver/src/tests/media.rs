//! What clients get that do not want JSON.

use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use types::protobuf::open_envelope;

use super::{MAPS, TestServer};
use crate::respond;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

impl TestServer {
    /// The content type and the bytes of an answer.
    async fn raw(&self, path: &str, headers: &[(header::HeaderName, &str)]) -> (http::HeaderMap, Vec<u8>) {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let response = self.api.handle(request.body(respond::empty()).unwrap(), Some(&self.admin)).await;
        let headers = response.headers().clone();
        (headers, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    /// A protobuf answer as JSON, with its kind.
    fn decoded(&self, bytes: &[u8], message: &str) -> (String, Value) {
        let envelope = open_envelope(bytes).unwrap();
        let registry = self.api.0.registry();
        (envelope.kind, registry.protobuf().decode(message, envelope.raw).unwrap())
    }
}

fn without_kind(mut object: Value) -> Value {
    for field in ["apiVersion", "kind"] {
        types::object(&mut object).remove(field);
    }
    object
}

#[tokio::test]
async fn protobuf_says_what_json_says() {
    let server = TestServer::start().await;
    for name in ["a", "b"] {
        server.post(MAPS, json!({"metadata": {"name": name}, "data": {"k": name}})).await;
    }
    let (headers, bytes) = server.raw(&format!("{MAPS}/a"), &[(header::ACCEPT, PROTOBUF)]).await;
    assert_eq!(headers[header::CONTENT_TYPE], PROTOBUF);
    let (_, json) = server.get(&format!("{MAPS}/a")).await;
    let (kind, object) = server.decoded(&bytes, "io.k8s.api.core.v1.ConfigMap");
    assert_eq!((kind.as_str(), object), ("ConfigMap", without_kind(json)));

    let (_, bytes) = server.raw(MAPS, &[(header::ACCEPT, PROTOBUF)]).await;
    let (kind, list) = server.decoded(&bytes, "io.k8s.api.core.v1.ConfigMapList");
    let (_, json) = server.get(MAPS).await;
    let items = |list: &Value| {
        list["items"].as_array().unwrap().iter().cloned().map(without_kind).collect::<Vec<_>>()
    };
    assert_eq!((kind.as_str(), items(&list)), ("ConfigMapList", items(&json)));
    assert_eq!(list["metadata"], json["metadata"]);

    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let (_, bytes) = server.raw(MAPS, &[(header::ACCEPT, &partial)]).await;
    let (kind, list) =
        server.decoded(&bytes, "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList");
    assert_eq!((kind.as_str(), list["items"].as_array().unwrap().len()), ("PartialObjectMetadataList", 2));
}

/// The kinds of the events of a stream, and their objects' envelopes.
fn frames(mut rest: &[u8]) -> Vec<(String, &[u8])> {
    let mut found = Vec::new();
    while let Some((length, after)) = rest.split_at_checked(4) {
        let (frame, after) = after.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
        rest = after;
        // A type, then an object whose only field holds the enveloped object.
        let kind = &frame[2..2 + usize::from(frame[1])];
        let at = frame.windows(4).position(|w| w == b"k8s\0").unwrap();
        found.push((String::from_utf8(kind.to_vec()).unwrap(), &frame[at..]));
    }
    found
}

#[tokio::test]
async fn a_watch_in_protobuf_is_a_stream_of_frames() {
    let server = TestServer::start().await;
    server.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    let path = format!(
        "{MAPS}?watch=1&timeoutSeconds=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let (headers, bytes) = server.raw(&path, &[(header::ACCEPT, &format!("{PROTOBUF};stream=watch"))]).await;
    assert_eq!(headers[header::CONTENT_TYPE], format!("{PROTOBUF};stream=watch"));
    let kinds: Vec<(String, String)> = frames(&bytes)
        .into_iter()
        .map(|(kind, object)| (kind, open_envelope(object).unwrap().kind))
        .collect();
    let pair = |a: &str| (a.to_owned(), "ConfigMap".to_owned());
    assert_eq!(kinds[..2], [pair("ADDED"), pair("BOOKMARK")]);
}

#[tokio::test]
async fn what_protobuf_cannot_say_comes_as_json() {
    let server = TestServer::start().await;
    let policy = json!({"metadata": {"name": "d"}, "spec": {"preventPodSchedulingIfMissing": true}});
    let drivers = "/apis/storage.k8s.io/v1/csidrivers";
    let (code, made) = server.post(drivers, policy).await;
    assert_eq!(code, 201, "{made}");
    let both = format!("{PROTOBUF},application/json");
    for path in [drivers.to_owned(), format!("{drivers}/d")] {
        let (headers, bytes) = server.raw(&path, &[(header::ACCEPT, &both)]).await;
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert!(String::from_utf8(bytes).unwrap().contains("preventPodSchedulingIfMissing"));
        let (headers, _) = server.raw(&path, &[(header::ACCEPT, PROTOBUF)]).await;
        assert_eq!(headers[header::CONTENT_TYPE], PROTOBUF);
    }
}

#[tokio::test]
async fn long_answers_are_compressed_on_request() {
    let server = TestServer::start().await;
    for i in 0..3 {
        server
            .post(MAPS, json!({"metadata": {"name": format!("m{i}")}, "data": {"k": "x".repeat(60_000)}}))
            .await;
    }
    let (_, plain) = server.raw(MAPS, &[]).await;
    let (headers, packed) = server.raw(MAPS, &[(header::ACCEPT_ENCODING, "br, gzip;q=1")]).await;
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    assert!(unpacked == plain && packed.len() < plain.len() / 10);
    let (headers, _) = server.raw(&format!("{MAPS}/m0"), &[(header::ACCEPT_ENCODING, "gzip")]).await;
    assert!(!headers.contains_key(header::CONTENT_ENCODING), "short answers are not");
}

#[tokio::test]
async fn watchers_in_all_forms_see_the_same_event() {
    let server = TestServer::start().await;
    let from = server.api.store().revision();
    server.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    server.patch(&format!("{MAPS}/a"), "application/merge-patch+json", json!({"data": {"k": "w"}})).await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={from}");
    let partial = "as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let forms = [
        format!("{PROTOBUF};stream=watch"),
        format!("{PROTOBUF};{partial}"),
        format!("application/json;{partial}"),
        "application/json".to_owned(),
    ];
    // Twice each: the second one gets what was made for the first.
    let watch = async |accept: String| {
        let headers = [(header::ACCEPT, accept.as_str())];
        let ((_, one), (_, two)) = tokio::join!(server.raw(&path, &headers), server.raw(&path, &headers));
        assert_eq!(one, two, "{accept}");
        one
    };
    let [whole, small, small_json, json] = forms.map(&watch);
    let (whole, small, small_json, json) = tokio::join!(whole, small, small_json, json);
    let enveloped = |bytes: &[u8], message: &str| -> Vec<Value> {
        frames(bytes).into_iter().map(|(_, object)| server.decoded(object, message).1).collect()
    };
    let lines = |bytes: &[u8]| -> Vec<Value> {
        let events = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        events.map(|event| without_kind(event.unwrap()["object"].take())).collect()
    };
    let (all, metadata) = (lines(&json), lines(&small_json));
    assert_eq!((all.len(), &all[1]["data"]["k"]), (2, &json!("w")));
    assert_eq!(enveloped(&whole, "io.k8s.api.core.v1.ConfigMap"), all);
    assert_eq!(metadata[1]["metadata"], all[1]["metadata"]);
    let message = "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";
    assert_eq!(enveloped(&small, message), metadata);
}
