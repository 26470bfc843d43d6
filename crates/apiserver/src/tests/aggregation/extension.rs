use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

pub(super) const GROUP: &str = "toys.example.com";
pub(super) const TOYS: &str = "/apis/toys.example.com/v1/namespaces/default/toys";

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request as it arrived.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// Whether the caller showed a certificate that the server's authority for proxies knows.
    pub(super) known: bool,
}

#[derive(Default)]
struct State {
    toys: Mutex<Vec<Value>>,
    seen: Mutex<Vec<Seen>>,
    /// Every answer is this code.
    broken: Mutex<Option<StatusCode>>,
}

/// An API server of its own, which serves toys over TLS.
pub(super) struct ToyServer {
    pub(super) port: u16,
    pub(super) ca: String,
    state: Arc<State>,
    life: Drain,
    proxies: String,
    _folder: Arc<tempfile::TempDir>,
}

impl ToyServer {
    /// With a certificate for `name`. It believes proxies of `proxies` (PEM).
    pub(super) async fn start(name: &str, proxies: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(folder, listener, name, proxies).await
    }

    /// Ends it, and all connections to it.
    pub(super) async fn die(&self) {
        self.life.drain().await;
    }

    /// The same server once more, after its death.
    pub(super) async fn rise(&self, name: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        Self::serve(self._folder.clone(), listener, name, &self.proxies).await
    }

    async fn serve(folder: Arc<tempfile::TempDir>, listener: TcpListener, name: &str, proxies: &str) -> Self {
        let pki = auth::Pki::open(folder.path(), &base::SystemClock).unwrap();
        let request = auth::CertificateRequest {
            file: "server".into(),
            common_name: "toys".into(),
            organization: String::new(),
            names: vec![name.to_owned()],
            usage: auth::Usage::Server,
        };
        let tls = Arc::new(auth::server_tls(&pki.issue(&request).unwrap(), proxies).unwrap());
        let (life, state) = (Drain::new(), Arc::new(State::default()));
        let port = listener.local_addr().unwrap().port();
        let events = broadcast::Sender::new(16);
        let (held, until) = (state.clone(), life.clone());
        life.spawn_until_started(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
                let (state, events) = (held.clone(), events.clone());
                until.spawn_until_started(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let known = stream.get_ref().1.peer_certificates().is_some();
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let (state, events) = (state.clone(), events.clone());
                        async move { Ok::<_, Infallible>(answer(&state, &events, request, known).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self { port, ca: pki.ca().to_owned(), state, life, proxies: proxies.to_owned(), _folder: folder }
    }

    /// The requests whose path begins like this.
    pub(super) fn seen(&self, path: &str) -> Vec<Seen> {
        self.state.seen.lock().iter().filter(|seen| seen.path.starts_with(path)).cloned().collect()
    }

    /// From now on every answer has this code.
    pub(super) fn fail_with(&self, code: Option<StatusCode>) {
        *self.state.broken.lock() = code;
    }
}

fn say(code: StatusCode, value: &Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

async fn answer(
    state: &State,
    events: &broadcast::Sender<Value>,
    mut request: Request<Incoming>,
    known: bool,
) -> Answer {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    state.seen.lock().push(Seen { path: path.clone(), headers: request.headers().clone(), known });
    if let Some(code) = *state.broken.lock() {
        return say(code, &json!({"kind": "Status", "code": code.as_u16()}));
    }
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let mut response = say(StatusCode::SWITCHING_PROTOCOLS, &Value::Null);
        *response.body_mut() = Full::default().boxed_unsync();
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "echo".parse().unwrap());
        return response;
    }
    match (request.method(), path.as_str()) {
        (_, "/apis/toys.example.com/v1") => say(
            StatusCode::OK,
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "toys.example.com/v1", "resources": [
                {"name": "toys", "singularName": "toy", "namespaced": true, "kind": "Toy", "shortNames": ["ty"],
                    "verbs": ["create", "get", "list", "watch"]},
                {"name": "toys/status", "singularName": "", "namespaced": true, "kind": "Toy", "verbs": ["get"]}]}),
        ),
        (_, "/openapi/v2") => say(
            StatusCode::OK,
            &json!({"swagger": "2.0", "paths": {TOYS: {"get": {}}, "/version": {}}, "definitions": {
                "com.example.toys.v1.Toy": {"type": "object", "x-kubernetes-group-version-kind":
                    [{"group": GROUP, "version": "v1", "kind": "Toy"}]}}}),
        ),
        (_, "/openapi/v3") => say(
            StatusCode::OK,
            &json!({"paths": {"apis/toys.example.com/v1":
                {"serverRelativeURL": "/openapi/v3/apis/toys.example.com/v1?hash=ABC"}}}),
        ),
        (_, "/openapi/v3/apis/toys.example.com/v1") => {
            say(StatusCode::OK, &json!({"openapi": "3.0.0", "info": {"title": "toys"}}))
        }
        (_, path) if path.ends_with("/moved") => {
            let mut response = say(StatusCode::FOUND, &Value::Null);
            response.headers_mut().insert("location", "/elsewhere/".parse().unwrap());
            response
        }
        (&Method::POST, TOYS) => {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let toy: Value = serde_json::from_slice(&bytes).unwrap();
            state.toys.lock().push(toy.clone());
            let _ = events.send(json!({"type": "ADDED", "object": toy}));
            say(StatusCode::CREATED, &toy)
        }
        (_, TOYS) if query.contains("watch=") => {
            let stream = tokio_stream(events.subscribe());
            Response::new(StreamBody::new(stream).boxed_unsync())
        }
        (_, TOYS) => {
            let items = state.toys.lock().clone();
            say(
                StatusCode::OK,
                &json!({"kind": "ToyList", "apiVersion": "toys.example.com/v1", "metadata": {}, "items": items}),
            )
        }
        (_, path) => say(StatusCode::OK, &json!({"path": path, "query": query})),
    }
}

fn tokio_stream(
    events: broadcast::Receiver<Value>,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures::stream::unfold(events, |mut events| async {
        let event = events.recv().await.ok()?;
        Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), events))
    })
    .boxed()
}

/// Long enough for what should come at once on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
