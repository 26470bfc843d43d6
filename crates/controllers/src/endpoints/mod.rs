//! The addresses behind each Service: EndpointSlices, and Endpoints for those who still read them
//! (kubernetes/kubernetes, `pkg/controller/endpointslice`, `staging/src/k8s.io/endpointslice`,
//! `pkg/controller/endpoint`).

mod addresses;
mod batch;
mod fresh;
mod legacy;
mod mirroring;
mod slices;

use std::sync::Arc;
use std::time::Duration;

use client::{Change, Controller, Index, Informer, Key, Next, PodView, Recorder, WorkQueue, is_deleting};
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams};
use types::{LabelSelector, Requirement};

use crate::common::claim::selects;
use crate::context::{Config, Context};
use crate::error::{Attempt, Error};
use crate::names;
use crate::tuning::EndpointSettings;

use addresses::{Backend, backends};
use batch::Batch;
use fresh::FreshSlices;

pub(crate) use mirroring::start as start_mirroring;

/// The Service a slice belongs to, and who keeps the slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

struct State {
    ctx: Context,
    /// The older form of the same is upstream's other controller's, which has rights of its own.
    as_endpoints: Context,
    services: Informer<Service>,
    pods: Informer<PodView>,
    nodes: Informer<Node>,
    endpoints: Informer<Endpoints>,
    slices_of: Index<EndpointSlice>,
    fresh: FreshSlices,
    settings: EndpointSettings,
    /// Whether slices are kept, and whether Endpoints are: each can be left to somebody else.
    keeps: (bool, bool),
    batch: Batch,
    recorder: Recorder,
    endpoints_recorder: Recorder,
}

/// Keeps of both forms what is selected.
pub(crate) fn start(ctx: &Context, config: &Config) {
    let settings = config.tuning.endpoints;
    let keeps = (config.selected.has(names::SLICES), config.selected.has(names::ENDPOINTS));
    // A look writes both forms, but Endpoints may have to wait longer.
    let gathered = if keeps.0 { settings.slices_batch } else { Duration::ZERO };
    let informers = &ctx.informers;
    let (services, pods, nodes) =
        (informers.of::<Service>(), informers.of::<PodView>(), informers.of::<Node>());
    let (slices, endpoints) = (informers.of::<EndpointSlice>(), informers.of::<Endpoints>());
    let slices_of =
        slices.index("service", |slice: &EndpointSlice| slice_of(slice, MANAGER).map(|key| key.to_string()));
    let all = services.clone();
    let controller = Controller::new("endpointslice")
        .workers(8)
        .watches(&services, |service: &Service| [Key::of(service)])
        .watches(&slices, |slice: &EndpointSlice| slice_of(slice, MANAGER))
        .watches(&endpoints, |endpoints: &Endpoints| [Key::of(endpoints)])
        .watches_changes(&pods, move |change, queue| pod_changed(change, queue, &all, gathered))
        .after(&nodes);
    let recorder = ctx.recorder("endpoint-slice-controller");
    let state = State {
        ctx: ctx.clone(),
        as_endpoints: ctx.acting_as("endpoint-controller"),
        services,
        pods,
        nodes,
        endpoints,
        slices_of,
        fresh: FreshSlices::default(),
        settings,
        keeps,
        batch: Batch::new(settings.endpoints_batch),
        recorder,
        endpoints_recorder: ctx.acting_as("endpoint-controller").recorder("endpoint-controller"),
    };
    ctx.spawn(controller, Arc::new(state), look);
}

/// The Service of a slice that this manager keeps.
fn slice_of(slice: &EndpointSlice, manager: &str) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(MANAGED_BY).filter(|keeper| *keeper == manager)?;
    Some(Key::new(slice.metadata.namespace.as_deref()?, labels.get(SERVICE_NAME)?))
}

/// A Service's selector; without one its endpoints are somebody else's affair.
fn selector(service: &Service) -> Option<LabelSelector> {
    let map = service.spec.as_ref()?.selector.as_ref().filter(|map| !map.is_empty())?;
    let requirements = map.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()]));
    Some(LabelSelector::of(requirements.collect()))
}

fn pod_changed(
    change: &Change<PodView>,
    queue: &WorkQueue<Key>,
    services: &Informer<Service>,
    gathered: Duration,
) {
    let pod = change.object();
    let old = match change {
        Change::Updated { old, new } if !addresses::differ(old, new) => return,
        Change::Updated { old, .. } => Some(old),
        _ => None,
    };
    for service in services.store().list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        let Some(selector) = selector(&service) else { continue };
        if selects(&selector, &**pod) || old.is_some_and(|old| selects(&selector, &**old)) {
            queue.add_after(Key::of(&*service), gathered);
        }
    }
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(service) = state.services.get(&key).filter(|s| !is_deleting(&s.metadata)) else {
        state.fresh.forget(&key);
        state.batch.forget(&key);
        if state.keeps.0 {
            crate::metrics::slices_of(key.as_str(), None);
            crate::metrics::traffic_distribution(key.as_str(), None);
        }
        return state.remove(&key).await.map(|()| Next::Done);
    };
    let Some(selector) = selector(&service) else { return Ok(Next::Done) };
    let Some(spec) = &service.spec else { return Ok(Next::Done) };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(Next::Done);
    }
    if state.keeps.0 && !state.fresh.are_shown(&key, &state.slices_of) {
        crate::metrics::slices_synced("stale");
        // The slice that is missing will wake us.
        return Ok(Next::After(fresh::PATIENCE));
    }
    let pods = state.pods.store().list_in(key.namespace());
    let pods: Vec<Arc<PodView>> = pods.into_iter().filter(|pod| selects(&selector, &**pod)).collect();
    let zone = |node: &str| -> Option<String> {
        let node = state.nodes.store().by_name("", node)?;
        node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
    };
    let found = backends(&service, &pods, zone);
    if state.keeps.0 {
        let outcome = state.write_slices(&service, &found).await;
        crate::metrics::slices_synced(if outcome.is_ok() { "success" } else { "error" });
        if let Err(error) = &outcome {
            let why = format!("Error updating Endpoint Slices for Service {key}: {error}");
            state.recorder.warning(&*service, "FailedToUpdateEndpointSlices", why);
        }
        outcome?;
    }
    if state.keeps.1 { state.write_endpoints(&service, &found).await } else { Ok(Next::Done) }
}

/// The reference by which a Service owns its slices.
fn owner(service: &Service) -> OwnerReference {
    crate::common::claim::owner_reference(service)
}

impl State {
    async fn write_slices(&self, service: &Service, found: &[Backend]) -> Result<(), Error> {
        let key = Key::of(service);
        let existing = self.slices_of.get(key.as_str());
        let most = self.settings.most_in_slice;
        let plan = slices::plan(service, found, &existing, most);
        slices::count(service, &plan, &existing, most);
        let api = self.ctx.api::<EndpointSlice>(key.namespace());
        fresh::carry_out(plan, &api, &key, &self.fresh, crate::metrics::Keeper::Slices).await
    }

    /// Writes Endpoints that say something else by now, once their time has come.
    async fn write_endpoints(&self, service: &Service, found: &[Backend]) -> Result<Next, Error> {
        let key = Key::of(service);
        let wanted = legacy::endpoints(service, found);
        let api = self.as_endpoints.api::<Endpoints>(key.namespace());
        let there = self.endpoints.get(&key);
        let is_new = there.is_none();
        if there.as_ref().is_some_and(|existing| legacy::says_the_same(existing, &wanted)) {
            self.batch.forget(&key);
            return Ok(Next::Done);
        }
        if let Some(left) = self.batch.left(&key).filter(|_| !is_new) {
            return Ok(Next::After(left));
        }
        self.batch.forget(&key);
        let outcome = match there {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(existing) => {
                let new = legacy::changed(&existing, wanted);
                api.replace(key.name(), &PostParams::default(), &new).await
            }
        };
        match outcome {
            Err(error) if client::is_namespace_terminating(&error) => Ok(Next::Done),
            outcome => {
                if let Err(error) = &outcome {
                    self.say_failed(service, &key, is_new, error);
                }
                outcome.map(|_| Next::Done).attempt(|| format!("write the endpoints of {key}"))
            }
        }
    }

    /// Tells why Endpoints could not be written. That somebody else was quicker is not worth telling.
    fn say_failed(&self, service: &Service, key: &Key, is_new: bool, error: &kube::Error) {
        let why = client::message(error);
        match is_new {
            _ if client::is_conflict(error) || client::is_already_exists(error) => {}
            true => {
                let why = format!("Failed to create endpoint for service {key}: {why}");
                self.endpoints_recorder.warning(service, "FailedToCreateEndpoint", why);
            }
            false => {
                let why = format!("Failed to update endpoint {key}: {why}");
                self.endpoints_recorder.warning(service, "FailedToUpdateEndpoint", why);
            }
        }
    }

    /// The Service is gone. Its slices have it as their owner and go by themselves; older habits keep Endpoints
    /// without an owner, so these are deleted here.
    async fn remove(&self, key: &Key) -> Result<(), Error> {
        if !self.keeps.1 || self.endpoints.get(key).is_none_or(|e| !legacy::is_ours(&e)) {
            return Ok(());
        }
        match self
            .as_endpoints
            .api::<Endpoints>(key.namespace())
            .delete(key.name(), &DeleteParams::default())
            .await
        {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("delete the endpoints of {key}")),
        }
    }
}

#[cfg(test)]
mod tests;
