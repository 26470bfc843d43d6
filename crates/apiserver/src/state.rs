use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use admission::{Chain, Objects};
use base::Drain;
use parking_lot::{Mutex, RwLock};
use registry::Registry;
use serde_json::Value;
use store::Store;

use crate::access::{self, Followed};
use crate::account_tokens;
use crate::aggregation::{self, Aggregation};
use crate::audit::Audit;
use crate::authenticate::Identities;
use crate::authorize::{self, Authorization};
use crate::config::Config;
use crate::config_file::{self, ConfigFileError, Reloads};
use crate::crds::{self, Crds};
use crate::encode::Frames;
use crate::fairness::Fairness;
use crate::metrics::Metrics;
use crate::outbound::Remote;
use crate::quotas;
use crate::services::{self, ServiceAllocator};
use crate::trace::Tracer;
use crate::type_checks;
use crate::webhook::Webhooks;

/// An API server that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The objects every cluster has could not be written.
    #[error("cannot write the cluster's first objects: {0}")]
    Bootstrap(types::Status),
    /// The range has no room for the API's own Service.
    #[error("the service address range {0} is too small: it needs at least 8 addresses")]
    ServiceRange(ipnet::Ipv4Net),
    /// The file for audit events cannot be written.
    #[error("cannot open the audit log: {0}")]
    Audit(std::io::Error),
    /// A file says nothing that can be done.
    #[error("{} cannot be used: {source}", path.display())]
    ConfigFile {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: ConfigFileError,
    },
    /// The switches name what there is not, or turn off what must be.
    #[error("the runtime configuration cannot be used: {0}")]
    RuntimeConfig(registry::RuntimeConfigError),
    /// The server that knows of images cannot be asked.
    #[error("the kubeconfig of ImagePolicyWebhook, {}, cannot be used: {why}", path.display())]
    Images {
        /// Its kubeconfig.
        path: std::path::PathBuf,
        /// Why.
        why: String,
    },
    /// The admission plugins that are asked for cannot run.
    #[error("the admission plugins cannot be set up: {0}")]
    Admission(admission::SettingsError),
}

/// The API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Store,
    registry: RwLock<Arc<Registry>>,
    pub(crate) admission: Chain,
    pub(crate) services: ServiceAllocator,
    pub(crate) metrics: Metrics,
    pub(crate) frames: Frames,
    pub(crate) fairness: Fairness,
    pub(crate) drain: Drain,
    pub(crate) ready: AtomicBool,
    pub(crate) crds: Crds,
    pub(crate) webhooks: Webhooks,
    /// Whom to ask about images, and how long to leave it alone after a failure.
    pub(crate) image_policy: Option<(Remote, std::time::Duration)>,
    pub(crate) authorization: Authorization,
    pub(crate) aggregation: Aggregation,
    identities: RwLock<Arc<Identities>>,
    pub(crate) reloads: Reloads,
    /// Nothing is noted without.
    pub(crate) audit: Option<Audit>,
    /// Nothing is traced without.
    pub(crate) tracer: Option<Tracer>,
    /// OpenAPI documents' ETags, by group and version; the documents themselves are made when asked for.
    pub(crate) openapi_tags: Mutex<HashMap<String, String>>,
}

impl ApiServer {
    /// Has `/metrics` tell what other parts of this process count, after what the server counts itself.
    pub fn add_metrics(&self, page: crate::metrics::MetricsPage) {
        self.0.metrics.add(page);
    }

    /// Opens the API over a store and makes sure that the objects every cluster has are there.
    ///
    /// Watches end and new requests are refused once `drain` has started.
    pub async fn start(mut config: Config, store: Store, drain: Drain) -> Result<Self, StartError> {
        let services = ServiceAllocator::new(config.service_cidr, config.node_ports.clone())
            .ok_or(StartError::ServiceRange(config.service_cidr))?;
        let fairness = Fairness::new(config.in_flight);
        let mut followed = Vec::new();
        let authorization = access::authorization(&config.access, &mut followed)?;
        let identities = access::identities(&mut config, &mut followed)?;
        let audit = config.access.audit.take().map(|audit| Audit::open(audit, &config.ids, &drain));
        let audit = audit.transpose().map_err(StartError::Audit)?;
        let registry = Registry::serving(&config.runtime_config).map_err(StartError::RuntimeConfig)?;
        for def in registry.resources() {
            def.strategy.indexed().iter().for_each(|field| store.index(&def.table, field));
        }
        let image_policy = access::image_policy(&config.admission)?;
        let admission = Chain::new(&config.admission).map_err(StartError::Admission)?;
        let tracer =
            config.tracing.as_ref().map(|tracing| Tracer::start(tracing, config.ids.clone(), &drain));
        let aggregation = Aggregation::new(config.access.proxy_identity.take());
        let server = Self(Arc::new(Inner {
            config,
            store,
            registry: RwLock::new(Arc::new(registry)),
            admission,
            services,
            metrics: Metrics::default(),
            frames: Frames::default(),
            fairness,
            drain,
            ready: AtomicBool::new(false),
            crds: Crds::default(),
            webhooks: Webhooks::default(),
            image_policy,
            authorization,
            aggregation,
            identities: RwLock::new(Arc::new(identities)),
            reloads: Reloads::default(),
            audit,
            tracer,
            openapi_tags: Mutex::default(),
        }));
        for Followed { file, what, text, apply } in followed {
            config_file::follow(&server.0, file, what, text, apply);
        }
        crds::start(&server.0).await;
        crate::bootstrap::ensure(&server.0).await.map_err(StartError::Bootstrap)?;
        services::start(&server.0).await;
        authorize::start_aggregation(&server.0).await.map_err(StartError::Bootstrap)?;
        account_tokens::start(&server.0);
        type_checks::start(&server.0);
        quotas::start(&server.0);
        server.0.ready.store(true, Ordering::Release);
        aggregation::start(&server.0);
        Ok(server)
    }

    /// The store under the API.
    pub fn store(&self) -> &Store {
        &self.0.store
    }
}

impl Inner {
    /// Identity providers, and who may stay unknown, as it is now.
    pub(crate) fn identities(&self) -> Arc<Identities> {
        self.identities.read().clone()
    }

    /// Takes over other ones.
    pub(crate) fn change_identities(&self, identities: Identities) {
        *self.identities.write() = Arc::new(identities);
    }

    /// What is served now. A request takes it once, and keeps to it until it is answered.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.read().clone()
    }

    /// Changes what is served.
    pub(crate) fn change_registry(&self, change: impl FnOnce(&Registry) -> Registry) {
        let mut registry = self.registry.write();
        let next = change(&registry);
        *registry = Arc::new(next);
    }
}

impl Objects for Inner {
    fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Value> {
        let record = self.store.get(table, &crate::object::key(namespace, name))?;
        serde_json::from_slice(&record.value).ok()
    }

    fn is_going(&self, table: &str, namespace: &str, name: &str) -> Option<bool> {
        // Every creation asks this of its namespace, and hardly any goes: the field is looked for before all is read.
        const FIELD: &[u8] = b"\"deletionTimestamp\"";
        let record = self.store.get(table, &crate::object::key(namespace, name))?;
        if !record.value.windows(FIELD.len()).any(|window| window == FIELD) {
            return Some(false);
        }
        let object: Value = serde_json::from_slice(&record.value).ok()?;
        Some(!object["metadata"]["deletionTimestamp"].is_null())
    }

    fn list(&self, table: &str) -> Vec<Value> {
        self.store
            .snapshot(table)
            .records
            .values()
            .filter_map(|r| serde_json::from_slice(&r.value).ok())
            .collect()
    }
}
