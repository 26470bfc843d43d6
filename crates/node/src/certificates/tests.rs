use std::convert::Infallible;
use std::time::Duration;

use auth::{Pki, SigningOrder};
use base::{ManualClock, SystemClock};
use client::Transport;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::client::Body;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

const BEGIN: &str = "2026-01-01T00:00:00Z";
const LIFE: u64 = 1000;

/// An API that knows one request, and signs what is asked for, or says no.
struct Api {
    pki: Pki,
    _folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    request: Mutex<Option<Value>>,
    denies: Mutex<bool>,
    /// How many looks at a request are still answered with a failure.
    failures: Mutex<u32>,
    /// What they are answered with.
    code: Mutex<u16>,
    /// Whether requests are lost.
    forgets: Mutex<bool>,
    /// Who has asked, in their order.
    asked: Mutex<Vec<&'static str>>,
}

impl Api {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        Arc::new(Self {
            pki: Pki::open(folder.path(), &SystemClock).unwrap(),
            _folder: folder,
            clock: Arc::new(ManualClock::new(BEGIN.parse().unwrap())),
            request: Mutex::default(),
            denies: Mutex::default(),
            failures: Mutex::default(),
            code: Mutex::new(503),
            forgets: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    fn decide(&self, request: &mut Value) {
        let parsed: CertificateSigningRequest = serde_json::from_value(request.clone()).unwrap();
        let kind = if *self.denies.lock() { "Denied" } else { "Approved" };
        request["status"] = json!({"conditions": [
            {"type": kind, "status": "True", "reason": "Test", "message": "because"}]});
        if kind == "Denied" {
            return;
        }
        // A request has the same armour as a certificate, with other letters on it.
        let pem = String::from_utf8(parsed.spec.request.0).unwrap();
        let pem = pem.replace("CERTIFICATE REQUEST", "CERTIFICATE");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let now = self.clock.now().as_second();
        let order = SigningOrder {
            request: &der,
            usages: &parsed.spec.usages.unwrap(),
            not_before: now,
            not_after: now + LIFE as i64,
        };
        let signed = self.pki.sign(&order).unwrap();
        request["status"]["certificate"] =
            serde_json::to_value(k8s_openapi::ByteString(signed.into_bytes())).unwrap();
    }

    fn client(self: &Arc<Self>, who: &'static str) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let made = request.method() == Method::POST;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut failures = api.failures.lock();
                if !made && *failures > 0 {
                    *failures -= 1;
                    let code = *api.code.lock();
                    let reason = if code == 404 { "NotFound" } else { "Test" };
                    let text = json!({"status": "Failure", "reason": reason, "code": code}).to_string();
                    let away = Response::builder().status(code).body(Full::new(bytes::Bytes::from(text)));
                    return Ok::<_, Infallible>(away.unwrap());
                }
                drop(failures);
                let answer = if made {
                    api.asked.lock().push(who);
                    let mut request: Value = serde_json::from_slice(&body).unwrap();
                    request["metadata"]["name"] = "csr-1".into();
                    request["metadata"]["uid"] = "u".into();
                    let answer = request.clone();
                    api.decide(&mut request);
                    *api.request.lock() = Some(request).filter(|_| !*api.forgets.lock());
                    answer
                } else {
                    let items: Vec<Value> = api.request.lock().clone().into_iter().collect();
                    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequestList",
                        "metadata": {"resourceVersion": "1"}, "items": items})
                };
                Ok(Response::new(Full::new(bytes::Bytes::from(answer.to_string()))))
            }
        });
        Transport::service(service).client()
    }

    /// Keeps a client's certificate good in a folder; tells of each that is used.
    fn keep(self: &Arc<Self>, folder: &std::path::Path, drain: &Drain) -> mpsc::UnboundedReceiver<Timestamp> {
        let (used, uses) = mpsc::unbounded_channel();
        let rotation = Rotation {
            usage: CertificateUse::Client,
            node: "n1".into(),
            names: Vec::new(),
            store: CertificateStore::open(folder, "kubelet-client").unwrap(),
            client: self.client("itself"),
            bootstrap: Some(self.client("bootstrap")),
            rotate: true,
            apply: Box::new(move |pair| {
                let _ = used.send(certificate_span(&pair.certificate).unwrap().1);
                Ok(())
            }),
            clock: self.clock.clone(),
            jitter: Box::new(|| 0.5),
        };
        rotation.start(drain);
        uses
    }

    /// Lets time pass on all clocks, in steps small enough for whoever looks at one and waits on the other.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    }
}

fn end(after: u64) -> Timestamp {
    let begin: Timestamp = BEGIN.parse().unwrap();
    begin.checked_add(Duration::from_secs(after)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_followed_by_another_before_it_ends() {
    let (api, folder, drain) = (Api::new(), tempfile::tempdir().unwrap(), Drain::new());
    let mut uses = api.keep(folder.path(), &drain);
    assert_eq!(uses.recv().await, Some(end(LIFE)));
    // Up to 80 % of its life nothing happens.
    api.pass(LIFE * 8 / 10 - 5).await;
    assert!(uses.try_recv().is_err());
    assert_eq!(*api.asked.lock(), ["bootstrap"]);
    api.pass(10).await;
    let second = uses.recv().await.unwrap();
    assert!(second > end(LIFE * 17 / 10) && second <= end(LIFE * 19 / 10), "{second}");
    assert_eq!(*api.asked.lock(), ["bootstrap", "itself"]);
    drain.drain().await;

    // An agent that starts again uses what is kept, and asks nobody.
    let again = Drain::new();
    let mut uses = api.keep(folder.path(), &again);
    assert_eq!(uses.try_recv(), Ok(second));
    again.drain().await;
    assert_eq!(api.asked.lock().len(), 2);

    // One that comes too late begins as at first.
    api.pass(2 * LIFE).await;
    let late = Drain::new();
    let mut uses = api.keep(folder.path(), &late);
    assert!(uses.recv().await.unwrap() > end(2 * LIFE));
    assert_eq!(*api.asked.lock(), ["bootstrap", "itself", "bootstrap"]);
    late.drain().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_denied_asks_again_later() {
    let (api, folder, drain) = (Api::new(), tempfile::tempdir().unwrap(), Drain::new());
    *api.denies.lock() = true;
    let denied = ask::ask(&api.client("itself"), CertificateUse::Client, "n1", &[]).await.unwrap_err();
    let want = "certificate signing request csr-1 is denied, reason: Test, message: because";
    assert_eq!(denied.to_string(), want);
    let mut uses = api.keep(folder.path(), &drain);
    api.pass(10).await;
    assert!(api.asked.lock().len() > 2 && uses.try_recv().is_err());
    *api.denies.lock() = false;
    assert!(uses.recv().await.is_some());
    drain.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_not_asked_twice() {
    let (api, folder, drain) = (Api::new(), tempfile::tempdir().unwrap(), Drain::new());
    *api.failures.lock() = 3;
    let mut uses = api.keep(folder.path(), &drain);
    assert!(uses.recv().await.is_some());
    assert_eq!((*api.failures.lock(), &**api.asked.lock()), (0, &["bootstrap"][..]));
    drain.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_any_more_is_not_waited_for() {
    let api = Api::new();
    let ask = || async {
        let begun = tokio::time::Instant::now();
        let said = ask::ask(&api.client("itself"), CertificateUse::Client, "n1", &[]).await;
        (said.map(drop).map_err(|error| error.to_string()), begun.elapsed())
    };
    // Nobody knows of such requests.
    (*api.failures.lock(), *api.code.lock()) = (100, 404);
    let (said, waited) = ask().await;
    assert!(said.unwrap_err().starts_with("cannot watch on the certificate signing request"));
    assert_eq!((*api.failures.lock(), waited), (99, Duration::ZERO));
    // Somebody has taken it away.
    (*api.failures.lock(), *api.forgets.lock()) = (0, true);
    let (said, waited) = ask().await;
    let gone = "certificate signing request csr-1 is there no more";
    assert_eq!((said, waited), (Err(gone.to_owned()), Duration::ZERO));
    // Who may not look yet may later.
    *api.forgets.lock() = false;
    (*api.failures.lock(), *api.code.lock()) = (3, 403);
    let (said, waited) = ask().await;
    assert!(said.is_ok() && waited > Duration::ZERO, "{said:?}");
}
