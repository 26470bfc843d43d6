use std::time::Duration;

use registry::Registry;
use serde_json::Value;
use types::Status;

use crate::cluster::{Cluster, settled};
use crate::images::ImagePolicy;
use crate::matching::{Families, World};
use crate::plugin::{Plugin, Write};
use crate::plugins;
use crate::policy::{self, Policies};
use crate::quota::Quotas;
use crate::request::{Notes, Operation, Request};
use crate::settings::{Settings, SettingsError};
use crate::webhook::{self, Reinvocation, Webhooks};

/// Everything that a write has to pass, in order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    mutating_policies: Option<Policies>,
    mutating: Option<Webhooks>,
    validating_policies: Option<Policies>,
    validating: Option<Webhooks>,
    images: Option<ImagePolicy>,
    quotas: Option<Quotas>,
    /// Whether namespaces come to be when they are first needed.
    provisions: bool,
    families: Families,
}

impl Chain {
    /// The plugins that settings ask for.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let running = settings.running()?;
        let on = |name: &str| running.contains(&name);
        Ok(Self {
            plugins: running.iter().filter_map(|name| plugins::named(name, settings)).collect(),
            mutating_policies: on("MutatingAdmissionPolicy").then(Policies::mutating),
            mutating: on("MutatingAdmissionWebhook").then(Webhooks::mutating),
            validating_policies: on("ValidatingAdmissionPolicy").then(Policies::validating),
            validating: on("ValidatingAdmissionWebhook").then(Webhooks::validating),
            images: settings.image_policy()?.map(ImagePolicy::new),
            quotas: on("ResourceQuota").then(Quotas::default),
            provisions: on("NamespaceAutoProvision"),
            families: Families::default(),
        })
    }

    /// The names of the plugins that decide in memory, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|plugin| plugin.name())
    }

    /// Writes into the quotas of a namespace what is used by now. Gives when to count again, if that is not all.
    pub async fn recount(
        &self,
        registry: &Registry,
        namespace: &str,
        cluster: &dyn Cluster,
    ) -> Result<Option<Duration>, Status> {
        match &self.quotas {
            Some(quotas) => quotas.recount(registry, namespace, cluster).await,
            None => Ok(None),
        }
    }

    async fn admit_plugins(
        &self,
        request: &Request<'_>,
        object: Option<&mut Value>,
        old: Option<&Value>,
        cluster: &dyn Cluster,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        for plugin in &self.plugins {
            let (outcome, said) = settled(cluster, || {
                let mut said = Notes::default();
                let draft = Write { request, object: &mut *object, old, cluster, notes: &mut said };
                (plugin.admit(draft), said)
            })
            .await;
            notes.extend(said);
            outcome?;
        }
        Ok(())
    }

    /// Lets everything change the object, or refuse it. Tells whether a webhook or a policy changed it, so that what
    /// the server itself sets has to be set again.
    pub async fn admit(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
        cluster: &dyn Cluster,
        notes: &mut Notes,
    ) -> Result<bool, Status> {
        if self.provisions && request.operation == Operation::Create && !request.namespace.is_empty() {
            cluster.make_namespace(request.namespace).await?;
        }
        self.admit_plugins(request, object.as_deref_mut(), old, cluster, notes).await?;
        if let (Some(images), Some(object)) = (&self.images, object.as_deref_mut()) {
            Box::pin(images.admit(request, object, cluster)).await;
        }
        let policies = self.mutating_policies.as_ref().and_then(|p| p.current(request, cluster));
        let hooks = self.mutating.as_ref().and_then(|w| w.current(request, cluster));
        if policies.is_none() && hooks.is_none() {
            return Ok(false);
        }
        Box::pin(async move {
            let world = World::new(cluster, &self.families);
            let (mut of_policies, mut of_hooks) = (Reinvocation::default(), Reinvocation::default());
            for round in 0..2 {
                let mut changed = false;
                if let Some(policies) = &policies {
                    let object = object.as_deref_mut();
                    let state = &mut of_policies;
                    changed |= policy::mutate(policies, request, object, old, &world, state, round).await?;
                }
                if let Some(hooks) = &hooks {
                    let object = object.as_deref_mut();
                    let state = &mut of_hooks;
                    state.round = round;
                    changed |= webhook::mutate(hooks, request, object, old, &world, state, notes).await?;
                }
                if round > 0 || !changed {
                    return Ok(round > 0 || changed);
                }
                self.admit_plugins(request, object.as_deref_mut(), old, cluster, notes).await?;
            }
            Ok(true)
        })
        .await
    }

    /// Asks everything about the final object.
    pub async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        cluster: &dyn Cluster,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        for plugin in &self.plugins {
            let (outcome, said) = settled(cluster, || {
                let mut said = Notes::default();
                let write = Write { request, object, old, cluster, notes: &mut said };
                (plugin.validate(write), said)
            })
            .await;
            notes.extend(said);
            outcome?;
        }
        if let (Some(images), Some(object)) = (&self.images, object) {
            Box::pin(images.validate(request, object, cluster, notes)).await?;
        }
        if let Some(policies) = self.validating_policies.as_ref().and_then(|p| p.current(request, cluster)) {
            let world = World::new(cluster, &self.families);
            Box::pin(policy::validate(&policies, request, object, old, &world, notes)).await?;
        }
        if let Some(hooks) = self.validating.as_ref().and_then(|w| w.current(request, cluster)) {
            let world = World::new(cluster, &self.families);
            Box::pin(webhook::validate(&hooks, request, object, old, &world, notes)).await?;
        }
        match &self.quotas {
            Some(quotas) => quotas.charge(request, object, old, cluster).await,
            None => Ok(()),
        }
    }
}
