//! Traces: what is noted of requests, and how it reaches a collector.

use bytes::Bytes;
use grpc::{Reader, Value};
use http::{Method, Request};
use serde_json::json;
use tokio::sync::mpsc;

use super::{MAPS, TestServer};
use crate::TraceConfig;
use crate::respond::full;

/// A span, as far as it is looked at.
#[derive(Debug, Default)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    links: usize,
    times: [u64; 2],
}

fn span(bytes: &[u8]) -> Span {
    let mut span = Span::default();
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.field().unwrap() {
        match field {
            1 => span.trace = value.bytes().to_vec(),
            2 => span.id = value.bytes().to_vec(),
            4 => span.parent = value.bytes().to_vec(),
            5 => span.name = value.text(),
            7 => span.times[0] = value.number(),
            8 => span.times[1] = value.number(),
            13 => span.links += 1,
            _ => {}
        }
    }
    span
}

/// The messages that lie under a path of field numbers.
fn within<'a>(bytes: &'a [u8], path: &[u32]) -> Vec<&'a [u8]> {
    let Some((first, rest)) = path.split_first() else { return vec![bytes] };
    let mut found = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.field().unwrap() {
        if let (true, Value::Bytes(inner)) = (field == *first, value) {
            found.extend(within(inner, rest));
        }
    }
    found
}

/// A collector: where it listens, and what it is told.
async fn collector() -> (u16, mpsc::UnboundedReceiver<(String, Bytes)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(grpc::answer(socket, move |path, message| {
                let _ = sender.send((path, message));
                async { Ok(Vec::new()) }
            }));
        }
    });
    (port, told)
}

async fn server(per_million: u32, port: u16) -> TestServer {
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "TracingConfiguration",
        "endpoint": format!("127.0.0.1:{port}"), "samplingRatePerMillion": per_million});
    TestServer::with_tracing(TraceConfig::read(&file).unwrap()).await
}

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn create(server: &TestServer, name: &str, caller: Option<&str>) -> u16 {
    let mut request =
        Request::builder().method(Method::POST).uri(MAPS).header("content-type", "application/json");
    if let Some(caller) = caller {
        request = request.header("traceparent", caller);
    }
    let body = json!({"metadata": {"name": name}}).to_string();
    server.send(request.body(full(body)).unwrap(), Some(&server.admin)).await.0
}

#[tokio::test]
async fn requests_and_their_writes_become_spans() {
    let (port, mut told) = collector().await;
    let server = server(1_000_000, port).await;
    assert_eq!(create(&server, "a", None).await, 201);
    server.api.0.drain.drain().await;
    let mut spans = Vec::new();
    while let Ok((path, message)) = told.try_recv() {
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        assert_eq!(within(&message, &[1, 1, 1, 2, 1]), [b"apiserver".as_slice()]);
        spans.extend(within(&message, &[1, 2, 2]).into_iter().map(span));
    }
    let [commit, request] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(request.name, "POST /api/v1/namespaces/{:namespace}/configmaps");
    assert_eq!(commit.name, "Commit to the store");
    assert_eq!((&commit.trace, &commit.parent), (&request.trace, &request.id));
    assert_eq!((request.trace.len(), request.id.len(), request.parent.len()), (16, 8, 0));
    assert!(request.times[0] <= commit.times[0] && commit.times[1] <= request.times[1], "{spans:?}");
}

#[tokio::test]
async fn the_callers_trace_goes_on_if_the_caller_is_trusted() {
    let (port, mut told) = collector().await;
    let server = server(0, port).await;
    assert_eq!(create(&server, "unseen", None).await, 201);
    assert_eq!(create(&server, "a", Some(CALLER)).await, 201);
    let stranger = Request::builder().method(Method::GET).uri("/version").header("traceparent", CALLER);
    let stranger = stranger.body(crate::respond::empty()).unwrap();
    assert_eq!(server.send(stranger, None).await.0, 200);
    server.api.0.drain.drain().await;
    let (_, message) = told.recv().await.unwrap();
    let spans: Vec<Span> = within(&message, &[1, 2, 2]).into_iter().map(span).collect();
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(spans.iter().all(|span| span.trace[..2] == [0x4b, 0xf9] && span.links == 0));
    assert_eq!(spans[1].parent, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_up_nobody() {
    let server = server(1_000_000, 1).await;
    assert_eq!(create(&server, "a", Some("nonsense")).await, 201);
    server.api.0.drain.drain().await;
}
