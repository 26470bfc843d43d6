use std::sync::Arc;

use base::{Clock, Drain, Timestamp};
use client::{Controller, Informers, Key, Next, Recorder};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use kube::{Api, Client, Resource};

use crate::autoscaling::AutoscalingSettings;
use crate::certificates::Signing;
use crate::error::Error;
use crate::node::NodeSettings;
use crate::node::ipam::PodRange;
use crate::selected::Selected;
use crate::tuning::Tuning;
use crate::{
    autoscaling, bootstrap_signer, certificates, cronjob, daemonset, deployment, device_taint, disruption,
    endpoints, garbage, job, legacy_tokens, local_provisioner, names, namespace, node, pod_gc, replicaset,
    resource_claim, root_ca, service_account, service_cidr, statefulset, storage_migration, token_cleaner,
    ttl, ttl_after_finished, volume,
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
    /// How autoscalers work.
    pub autoscaling: AutoscalingSettings,
    /// Which of them run.
    pub selected: Selected,
    /// Settings of single controllers.
    pub tuning: Tuning,
}

/// Gives a controller its client.
pub type Identities = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Starts a controller.
type Start = fn(&Context, &Config);

/// The controllers by upstream's names for them, with the service account that each acts as.
pub(crate) const CONTROLLERS: [(&str, &str, Start); 40] = [
    ("serviceaccount-controller", "service-account-controller", |ctx, _| service_account::start(ctx)),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", |ctx, config| {
        root_ca::start(ctx, &config.ca_pem);
    }),
    ("replicaset-controller", "replicaset-controller", |ctx, _| replicaset::start::<ReplicaSet>(ctx)),
    ("replicationcontroller-controller", "replication-controller", |ctx, _| {
        replicaset::start::<ReplicationController>(ctx);
    }),
    ("statefulset-controller", "statefulset-controller", |ctx, _| statefulset::start(ctx)),
    ("daemonset-controller", "daemon-set-controller", |ctx, _| daemonset::start(ctx)),
    ("deployment-controller", "deployment-controller", |ctx, _| deployment::start(ctx)),
    ("disruption-controller", "disruption-controller", |ctx, _| disruption::start(ctx)),
    ("namespace-controller", "namespace-controller", |ctx, _| namespace::start(ctx)),
    (names::SLICES, "endpointslice-controller", |ctx, config| endpoints::start(ctx, config)),
    (names::ENDPOINTS, "endpointslice-controller", |ctx, config| {
        if !config.selected.has(names::SLICES) {
            endpoints::start(ctx, config);
        }
    }),
    ("endpointslice-mirroring-controller", "endpointslicemirroring-controller", |ctx, config| {
        endpoints::start_mirroring(ctx, config.tuning.endpoints);
    }),
    (names::GARBAGE, "generic-garbage-collector", |ctx, _| garbage::start(ctx)),
    (names::NODES, "node-controller", |ctx, config| node::start(ctx, config)),
    (names::EVICTION, "node-controller", |ctx, config| {
        if !config.selected.has(names::NODES) {
            node::start(ctx, config);
        }
    }),
    ("ttl-controller", "ttl-controller", |ctx, _| ttl::start(ctx)),
    ("node-ipam-controller", "node-controller", |ctx, config| {
        if let Some(range) = config.pod_range {
            node::ipam::start(ctx, range);
        }
    }),
    ("job-controller", "job-controller", |ctx, _| job::start(ctx)),
    ("cronjob-controller", "cronjob-controller", |ctx, _| cronjob::start(ctx)),
    ("local-provisioner", "local-provisioner", |ctx, _| local_provisioner::start(ctx)),
    ("ttl-after-finished-controller", "ttl-after-finished-controller", |ctx, _| {
        ttl_after_finished::start(ctx)
    }),
    ("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", |ctx, config| {
        autoscaling::start(ctx, config.autoscaling);
    }),
    ("certificatesigningrequest-approving-controller", "certificate-controller", |ctx, _| {
        certificates::start_approving(ctx);
    }),
    ("certificatesigningrequest-cleaner-controller", "certificate-controller", |ctx, _| {
        certificates::start_cleaning(ctx);
    }),
    ("certificatesigningrequest-signing-controller", "certificate-controller", |ctx, config| {
        if let Some(signing) = &config.signing {
            certificates::start_signing(ctx, signing);
        }
    }),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        |ctx, config| {
            legacy_tokens::start(ctx, config.tuning.unused_tokens);
        },
    ),
    ("bootstrap-signer-controller", "bootstrap-signer", |ctx, _| bootstrap_signer::start(ctx)),
    ("token-cleaner-controller", "token-cleaner", |ctx, _| token_cleaner::start(ctx)),
    ("persistentvolume-binder-controller", "persistent-volume-binder", |ctx, config| {
        volume::start_binder(ctx, config.tuning.volumes);
    }),
    ("persistentvolume-attach-detach-controller", "attachdetach-controller", |ctx, config| {
        volume::start_attach(ctx, config.tuning.volumes.force_detach);
    }),
    ("persistentvolumeclaim-protection-controller", "pvc-protection-controller", |ctx, _| {
        volume::start_claims(ctx);
    }),
    ("persistentvolume-protection-controller", "pv-protection-controller", |ctx, _| {
        volume::start_volumes(ctx)
    }),
    (
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        |ctx, _| {
            volume::start_attributes(ctx);
        },
    ),
    ("ephemeral-volume-controller", "ephemeral-volume-controller", |ctx, _| volume::start_ephemeral(ctx)),
    ("persistentvolume-expander-controller", "expand-controller", |ctx, _| volume::start_expand(ctx)),
    ("pod-garbage-collector-controller", "pod-garbage-collector", |ctx, config| {
        pod_gc::start(ctx, config.terminated_pods);
    }),
    ("resourceclaim-controller", "resource-claim-controller", |ctx, _| resource_claim::start(ctx)),
    ("device-taint-eviction-controller", "device-taint-eviction-controller", |ctx, _| {
        device_taint::start(ctx)
    }),
    ("service-cidr-controller", "service-cidrs-controller", |ctx, _| service_cidr::start(ctx)),
    ("storage-version-migrator-controller", "storage-version-migrator-controller", |ctx, _| {
        storage_migration::start(ctx);
    }),
];

/// Starts the controllers that are selected. They run until the configuration's drain starts, which also waits for them.
pub fn run(config: &Config) {
    let ctx = Context::new(config);
    for (name, account, start) in CONTROLLERS {
        if config.selected.has(name) {
            start(&ctx.acting_as(account).looking_at(config.tuning.concurrency.of(name)), config);
        }
    }
}

/// What each controller holds.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) informers: Informers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: Drain,
    client: Client,
    identities: Option<Identities>,
    /// How many objects it looks at side by side, if that is said.
    workers: Option<usize>,
}

impl Context {
    pub(crate) fn new(config: &Config) -> Self {
        let Config { informers, identities, clock, drain, .. } = config.clone();
        let client = informers.client().clone();
        Self { informers, clock, drain, client, identities, workers: None }
    }

    /// The same for a controller that looks at so many objects side by side, if that is said.
    fn looking_at(self, workers: Option<usize>) -> Self {
        Self { workers, ..self }
    }

    /// The controller with as many looks side by side as is said, or as it has by itself.
    pub(crate) fn sized(&self, controller: Controller) -> Controller {
        match self.workers {
            Some(workers) => controller.workers(workers),
            None => controller,
        }
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
        let (drain, controller) = (self.drain.clone(), self.sized(controller));
        self.drain.spawn(controller.run(drain, move |key| look(state.clone(), key)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use client::k8s_openapi::api::core::v1::ConfigMap;
    use testkit::Cluster;
    use tokio::sync::Barrier;

    use super::*;
    use crate::testing::config;

    /// Looks under way, and the most there were.
    struct Looks {
        now: AtomicUsize,
        most: AtomicUsize,
        done: AtomicUsize,
        pair: Barrier,
    }

    #[tokio::test]
    async fn as_many_objects_are_looked_at_side_by_side_as_is_said() {
        let cluster = Cluster::start().await;
        let ctx = Context::new(&config(&cluster)).looking_at(Some(2));
        let controller = Controller::new("counted-side-by-side").after(&ctx.informers.of::<ConfigMap>());
        (0..6).for_each(|n| controller.queue().add(Key::new("n", &n.to_string())));
        let [now, most, done] = [(); 3].map(|()| AtomicUsize::new(0));
        let looks = Arc::new(Looks { now, most, done, pair: Barrier::new(2) });
        ctx.spawn(controller, looks.clone(), |looks, _| async move {
            let now = looks.now.fetch_add(1, Ordering::SeqCst) + 1;
            looks.most.fetch_max(now, Ordering::SeqCst);
            // Nobody gets past this alone.
            looks.pair.wait().await;
            looks.now.fetch_sub(1, Ordering::SeqCst);
            looks.done.fetch_add(1, Ordering::SeqCst);
            Ok(Next::Done)
        });
        let all = || async { (looks.done.load(Ordering::SeqCst) == 6).then_some(()) };
        cluster.wait_for("all looks", all).await;
        assert_eq!(looks.most.load(Ordering::SeqCst), 2);
    }
}
