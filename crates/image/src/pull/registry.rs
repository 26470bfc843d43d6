//! A registry of a few dozen lines for tests, with every fault a real one has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::Digest;
use crate::testing::{Tar, config};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    Open,
    Basic,
    Token,
    /// Gives tokens that no header can carry.
    BrokenToken,
}

pub(super) struct Registry {
    pub(super) address: SocketAddr,
    /// The certificate that it shows, in PEM.
    pub(super) ca: Option<Vec<u8>>,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    guard: Guard,
    base: String,
    content: Mutex<HashMap<String, (StatusCode, Vec<u8>)>>,
    requests: Mutex<Vec<String>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Registry {
    pub(super) async fn start(guard: Guard, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls { "https" } else { "http" };
        let state = Arc::new(State {
            guard,
            base: format!("{scheme}://{address}"),
            content: Mutex::default(),
            requests: Mutex::default(),
        });
        let (acceptor, ca) = match tls.then(certificate) {
            Some((acceptor, ca)) => (Some(acceptor), Some(ca)),
            None => (None, None),
        };
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, shared).await;
                            }
                        }
                        None => serve(stream, shared).await,
                    }
                });
            }
        });
        Self { address, ca, state, task }
    }

    pub(super) fn put(&self, path: &str, status: u16, bytes: impl Into<Vec<u8>>) {
        let status = StatusCode::from_u16(status).unwrap();
        self.state.content.lock().unwrap().insert(path.to_owned(), (status, bytes.into()));
    }

    pub(super) fn blob(&self, repository: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::of(bytes);
        self.put(&format!("/v2/{repository}/blobs/{digest}"), 200, bytes);
        serde_json::json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": bytes.len() })
    }

    pub(super) fn manifest(&self, repository: &str, tag: &str, value: &serde_json::Value) -> Digest {
        let bytes = value.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        self.put(&format!("/v2/{repository}/manifests/{tag}"), 200, bytes.clone());
        self.put(&format!("/v2/{repository}/manifests/{digest}"), 200, bytes);
        digest
    }

    /// An image of one layer for each file name.
    pub(super) fn image(&self, repository: &str, tag: &str, files: &[&str]) -> (Digest, serde_json::Value) {
        let layers: Vec<Vec<u8>> = files.iter().map(|name| Tar::new().file(name, name).done()).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let mut config = self.blob(repository, config(&diff_ids).as_bytes());
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let layers: Vec<_> = layers.iter().map(|layer| self.blob(repository, layer)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        (self.manifest(repository, tag, &manifest), manifest)
    }

    /// How often something with `part` in its path was asked for.
    pub(super) fn asked(&self, part: &str) -> usize {
        self.state.requests.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }
}

fn certificate() -> (tokio_rustls::TlsAcceptor, Vec<u8>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(server)), made.cert.pem().into_bytes())
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(state.answer(&request)) }
    });
    // Broken connections are the client's affair.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl State {
    fn answer(&self, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        self.requests.lock().unwrap().push(path.to_owned());
        let given =
            request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("");
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("me:secret"));
        let answer = |status: StatusCode, body: Vec<u8>| {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            response
        };
        if path == "/token" {
            return match (given == basic, self.guard) {
                (_, Guard::BrokenToken) => answer(StatusCode::OK, br#"{"token":"a\nb"}"#.to_vec()),
                (true, _) => answer(StatusCode::OK, br#"{"token":"good"}"#.to_vec()),
                (false, _) => answer(StatusCode::UNAUTHORIZED, b"wrong password".to_vec()),
            };
        }
        let (allowed, challenge) = match self.guard {
            Guard::Open => (true, String::new()),
            Guard::Basic => (given == basic, "Basic realm=\"r\"".to_owned()),
            Guard::Token | Guard::BrokenToken => {
                (given == "Bearer good", format!("Bearer realm=\"{}/token\",service=\"s\"", self.base))
            }
        };
        if !allowed {
            let mut response = answer(StatusCode::UNAUTHORIZED, Vec::new());
            response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            return response;
        }
        if path == "/v2/" {
            return answer(StatusCode::OK, Vec::new());
        }
        match self.content.lock().unwrap().get(path) {
            Some((status, bytes)) => answer(*status, bytes.clone()),
            None => {
                let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                answer(StatusCode::NOT_FOUND, body.to_vec())
            }
        }
    }
}
