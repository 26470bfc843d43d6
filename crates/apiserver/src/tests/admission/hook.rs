use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

type Answer = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// An admission webhook over TLS, which answers as it is told and remembers what it was asked.
pub(super) struct Hook {
    url: String,
    ca: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    answer: Arc<Mutex<Box<Answer>>>,
    _folder: tempfile::TempDir,
}

impl Hook {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = auth::Pki::open(folder.path(), &base::SystemClock).unwrap();
        let pair = pki
            .issue(&auth::CertificateRequest {
                file: "hook".into(),
                common_name: "hook".into(),
                organization: String::new(),
                names: vec!["127.0.0.1".into()],
                usage: auth::Usage::Server,
            })
            .unwrap();
        let tls = Arc::new(auth::server_tls(&pair, pki.ca()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let allow: Box<Answer> = Box::new(|_, _| json!({"allowed": true}));
        let answer = Arc::new(Mutex::new(allow));
        let (notes, voice) = (seen.clone(), answer.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
                let (notes, voice) = (notes.clone(), voice.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let (notes, voice) = (notes.clone(), voice.clone());
                        async move {
                            let path = request.uri().path().to_owned();
                            let bytes = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&bytes).unwrap();
                            let mut response = (*voice.lock())(&path, &review["request"]);
                            if response["uid"].is_null() {
                                response["uid"] = review["request"]["uid"].clone();
                            }
                            let said = json!({"kind": "AdmissionReview",
                                "apiVersion": review["apiVersion"], "response": response});
                            notes.lock().push((path, review));
                            let body = Full::new(Bytes::from(said.to_string()));
                            Ok::<_, Infallible>(Response::new(body))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, ca: pki.ca().to_owned(), seen, answer, _folder: folder }
    }

    pub(super) fn answers(&self, answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) {
        *self.answer.lock() = Box::new(answer);
    }

    /// The paths that were called, and with what.
    pub(super) fn taken(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.seen.lock())
    }

    /// A webhook at a path of this server, about config maps.
    pub(super) fn webhook(&self, path: &str) -> Value {
        json!({"name": format!("{path}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("{}/{path}", self.url), "caBundle": base64(self.ca.as_bytes())},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]})
    }
}

/// A response with a patch.
pub(super) fn patched(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(operations.to_string().as_bytes())})
}

pub(in crate::tests) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            out.push(if i <= chunk.len() { DIGITS[(n >> (18 - 6 * i)) as usize & 63] as char } else { '=' });
        }
    }
    out
}
