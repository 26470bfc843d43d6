use std::sync::Arc;

use base::{Clock, Drain, Timestamp};
use client::{Controller, Informers, Key, Next, Recorder};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use kube::{Api, Client, Resource};

use crate::certificates::Signing;
use crate::error::Error;
use crate::node::NodeSettings;
use crate::node::ipam::PodRange;
use crate::{
    autoscaling, certificates, cronjob, daemonset, deployment, device_taint, disruption, endpoints, garbage,
    job, legacy_tokens, local_provisioner, namespace, node, pod_gc, replicaset, resource_claim, root_ca,
    service_account, service_cidr, statefulset, storage_migration, token_cleaner, ttl_after_finished, volume,
};

/// What the controllers need.
#[derive(Clone)]
pub struct Config {
    /// How they see the cluster.
    pub informers: Informers,
    /// As whom each acts, by its name (`deployment-controller`); without, as whom they see.
    pub identities: Option<Identities>,
    /// Wall-clock time, for conditions and ages.
    pub clock: Arc<dyn Clock>,
    /// Ends them.
    pub drain: Drain,
    /// The authority's certificate as PEM; published in every namespace.
    pub ca_pem: String,
    /// What is made of nodes that fall silent.
    pub nodes: NodeSettings,
    /// How many pods that have ended are kept in all; 0 keeps them for ever.
    pub terminated_pods: usize,
    /// Where nodes that come without addresses for their pods get them from; without, they get none.
    pub pod_range: Option<PodRange>,
    /// Who signs certificates; without, nobody does.
    pub signing: Option<Signing>,
}

/// Gives a controller its client.
pub type Identities = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Starts every controller. They run until the configuration's drain starts, which also waits for them.
pub fn run(config: &Config) {
    let ctx = Context::new(config);
    service_account::start(&ctx.acting_as("service-account-controller"));
    root_ca::start(&ctx.acting_as("root-ca-cert-publisher"), &config.ca_pem);
    replicaset::start::<ReplicaSet>(&ctx.acting_as("replicaset-controller"));
    replicaset::start::<ReplicationController>(&ctx.acting_as("replication-controller"));
    statefulset::start(&ctx.acting_as("statefulset-controller"));
    daemonset::start(&ctx.acting_as("daemon-set-controller"));
    deployment::start(&ctx.acting_as("deployment-controller"));
    disruption::start(&ctx.acting_as("disruption-controller"));
    namespace::start(&ctx.acting_as("namespace-controller"));
    endpoints::start(&ctx);
    garbage::start(&ctx.acting_as("generic-garbage-collector"));
    node::start(&ctx.acting_as("node-controller"), &config.nodes);
    if let Some(range) = config.pod_range {
        node::ipam::start(&ctx.acting_as("node-controller"), range);
    }
    job::start(&ctx.acting_as("job-controller"));
    cronjob::start(&ctx.acting_as("cronjob-controller"));
    local_provisioner::start(&ctx.acting_as("local-provisioner"));
    ttl_after_finished::start(&ctx.acting_as("ttl-after-finished-controller"));
    autoscaling::start(&ctx.acting_as("horizontal-pod-autoscaler"));
    certificates::start(&ctx.acting_as("certificate-controller"), config.signing.as_ref());
    legacy_tokens::start(&ctx.acting_as("legacy-service-account-token-cleaner"));
    token_cleaner::start(&ctx.acting_as("token-cleaner"));
    volume::start_binder(&ctx.acting_as("persistent-volume-binder"));
    volume::start_claims(&ctx.acting_as("pvc-protection-controller"));
    volume::start_volumes(&ctx.acting_as("pv-protection-controller"));
    volume::start_attributes(&ctx.acting_as("volumeattributesclass-protection-controller"));
    volume::start_ephemeral(&ctx.acting_as("ephemeral-volume-controller"));
    volume::start_expand(&ctx.acting_as("expand-controller"));
    pod_gc::start(&ctx.acting_as("pod-garbage-collector"), config.terminated_pods);
    resource_claim::start(&ctx.acting_as("resource-claim-controller"));
    device_taint::start(&ctx.acting_as("device-taint-eviction-controller"));
    service_cidr::start(&ctx.acting_as("service-cidrs-controller"));
    storage_migration::start(&ctx.acting_as("storage-version-migrator-controller"));
}

/// What each controller holds.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) informers: Informers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: Drain,
    client: Client,
    identities: Option<Identities>,
}

impl Context {
    pub(crate) fn new(config: &Config) -> Self {
        let Config { informers, identities, clock, drain, .. } = config.clone();
        let client = informers.client().clone();
        Self { informers, clock, drain, client, identities }
    }

    /// The same for a controller with an identity of its own. Informers stay shared.
    pub(crate) fn acting_as(&self, name: &str) -> Self {
        let client = self.identities.as_ref().map_or_else(|| self.client.clone(), |of| of(name));
        Self { client, ..self.clone() }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
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
