use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, BoxError, Config};
use auth::{StaticTokens, TokenIssuer, User};
use base::{Clock, Drain, RandomIds, SystemClock};
use client::{Informers, Transport};
use http_body_util::BodyExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use store::{Options, Store};
use tower::service_fn;

/// How long a test waits for what should come at once. Long, because test machines are slow and shared.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for a change before looking again nevertheless.
const LAG: Duration = Duration::from_millis(50);

/// An API server with an empty cluster.
pub struct Cluster {
    /// The server.
    pub api: ApiServer,
    /// A client that may do everything.
    pub client: Client,
    /// That client's informers.
    pub informers: Informers,
    /// Ends everything that the test has started.
    pub drain: Drain,
    /// The wall clock of the server.
    pub clock: Arc<dyn Clock>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// A cluster on the machine's clock.
    pub async fn start() -> Self {
        Self::start_at(Arc::new(SystemClock)).await
    }

    /// A cluster that serves what is off by default, too: `group/version=true`.
    pub async fn start_serving(switches: &str) -> Self {
        Self::start_with(Arc::new(SystemClock), switches).await
    }

    /// A cluster on a clock of the test's.
    pub async fn start_at(clock: Arc<dyn Clock>) -> Self {
        Self::start_with(clock, "").await
    }

    /// A cluster on a clock of the test's that serves what is off by default, too.
    pub async fn start_with(clock: Arc<dyn Clock>, switches: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path(), Options::default()).expect("an empty store");
        let key = rcgen::KeyPair::generate().expect("a key");
        let (private, public) = (key.serialize_pem(), key.public_key_pem());
        let tokens = TokenIssuer::new("https://kubernetes.default.svc", &private, &public, clock.clone());
        let config = Config {
            clock: clock.clone(),
            ids: Arc::new(RandomIds),
            tokens: Arc::new(tokens.expect("a fresh key signs")),
            static_tokens: StaticTokens::default(),
            ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            service_cidr: "10.96.0.0/16".parse().expect("a range"),
            node_ports: 30000..=32767,
            advertise: ([127, 0, 0, 1].into(), 6443),
            in_flight: 600,
            garbage_collection: true,
            access: apiserver::AccessConfig::default(),
            admission: Default::default(),
            runtime_config: switches.parse().expect("switches of API versions"),
            tracing: None,
            node_client: None,
        };
        let drain = Drain::new();
        let api = ApiServer::start(config, store, drain.clone()).await.expect("an API server");
        let masters = User::authenticated("test-admin", [User::MASTERS.to_owned()]);
        let client = client_as(&api, masters);
        let informers = Informers::new(client.clone(), drain.clone());
        Self { api, client, informers, drain, clock, _folder: folder }
    }

    /// A client that speaks for somebody.
    pub fn client_as(&self, user: User) -> Client {
        client_as(&self.api, user)
    }

    /// A client that speaks for somebody of this name in these groups.
    pub fn client_of(&self, name: &str, groups: impl IntoIterator<Item = String>) -> Client {
        self.client_as(User::authenticated(name, groups))
    }

    /// Gives clients that speak for the service accounts of `kube-system`, as whom controllers act.
    pub fn accounts(&self) -> impl Fn(&str) -> Client + Send + Sync + use<> {
        let api = self.api.clone();
        move |name| {
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            let user = format!("system:serviceaccount:kube-system:{name}");
            client_as(&api, User::authenticated(user, groups.map(str::to_owned)))
        }
    }

    /// The objects of a kind in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The objects of a kind, wherever they are.
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Makes an object in a namespace.
    pub async fn create<K>(&self, namespace: &str, object: &K) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let created = self.api(namespace).create(&PostParams::default(), object).await;
        created.unwrap_or_else(|error| panic!("cannot create {object:?}: {error}"))
    }

    /// Makes an object of the whole cluster.
    pub async fn create_global<K>(&self, object: &K) -> K
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let created = self.all().create(&PostParams::default(), object).await;
        created.unwrap_or_else(|error| panic!("cannot create {object:?}: {error}"))
    }

    /// Makes a node that takes pods. A new one is tainted until the node controller has seen that it is ready; here
    /// nobody waits for one.
    pub async fn create_node(&self, node: &Node) -> Node {
        self.create_global(node).await;
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let ready = self.all::<Node>().patch(name, &PatchParams::default(), &patch).await;
        ready.unwrap_or_else(|error| panic!("cannot make {name} ready: {error}"))
    }

    /// Asks after each change in the cluster whether something has come about, until it has.
    ///
    /// It panics, and says what was waited for, when that takes too long.
    pub async fn wait_for<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = self.api.store().revision();
            if let Some(found) = look().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
            // What is looked at may follow the store a little later, as caches do.
            let change = self.api.store().wait_for(seen + 1);
            let _ = tokio::time::timeout(LAG, change).await;
        }
    }

    /// Waits until the object of this name is as wished.
    pub async fn wait_until<K>(&self, namespace: &str, name: &str, what: &str, wish: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = self.api(namespace);
        self.wait_for(&format!("{namespace}/{name}: {what}"), || async {
            api.get_opt(name).await.expect("a readable object").filter(|object| wish(object))
        })
        .await
    }

    /// Waits until no object of this name is there.
    pub async fn wait_gone<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = self.api(namespace);
        self.wait_for(&format!("{namespace}/{name} to go"), || async {
            api.get_opt(name).await.expect("a readable answer").is_none().then_some(())
        })
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.drain.start();
    }
}

/// Requests go straight to the server, as this user's.
fn client_as(api: &ApiServer, user: User) -> Client {
    let (api, user) = (api.clone(), Arc::new(user));
    let service = service_fn(move |request: http::Request<kube::client::Body>| {
        let (api, user) = (api.clone(), user.clone());
        let request = request.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
        async move { Ok::<_, BoxError>(api.handle(request, Some(&user)).await) }
    });
    Transport::service(service).client()
}
