//! Extension API servers: groups and versions that an APIService says somebody else serves (kubernetes/kubernetes,
//! `kube-aggregator`).
//!
//! `services.rs` reads the APIServices, `forward.rs` takes a request to the server that is responsible for it, over
//! `connections.rs`. `watcher.rs` follows what they depend on and asks each server (`check.rs`) whether it is there and
//! what it serves (`learned.rs`); discovery and OpenAPI show that beside our own. `register.rs` writes the APIServices of
//! what is served here, `authentication.rs` what extension servers need to know to believe us.

mod authentication;
mod check;
mod connections;
mod forward;
mod headers;
mod learned;
mod local;
mod priorities;
mod register;
mod services;
mod stream;
mod trust;
mod watcher;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use auth::KeyPairPem;
use parking_lot::{Mutex, RwLock};
use store::Revision;
use tokio::sync::{Notify, watch};

use crate::metrics::Text;
use crate::state::Inner;

pub(crate) use authentication::publish as publish_authentication;
use connections::{Connections, Trust};
pub(crate) use forward::{description, forward};
pub(crate) use headers::without_hops;
use learned::Learned;
pub(crate) use learned::OpenApiPart;
use local::Local;
pub use local::LocalServer;
pub(crate) use priorities::of as priority_of;
pub(crate) use services::{Extension, Services};

/// Where APIServices are stored.
const TABLE: &str = "apiservices.apiregistration.k8s.io";

/// Whom extension servers take this server for: the cluster's front proxy, whose word on who is asking they believe.
#[derive(Clone, Debug)]
pub struct ProxyIdentity {
    /// The client certificate that they are shown.
    pub pair: KeyPairPem,
    /// The authorities (PEM) that it, or other front proxies' certificates, come from.
    pub authority: String,
    /// The common names of front proxies; none means all of the authorities'.
    pub names: Vec<String>,
}

/// All that is known of extension servers.
pub(crate) struct Aggregation {
    services: RwLock<(Revision, Arc<Services>)>,
    learned: Mutex<HashMap<Box<str>, Arc<Learned>>>,
    connections: Arc<Connections>,
    /// How often a server became unavailable, by its name and why.
    failures: Mutex<BTreeMap<(Box<str>, &'static str), u64>>,
    /// Rings when every server is to be asked again.
    again: Arc<Notify>,
    /// What components of this process serve.
    locals: RwLock<Vec<Local>>,
    /// Counts them.
    extended: watch::Sender<u64>,
}

impl Aggregation {
    pub(crate) fn new(identity: Option<ProxyIdentity>) -> Self {
        Self {
            services: RwLock::new((Revision::MAX, Arc::default())),
            learned: Mutex::default(),
            connections: Arc::new(Connections::new(identity)),
            failures: Mutex::default(),
            again: Arc::default(),
            locals: RwLock::default(),
            extended: watch::Sender::new(0),
        }
    }

    /// Has every extension server asked again now.
    #[cfg(test)]
    pub(crate) fn ask_again(&self) {
        self.again.notify_one();
    }
}

/// Begins to follow what is registered. Nothing here keeps the API from being ready.
pub(crate) fn start(server: &Arc<Inner>) {
    let drain = &server.drain;
    drain.spawn(watcher::follow(Arc::downgrade(server), drain.clone()));
    drain.spawn_until_started(register::keep(Arc::downgrade(server)));
}

impl Inner {
    /// The APIServices as they are now.
    pub(crate) fn api_services(&self) -> Arc<Services> {
        let revision = self.store.last_change(TABLE);
        {
            let known = self.aggregation.services.read();
            if known.0 == revision {
                return known.1.clone();
            }
        }
        let mut known = self.aggregation.services.write();
        let services =
            Arc::new(Services::read(&self.store.snapshot(TABLE), &known.1, &self.aggregation.locals.read()));
        *known = (revision, services.clone());
        services
    }

    /// What an extension server was last heard to serve.
    pub(crate) fn learned(&self, extension: &Extension) -> Option<Arc<Learned>> {
        let learned = self.aggregation.learned.lock();
        learned.get(&extension.name).filter(|l| l.uid == extension.uid).cloned()
    }
}

/// Upstream's numbers on the servers' availability (`kube-aggregator/pkg/controllers/status/metrics`).
pub(crate) fn metrics(server: &Inner, out: &mut Text) {
    let help = "Gauge of APIServices which are marked as unavailable broken down by APIService name.";
    out.family("aggregator_unavailable_apiservice", "gauge", help);
    for extension in server.api_services().extensions() {
        out.sample(&format!("name=\"{}\"", extension.name), f64::from(u8::from(!extension.available)));
    }
    let help =
        "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.";
    out.family("aggregator_unavailable_apiservice_total", "counter", help);
    for ((name, reason), count) in server.aggregation.failures.lock().iter() {
        out.sample(&format!("name=\"{name}\",reason=\"{reason}\""), *count as f64);
    }
}

/// The server that describes a version, if the path is one's and it is served elsewhere.
pub(crate) fn claimed(server: &Inner, parts: &[String]) -> Option<Arc<Extension>> {
    match parts {
        [apis, group, version] if apis == "apis" => server.api_services().extension(group, version).cloned(),
        _ => None,
    }
}

/// TLS settings that believe every server, for those whose certificates cannot name them.
pub(crate) fn unverified() -> Result<Arc<rustls::ClientConfig>, String> {
    static SETTINGS: OnceLock<Result<Arc<rustls::ClientConfig>, String>> = OnceLock::new();
    SETTINGS.get_or_init(|| trust::settings(&Trust::Anything, "", None).map(Arc::new)).clone()
}
