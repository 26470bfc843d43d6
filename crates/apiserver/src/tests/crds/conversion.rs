use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

const V2: &str = "/apis/example.com/v2/namespaces/default/things";

/// `v1` has `spec.size`, `v2` has `spec.width`.
fn two_versions(conversion: Value) -> Value {
    let mut crd = definition(json!({"type": "object", "properties": {"size": {"type": "integer"}}}));
    let mut v2 = crd["spec"]["versions"][0].clone();
    v2["name"] = "v2".into();
    v2["storage"] = false.into();
    v2["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"type": "object", "properties": {"width": {"type": "integer"}, "extra": {"type": "string", "default": "e"}}});
    crd["spec"]["versions"].as_array_mut().unwrap().push(v2);
    crd["spec"]["conversion"] = conversion;
    crd
}

#[tokio::test]
async fn without_conversion_only_the_version_changes() {
    let mut crd = two_versions(json!({"strategy": "None"}));
    for i in 0..2 {
        crd["spec"]["versions"][i]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    let server = TestServer::with(crd).await;
    server.make(THINGS, thing("a", json!({"x": 1}))).await;
    let (_, got) = server.get(&format!("{V2}/a")).await;
    assert_eq!((&got["apiVersion"], &got["spec"]["x"]), (&json!("example.com/v2"), &json!(1)));
    let mut second = thing("b", json!({"y": 2}));
    second["apiVersion"] = "example.com/v2".into();
    let made = server.make(V2, second).await;
    assert_eq!(made["apiVersion"], "example.com/v2");
    let record = server.api.store().get("things.example.com", "default/b").unwrap();
    assert!(record.value.starts_with(b"{\"apiVersion\":\"example.com/v1\""), "stored in the storage version");
    let (_, list) = server.get(V2).await;
    assert!(list["items"].as_array().unwrap().iter().all(|i| i["apiVersion"] == "example.com/v2"));

    server
        .redefine("things.example.com", |crd| {
            crd["spec"]["versions"][0]["storage"] = false.into();
            crd["spec"]["versions"][1]["storage"] = true.into();
        })
        .await;
    let (_, crd) = server.get(&format!("{CRDS}/things.example.com")).await;
    assert_eq!(crd["status"]["storedVersions"], json!(["v1", "v2"]));
    let (_, list) = server.get(THINGS).await;
    assert!(list["items"].as_array().unwrap().iter().all(|i| i["apiVersion"] == "example.com/v1"));
    // A write that changes nothing brings the object into the new storage version.
    let (_, got) = server.get(&format!("{THINGS}/a")).await;
    let (code, _) = server.call(Method::PUT, &format!("{THINGS}/a"), got).await;
    assert_eq!(code, 200);
    let record = server.api.store().get("things.example.com", "default/a").unwrap();
    assert!(record.value.starts_with(b"{\"apiVersion\":\"example.com/v2\""));
}

/// A conversion webhook over TLS, which answers as it is told.
struct Hook {
    url: String,
    ca: String,
    calls: Arc<AtomicUsize>,
    mood: Arc<Mutex<&'static str>>,
    _folder: tempfile::TempDir,
}

impl Hook {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = auth::Pki::open(folder.path(), &base::SystemClock).unwrap();
        let pair = pki
            .issue(&auth::CertificateRequest {
                file: "hook".into(),
                common_name: "hook".into(),
                organization: String::new(),
                names: vec!["127.0.0.1".into(), "hook.default.svc".into()],
                usage: auth::Usage::Server,
            })
            .unwrap();
        let tls = Arc::new(auth::server_tls(&pair, pki.ca()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}/convert", listener.local_addr().unwrap().port());
        let (calls, mood) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new("willing")));
        let (count, feeling) = (calls.clone(), mood.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
                let (count, feeling) = (count.clone(), feeling.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        count.fetch_add(1, Ordering::SeqCst);
                        answer(request, *feeling.lock())
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let ca = pki.ca().to_owned();
        Self { url, ca, calls, mood, _folder: folder }
    }

    fn conversion(&self) -> Value {
        json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": self.url, "caBundle": base64(self.ca.as_bytes())}}})
    }
}

async fn answer(request: Request<Incoming>, mood: &str) -> Result<Response<Full<Bytes>>, Infallible> {
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&bytes).unwrap();
    let wanted = review["request"]["desiredAPIVersion"].clone();
    let convert = |mut object: Value| {
        let spec = object["spec"].as_object_mut().unwrap();
        if wanted == "example.com/v2" {
            if let Some(size) = spec.remove("size") {
                spec.insert("width".into(), size);
            }
        } else {
            spec.remove("extra");
            if let Some(width) = spec.remove("width") {
                spec.insert("size".into(), width);
            }
        }
        object["apiVersion"] = wanted.clone();
        if mood == "renaming" {
            object["metadata"]["name"] = "other".into();
        }
        object
    };
    let objects: Vec<Value> =
        review["request"]["objects"].as_array().unwrap().iter().cloned().map(convert).collect();
    let result = if mood == "refusing" {
        json!({"status": "Failure", "message": "not today"})
    } else {
        json!({"status": "Success"})
    };
    let answer = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": review["request"]["uid"], "result": result, "convertedObjects": objects}});
    Ok(Response::new(Full::new(answer.to_string().into())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

#[tokio::test]
async fn a_webhook_converts() {
    let hook = Hook::start().await;
    let server = TestServer::with(two_versions(hook.conversion())).await;
    for n in 0..3 {
        server.make(THINGS, thing(&format!("t{n}"), json!({"size": n}))).await;
    }
    assert_eq!(hook.calls.load(Ordering::SeqCst), 0, "the stored version needs nobody");
    let (_, got) = server.get(&format!("{V2}/t1")).await;
    assert_eq!(got["spec"], json!({"width": 1, "extra": "e"}), "{got}");
    let before = hook.calls.load(Ordering::SeqCst);
    let (_, list) = server.get(V2).await;
    assert_eq!(list["items"][2]["spec"]["width"], 2);
    assert_eq!(hook.calls.load(Ordering::SeqCst), before + 1, "a list goes in one review");
    let mut made = thing("new", json!({"width": 9}));
    made["apiVersion"] = "example.com/v2".into();
    let made = server.make(V2, made).await;
    assert_eq!((&made["apiVersion"], &made["spec"]["width"]), (&json!("example.com/v2"), &json!(9)));
    let (_, got) = server.get(&format!("{THINGS}/new")).await;
    assert_eq!(got["spec"], json!({"size": 9}));
    let (code, got) = server
        .patch(&format!("{V2}/new"), "application/merge-patch+json", json!({"spec": {"width": 10}}))
        .await;
    assert_eq!((code, &got["spec"]["width"]), (200, &json!(10)), "{got}");
    let (kind, event) = server.first_event(&format!("{V2}?watch=1&fieldSelector=metadata.name%3Dnew")).await;
    assert_eq!((kind.as_str(), &event["spec"]["width"]), ("ADDED", &json!(10)));
}

#[tokio::test]
async fn a_webhook_that_fails_is_told_of() {
    let hook = Hook::start().await;
    let server = TestServer::with(two_versions(hook.conversion())).await;
    server.make(THINGS, thing("a", json!({"size": 1}))).await;
    let about = "conversion webhook for example.com/v1, Kind=Thing";
    *hook.mood.lock() = "refusing";
    let (code, answer) = server.get(&format!("{V2}/a")).await;
    assert_eq!((code, &answer["message"]), (500, &json!(format!("{about} failed: not today"))));
    *hook.mood.lock() = "renaming";
    let (_, answer) = server.get(&format!("{V2}/a")).await;
    assert_eq!(
        answer["message"],
        format!("{about} returned invalid converted object at index 0: must have the same name: a != other")
    );
    let mut nowhere = hook.conversion();
    nowhere["webhook"]["clientConfig"]["url"] = "https://127.0.0.1:1/x".into();
    server.redefine("things.example.com", |crd| crd["spec"]["conversion"] = nowhere).await;
    let (_, answer) = server.get(&format!("{V2}/a")).await;
    assert_eq!(
        answer["message"],
        format!(
            "{about} failed: Post \"https://127.0.0.1:1/x?timeout=30s\": dial tcp 127.0.0.1:1: connect: connection refused"
        )
    );
    let mut untrusted = hook.conversion();
    untrusted["webhook"]["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    server.redefine("things.example.com", |crd| crd["spec"]["conversion"] = untrusted).await;
    let (_, answer) = server.get(&format!("{V2}/a")).await;
    assert!(answer["message"].as_str().unwrap().contains("tls: invalid peer certificate"), "{answer}");
    let service = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "none", "path": "/c"}}}});
    server.redefine("things.example.com", |crd| crd["spec"]["conversion"] = service).await;
    let (_, answer) = server.get(&format!("{V2}/a")).await;
    assert_eq!(
        answer["message"],
        format!(
            "{about} failed: Post \"https://none.default.svc:443/c?timeout=30s\": service \"none\" not found"
        )
    );
    assert_eq!(server.get(&format!("{THINGS}/a")).await.0, 200, "the stored version needs nobody");
}

#[tokio::test]
async fn a_webhook_can_be_a_service() {
    let hook = Hook::start().await;
    let mut conversion = hook.conversion();
    conversion["webhook"]["clientConfig"] = json!({"caBundle": base64(hook.ca.as_bytes()),
        "service": {"namespace": "default", "name": "hook", "path": "/convert"}});
    let server = TestServer::with(two_versions(conversion)).await;
    let (_, crd) = server.get(&format!("{CRDS}/things.example.com")).await;
    assert_eq!(crd["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"], 443);
    server.make(THINGS, thing("a", json!({"size": 1}))).await;
    let port: u16 = hook.url.rsplit([':', '/']).nth(1).unwrap().parse().unwrap();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"ports": [{"port": 443, "targetPort": port}]}});
    server.make("/api/v1/namespaces/default/services", service).await;
    let (_, answer) = server.get(&format!("{V2}/a")).await;
    assert!(
        answer["message"].as_str().unwrap().ends_with("no endpoints available for service \"hook\""),
        "{answer}"
    );
    // Endpoints may not be of the loopback, so they are written as a controller's store would hold them.
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "hook", "namespace": "default", "labels": {"kubernetes.io/service-name": "hook"}},
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}], "ports": [{"name": "", "port": port}]});
    let registry = server.api.0.registry();
    let def = registry.find("discovery.k8s.io", "v1", "endpointslices").unwrap();
    server.api.0.put(def, "default", &slice, store::Expect::Absent).await.unwrap();
    let (code, got) = server.get(&format!("{V2}/a")).await;
    assert_eq!((code, &got["spec"]["width"]), (200, &json!(1)), "{got}");
}
