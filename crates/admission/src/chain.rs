use serde_json::Value;
use types::Status;

use crate::cluster::Cluster;
use crate::matching::{Families, World};
use crate::plugins;
use crate::request::{Notes, Request};
use crate::webhook::{self, Reinvocation, Webhooks};

/// One rule of the cluster that needs nothing but memory.
pub trait Plugin: Send + Sync {
    /// Upstream's name for it.
    fn name(&self) -> &'static str;

    /// Changes the object before it is validated, or refuses it. It may be asked twice for one request.
    fn admit(
        &self,
        _request: &Request<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
        _cluster: &dyn Cluster,
        _notes: &mut Notes,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Has the last word on a write whose object is final; a delete has no object.
    fn validate(
        &self,
        _request: &Request<'_>,
        _object: Option<&Value>,
        _old: Option<&Value>,
        _cluster: &dyn Cluster,
        _notes: &mut Notes,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// Everything that a write has to pass, in order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    mutating: Option<Webhooks>,
    validating: Option<Webhooks>,
    families: Families,
}

impl Chain {
    /// The plugins that are on by default.
    pub fn default_plugins() -> Self {
        Self {
            plugins: plugins::defaults(),
            mutating: Some(Webhooks::mutating()),
            validating: Some(Webhooks::validating()),
            families: Families::default(),
        }
    }

    fn admit_plugins(
        &self,
        request: &Request<'_>,
        object: Option<&mut Value>,
        old: Option<&Value>,
        cluster: &dyn Cluster,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        self.plugins.iter().try_for_each(|plugin| plugin.admit(request, object, old, cluster, notes))
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
        self.admit_plugins(request, object.as_deref_mut(), old, cluster, notes)?;
        let hooks = self.mutating.as_ref().and_then(|w| w.current(request, cluster));
        let Some(hooks) = hooks else { return Ok(false) };
        Box::pin(async move {
            let world = World::new(cluster, &self.families);
            let mut state = Reinvocation::default();
            let object = &mut object;
            let changed =
                webhook::mutate(&hooks, request, object.as_deref_mut(), old, &world, &mut state, 0, notes).await?;
            if changed {
                self.admit_plugins(request, object.as_deref_mut(), old, cluster, notes)?;
                webhook::mutate(&hooks, request, object.as_deref_mut(), old, &world, &mut state, 1, notes).await?;
            }
            Ok(changed)
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
            plugin.validate(request, object, old, cluster, notes)?;
        }
        if let Some(hooks) = self.validating.as_ref().and_then(|w| w.current(request, cluster)) {
            let world = World::new(cluster, &self.families);
            Box::pin(webhook::validate(&hooks, request, object, old, &world, notes)).await?;
        }
        Ok(())
    }
}
