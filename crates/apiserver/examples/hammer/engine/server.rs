use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use apiserver::{AccessConfig, ApiServer, AuditConfig, AuditLog, AuditPolicy, Body, Config};
use auth::{StaticTokens, TokenIssuer, User};
use base::{Drain, ManualClock, SeededIds};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use store::{Expect, Op, Options, Record, Store, Template};

use super::corpus;

/// The server under the hammer.
pub(crate) struct Target {
    pub(crate) api: ApiServer,
    pub(crate) admin: User,
    /// A service account's token, and what it may do: `edit` in the namespace `default`.
    pub(crate) token: String,
    /// What there was at the start.
    base: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Record>>>,
    _folder: tempfile::TempDir,
}

pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Target {
    pub(crate) async fn start(parent: Option<&Path>) -> Self {
        let folder = match parent {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        let folder = folder.expect("a folder");
        let store = Store::open(&folder.path().join("store"), Options::default()).expect("a store");
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().expect("a time"));
        let pki = auth::Pki::open(&folder.path().join("pki"), &clock).expect("certificates");
        let (private, public) = pki.service_account_key().expect("a key");
        let tokens =
            TokenIssuer::new("https://test", &private, &public, Arc::new(clock.clone())).expect("an issuer");
        let mut static_tokens = StaticTokens::default();
        static_tokens.add("secret", User::authenticated("eve", []));
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*"]},
            {"level": "RequestResponse", "resources": [{"group": "", "resources": ["configmaps", "pods"]},
                {"group": "hammer.example.com"}]},
            {"level": "Metadata"}]});
        let log =
            AuditLog { max_bytes: 4 << 20, max_backups: 1, ..AuditLog::new(folder.path().join("audit.log")) };
        let audit = AuditConfig {
            policy: AuditPolicy::read(&policy).expect("a policy"),
            log: Some(log),
            webhook: None,
        };
        let config = Config {
            clock: Arc::new(clock),
            ids: Arc::new(SeededIds::new(1)),
            tokens: Arc::new(tokens),
            static_tokens,
            ca_pem: pki.ca().to_owned(),
            service_cidr: "10.43.0.0/20".parse().expect("a range"),
            node_ports: 30000..=32767,
            advertise: ([127, 0, 0, 1].into(), 6443),
            in_flight: 600,
            garbage_collection: true,
            access: AccessConfig { audit: Some(audit), ..AccessConfig::default() },
            admission: Default::default(),
            runtime_config: "api/all=true".parse().expect("a configuration"),
            tracing: None,
            node_client: None,
        };
        let api = ApiServer::start(config, store, Drain::new()).await.expect("a server");
        let admin = User::authenticated("admin", [User::MASTERS.to_owned()]);
        let mut target = Self { api, admin, token: String::new(), base: HashMap::new(), _folder: folder };
        target.furnish().await;
        target
    }

    /// What there is to hit besides the objects of the sessions.
    async fn furnish(&mut self) {
        let core = "/api/v1/namespaces/default";
        for name in ["default", "web"] {
            self.must(Method::POST, &format!("{core}/serviceaccounts"), json!({"metadata": {"name": name}}))
                .await;
        }
        let binding = json!({"metadata": {"name": "web"}, "roleRef": {"kind": "ClusterRole", "name": "edit",
            "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "default"}]});
        let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        self.must(Method::POST, rbac, binding).await;
        for (path, object) in corpus::furniture() {
            self.must(Method::POST, path, object).await;
        }
        let token = format!("{core}/serviceaccounts/web/token");
        let token = self.must(Method::POST, &token, json!({"spec": {"expirationSeconds": 86400}})).await;
        self.token = token["status"]["token"].as_str().unwrap_or_default().to_owned();
        let store = self.api.store();
        for table in store.tables() {
            let records = store.snapshot(&table).records;
            let records = records.iter().map(|(key, record)| (key.clone(), record.clone()));
            self.base.insert(table, records.collect());
        }
    }

    async fn must(&self, method: Method, path: &str, object: Value) -> Value {
        let (code, answer) = self.call(method, path, object).await;
        assert!(code < 300, "{path}: {answer}");
        answer
    }

    /// A request as the cluster's master.
    pub(crate) async fn call(&self, method: Method, path: &str, object: Value) -> (u16, Value) {
        let bytes = if object.is_null() { Vec::new() } else { object.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(body(bytes)).expect("a request");
        let response = self.api.handle(request, Some(&self.admin)).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Puts the store back to what it held at the start.
    pub(crate) async fn clear(&self) {
        // Addresses and ports are given back by a delete through the API only.
        let services = self.api.store().snapshot("services");
        for table in self.api.store().tables().into_iter().filter(|table| &**table != "services") {
            self.restore(&table).await;
        }
        for key in services.records.keys().filter(|key| !self.is_base("services", key)) {
            let (namespace, name) = key.split_once('/').unwrap_or(("", key));
            let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
            let patch = json!({"metadata": {"finalizers": null}});
            let request = Request::patch(&path)
                .header("content-type", "application/merge-patch+json")
                .body(body(patch.to_string()));
            if let Ok(request) = request {
                self.api.handle(request, Some(&self.admin)).await;
            }
            self.call(Method::DELETE, &path, Value::Null).await;
        }
        self.restore("services").await;
        let tables: Vec<Arc<str>> = self.base.keys().cloned().collect();
        for table in tables {
            self.restore(&table).await;
        }
        // The histories of a hundred tables have bounds of their own, but take millions of requests to reach them; what
        // grows without them is a leak.
        let _ = self.api.store().compact(self.api.store().revision()).await;
    }

    fn is_base(&self, table: &str, key: &str) -> bool {
        self.base.get(table).is_some_and(|records| records.contains_key(key))
    }

    async fn restore(&self, table: &str) {
        let (store, none) = (self.api.store(), HashMap::new());
        let (now, base) = (store.snapshot(table).records, self.base.get(table).unwrap_or(&none));
        let table: Arc<str> = table.into();
        for key in now.keys().filter(|key| !base.contains_key(*key)) {
            let op = Op::Delete { table: table.clone(), key: key.clone(), value: None, expect: Expect::Any };
            // Somebody else may have been quicker.
            let _ = store.commit(op.into()).await;
        }
        for (key, record) in base {
            if now.get(key).is_some_and(|there| unversioned(there) == unversioned(record)) {
                continue;
            }
            let Template { bytes, at } = template(record);
            let op = Op::Put {
                table: table.clone(),
                key: key.clone(),
                value: Template { bytes, at },
                terms: record.terms.clone(),
                expect: Expect::Any,
            };
            store.commit(op.into()).await.expect("the object as it was");
        }
    }

    /// What the server thinks is going on, though nothing is.
    pub(crate) async fn under_way(&self) -> Vec<String> {
        let request = Request::get("/metrics").body(body("")).expect("a request");
        let response = self.api.handle(request, Some(&self.admin)).await;
        let bytes = response.into_body().collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let gauges = ["apiserver_longrunning_requests", "apiserver_flowcontrol_current_executing_requests"];
        let busy = text.lines().filter(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            gauges.iter().any(|gauge| line.starts_with(gauge)) && value.parse::<f64>().is_ok_and(|n| n > 0.0)
        });
        busy.filter(|line| !line.contains("/metrics")).map(str::to_owned).collect()
    }
}

const OPENING: &[u8] = b"\"metadata\":{\"resourceVersion\":\"";

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A stored object with a hole for its revision again.
fn template(record: &Record) -> Template {
    let mut bytes = record.value.to_vec();
    let at = find(&bytes, OPENING).expect("metadata begins with the revision") + OPENING.len();
    let end = at + bytes[at..].iter().position(|b| *b == b'"').expect("the text ends");
    bytes.drain(at..end);
    Template { bytes, at }
}

fn unversioned(record: &Record) -> Vec<u8> {
    template(record).bytes
}
