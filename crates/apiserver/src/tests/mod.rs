//! The API as a client sees it, without a network.

mod access;
mod admission;
mod aggregation;
mod apply;
mod audit;
mod crds;
mod evictions;
mod fuzz;
#[path = "../../examples/hammer/engine/mod.rs"]
mod hammer;
mod hostile;
mod lists;
mod media;
mod nodes;
mod openapi;
mod remote;
mod snapshots;
mod stale;
mod traces;
mod versions;
mod writes;

use std::sync::Arc;

use auth::{StaticTokens, TokenIssuer, User};
use base::{Drain, ManualClock, SeededIds};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use store::{Options, Seal, Store};

use crate::respond::full;
use crate::{ApiServer, Config};

pub(super) struct TestServer {
    pub(super) api: ApiServer,
    pub(super) admin: User,
    pub(super) clock: ManualClock,
    _folder: tempfile::TempDir,
}

/// What a test's server has of its own.
#[derive(Default)]
struct Setup<'a> {
    access: crate::AccessConfig,
    runtime_config: &'a str,
    admission: ::admission::Settings,
    tracing: Option<crate::TraceConfig>,
    seal: Option<Arc<dyn Seal>>,
    uncollected: bool,
}

impl TestServer {
    pub(super) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With other versions than the stable ones.
    pub(super) async fn start_with(runtime_config: &str) -> Self {
        Self::open(tempfile::tempdir().unwrap(), Setup { runtime_config, ..Setup::default() }).await
    }

    /// One that tells a collector of its requests.
    pub(super) async fn with_tracing(tracing: crate::TraceConfig) -> Self {
        let setup = Setup { tracing: Some(tracing), ..Setup::default() };
        Self::open(tempfile::tempdir().unwrap(), setup).await
    }

    /// One whose records are encrypted.
    pub(super) async fn with_seal(seal: Arc<dyn Seal>) -> Self {
        let setup = Setup { seal: Some(seal), ..Setup::default() };
        Self::open(tempfile::tempdir().unwrap(), setup).await
    }

    /// One that has no garbage collector.
    pub(super) async fn uncollected() -> Self {
        let setup = Setup { uncollected: true, ..Setup::default() };
        Self::open(tempfile::tempdir().unwrap(), setup).await
    }

    /// With other rules of who may come in.
    pub(super) async fn with_access(access: crate::AccessConfig) -> Self {
        Self::open(tempfile::tempdir().unwrap(), Setup { access, ..Setup::default() }).await
    }

    /// With other admission plugins.
    pub(super) async fn with_admission(
        access: crate::AccessConfig,
        admission: ::admission::Settings,
    ) -> Self {
        Self::open(tempfile::tempdir().unwrap(), Setup { access, admission, ..Setup::default() }).await
    }

    /// Another server over what this one has stored.
    pub(super) async fn restart(self) -> Self {
        self.api.0.drain.drain().await;
        self.api.store().close().await;
        let Self { api, _folder, .. } = self;
        drop(api);
        Self::open(_folder, Setup::default()).await
    }

    async fn open(folder: tempfile::TempDir, setup: Setup<'_>) -> Self {
        let Setup { access, runtime_config, admission, tracing, seal, uncollected } = setup;
        let options = Options { seal, ..Options::default() };
        let store = Store::open(&folder.path().join("store"), options).unwrap();
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let pki = auth::Pki::open(&folder.path().join("pki"), &clock).unwrap();
        let (private, public) = pki.service_account_key().unwrap();
        let mut static_tokens = StaticTokens::default();
        static_tokens.add("secret", User::authenticated("eve", []));
        let config = Config {
            clock: Arc::new(clock.clone()),
            ids: Arc::new(SeededIds::new(1)),
            tokens: Arc::new(
                TokenIssuer::new("https://test", &private, &public, Arc::new(clock.clone())).unwrap(),
            ),
            static_tokens,
            ca_pem: pki.ca().to_owned(),
            service_cidr: "10.43.0.0/24".parse().unwrap(),
            node_ports: 30000..=30003,
            advertise: ([127, 0, 0, 1].into(), 6443),
            in_flight: 600,
            garbage_collection: !uncollected,
            access,
            admission,
            runtime_config: runtime_config.parse().unwrap(),
            tracing,
            node_client: None,
        };
        let api = ApiServer::start(config, store, Drain::new()).await.unwrap();
        let admin = User::authenticated("admin", [User::MASTERS.to_owned()]);
        Self { api, admin, clock, _folder: folder }
    }

    pub(super) async fn send(&self, request: Request<crate::Body>, user: Option<&User>) -> (u16, Value) {
        let response = self.api.handle(request, user).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (
            code,
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()),
        )
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.call_as(method, path, "application/json", body, Some(&self.admin)).await
    }

    pub(super) async fn call_as(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: Value,
        user: Option<&User>,
    ) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .body(full(bytes))
            .unwrap();
        self.send(request, user).await
    }

    /// The kind and object of the first event of a watch.
    pub(super) async fn first_event(&self, path: &str) -> (String, Value) {
        let request = Request::get(path).body(crate::respond::empty()).unwrap();
        let mut body = self.api.handle(request, Some(&self.admin)).await.into_body();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let event: Value = serde_json::from_slice(frame.split(|b| *b == b'\n').next().unwrap()).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
    }

    /// Waits for a condition that comes true soon.
    pub(super) async fn until<F: Future<Output = bool>>(&self, condition: impl Fn() -> F) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !condition().await {
            assert!(std::time::Instant::now() < deadline, "the condition does not come true");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    pub(super) async fn patch(&self, path: &str, media: &str, body: Value) -> (u16, Value) {
        self.call_as(Method::PATCH, path, media, body, Some(&self.admin)).await
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, body).await
    }
}

pub(super) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
