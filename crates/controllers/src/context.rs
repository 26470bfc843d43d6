use std::sync::Arc;

use base::{Clock, Drain, Timestamp};
use client::{Controller, Informers, Key, Next, Recorder};
use kube::{Api, Client, Resource};

use crate::error::Error;
use crate::{deployment, endpoints, garbage, namespace, node, pod_gc, replicaset, root_ca, service_account};

/// What the controllers need.
#[derive(Clone)]
pub struct Config {
    /// How they see the cluster, and as whom they act.
    pub informers: Informers,
    /// Wall-clock time, for conditions and ages.
    pub clock: Arc<dyn Clock>,
    /// Ends them.
    pub drain: Drain,
    /// The authority's certificate as PEM; published in every namespace.
    pub ca_pem: String,
}

/// Starts every controller. They run until the configuration's drain starts, which also waits for them.
pub fn run(config: &Config) {
    let ctx = Context::new(config);
    service_account::start(&ctx);
    root_ca::start(&ctx, &config.ca_pem);
    replicaset::start(&ctx);
    deployment::start(&ctx);
    namespace::start(&ctx);
    endpoints::start(&ctx);
    garbage::start(&ctx);
    node::start(&ctx);
    pod_gc::start(&ctx);
}

/// What each controller holds.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) informers: Informers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: Drain,
}

impl Context {
    pub(crate) fn new(config: &Config) -> Self {
        let Config { informers, clock, drain, ca_pem: _ } = config.clone();
        Self { informers, clock, drain }
    }

    pub(crate) fn client(&self) -> Client {
        self.informers.client().clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn recorder(&self, component: &str) -> Recorder {
        Recorder::start(self.client(), component, "", self.clock.clone(), &self.drain)
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client(), namespace)
    }

    /// Runs a controller whose state is shared by all its looks.
    pub(crate) fn spawn<S, Fut>(
        &self,
        controller: Controller,
        state: Arc<S>,
        look: impl Fn(Arc<S>, Key) -> Fut + Send + Sync + 'static,
    ) where
        S: Send + Sync + 'static,
        Fut: Future<Output = Result<Next, Error>> + Send + 'static,
    {
        let drain = self.drain.clone();
        self.drain.spawn(controller.run(drain, move |key| look(state.clone(), key)));
    }
}
