use std::sync::Arc;

use base::{Clock, Ids, RandomIds};
use client::devices;
use client::k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use client::{Key, PodView, is_deleting};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::super::binding::{Bindings, expect};
use super::super::input::Input;
use super::Granted;
use crate::dra::{ExtendedGrant, Grant};
use crate::pod::PodInfo;

/// So often a write is tried that somebody else was faster with (client-go, `util/retry`, `DefaultRetry`).
const TRIES: usize = 5;

impl Bindings {
    /// Writes what a pod is given into its claims; the outcome comes through the channel. Before that, others are told of
    /// the node, if one is named.
    pub(in super::super) fn write_grant(&self, pod: Arc<PodInfo>, grant: Grant, node: Option<Arc<str>>) {
        let (client, clock) = (self.client(), self.clock());
        self.tell(async move {
            if let Some(node) = node {
                expect(&client, &pod, &node).await;
            }
            let mut written = Vec::new();
            let failed = write(&client, &*clock, &pod, &grant, &mut written).await.err();
            Input::Granted(Granted { pod, grant, written, failed })
        });
    }

    /// Takes back what was written: claims become free, with or without their devices, and those that were made for the pod go.
    pub(in super::super) fn take_back(
        &self,
        pod: Arc<PodInfo>,
        free: Vec<(ResourceClaim, bool)>,
        gone: Vec<ResourceClaim>,
    ) {
        let client = self.client();
        self.spawn(async move {
            for (claim, whole) in free {
                let key = Key::of(&claim);
                if let Err(error) = deallocate(&client, claim, &pod.uid, whole).await {
                    tracing::debug!(claim = %key, error = client::message(&error), "cannot free a claim");
                }
            }
            for claim in gone {
                let key = Key::of(&claim);
                if let Err(error) = delete(&client, claim).await {
                    tracing::debug!(claim = %key, error = client::message(&error), "cannot delete a claim");
                }
            }
        });
    }
}

async fn write(
    client: &Client,
    clock: &dyn Clock,
    pod: &PodInfo,
    grant: &Grant,
    written: &mut Vec<ResourceClaim>,
) -> Result<(), String> {
    for claim in &grant.claims {
        let allocation = claim.allocation.as_deref().map(|allocation| named(allocation, clock));
        written.push(settle(client, ResourceClaim::clone(&claim.claim), allocation, pod).await?);
    }
    if let Some(extended) = &grant.extended {
        let made = make(client, extended).await?;
        let settled = settle(client, made.clone(), Some(named(&extended.allocation, clock)), pod).await;
        // Whatever happens from now on, it is there.
        written.push(settled.as_ref().cloned().unwrap_or(made));
        let settled = settled?;
        tell(client, pod, extended, &settled.name_any()).await?;
    }
    Ok(())
}

/// What is written: with names for shares, and the present time.
fn named(allocation: &AllocationResult, clock: &dyn Clock) -> AllocationResult {
    let mut allocation = allocation.clone();
    allocation.allocation_timestamp = Some(Time(clock.now()));
    let results = allocation.devices.iter_mut().flat_map(|devices| devices.results.iter_mut().flatten());
    for share in results.filter_map(|result| result.share_id.as_mut()) {
        *share = RandomIds.uid();
    }
    allocation
}

/// Gives a claim its devices, if it has none, and to the pod (`bindClaim`).
async fn settle(
    client: &Client,
    mut claim: ResourceClaim,
    allocation: Option<AllocationResult>,
    pod: &PodInfo,
) -> Result<ResourceClaim, String> {
    let key = Key::of(&claim);
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), key.namespace());
    let mut tries = 0;
    loop {
        match try_settle(&api, claim, allocation.as_ref(), pod).await {
            Ok(settled) => return Ok(settled),
            Err(Fault::Refused(why)) => return Err(why),
            Err(Fault::Api(_, error)) if client::is_conflict(&error) && tries < TRIES => {
                tries += 1;
                let now = api.get(key.name()).await;
                claim = now.map_err(|error| {
                    format!("get updated claim {key} after conflict: {}", client::message(&error))
                })?;
            }
            Err(Fault::Api(what, error)) => {
                return Err(format!("{what} claim {key}: {}", client::message(&error)));
            }
        }
    }
}

enum Fault {
    Refused(String),
    Api(&'static str, kube::Error),
}

async fn try_settle(
    api: &Api<ResourceClaim>,
    mut claim: ResourceClaim,
    allocation: Option<&AllocationResult>,
    pod: &PodInfo,
) -> Result<ResourceClaim, Fault> {
    let (key, params) = (Key::of(&claim), PostParams::default());
    if is_deleting(&claim.metadata) {
        return Err(Fault::Refused(format!("claim {key} got deleted in the meantime")));
    }
    let mut what = "add reservation to";
    if let Some(allocation) = allocation {
        if devices::allocation(&claim).is_some() {
            return Err(Fault::Refused(format!("claim {key} got allocated elsewhere in the meantime")));
        }
        if !devices::is_protected(&claim.metadata) {
            claim.finalizers_mut().push(devices::FINALIZER.to_owned());
            let protected = api.replace(key.name(), &params, &claim).await;
            claim = protected.map_err(|error| Fault::Api("add finalizer to", error))?;
        }
        claim.status.get_or_insert_default().allocation = Some(allocation.clone());
        what = "add allocation and reservation to";
    }
    if devices::is_reserved_for(&claim, &pod.uid) && allocation.is_none() {
        return Ok(claim);
    }
    let status = claim.status.get_or_insert_default();
    status.reserved_for.get_or_insert_default().push(devices::consumer(pod.key.name(), &pod.uid));
    api.replace_status(key.name(), &params, &claim).await.map_err(|error| Fault::Api(what, error))
}

async fn make(client: &Client, extended: &ExtendedGrant) -> Result<ResourceClaim, String> {
    let namespace = extended.claim.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), namespace);
    let made = api.create(&PostParams::default(), &extended.claim).await;
    made.map_err(|error| format!("create claim for extended resources: {}", client::message(&error)))
}

/// Says in the pod's status which claim has its extended resources.
async fn tell(client: &Client, pod: &PodInfo, extended: &ExtendedGrant, name: &str) -> Result<(), String> {
    let status = json!({"extendedResourceClaimStatus": {"resourceClaimName": name,
        "requestMappings": extended.mappings}});
    let patch = Patch::Merge(json!({"metadata": {"uid": &*pod.uid}, "status": status}));
    let api: Api<PodView> = Api::namespaced(client.clone(), pod.key.namespace());
    let told = api.patch_status(pod.key.name(), &PatchParams::default(), &patch).await;
    told.map(drop).map_err(|error| {
        format!("update pod {} ExtendedResourceClaimStatus: {}", pod.key, client::message(&error))
    })
}

/// Takes a claim from the pod, and its devices from it if that is asked for and nobody else has it.
async fn deallocate(
    client: &Client,
    mut claim: ResourceClaim,
    uid: &str,
    whole: bool,
) -> Result<(), kube::Error> {
    let key = Key::of(&claim);
    let given = |claim: &ResourceClaim| {
        let given = devices::allocation(claim).and_then(|given| given.allocation_timestamp.clone());
        (claim.uid(), given)
    };
    let mine = given(&claim);
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), key.namespace());
    let mut tries = 0;
    loop {
        // What has been given since then is another attempt's.
        let same = given(&claim) == mine;
        let Some(status) = claim.status.as_mut().filter(|_| same) else { return Ok(()) };
        let consumers = status.reserved_for.get_or_insert_default();
        consumers.retain(|consumer| consumer.uid != uid);
        if whole && consumers.is_empty() {
            status.allocation = None;
            status.devices = None;
        }
        match api.replace_status(key.name(), &PostParams::default(), &claim).await {
            // Drivers write into the status, too.
            Err(error) if client::is_conflict(&error) && tries < TRIES => {
                tries += 1;
                claim = api.get(key.name()).await?;
            }
            outcome => return outcome.map(drop),
        }
    }
}

async fn delete(client: &Client, mut claim: ResourceClaim) -> Result<(), kube::Error> {
    let key = Key::of(&claim);
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), key.namespace());
    if devices::is_protected(&claim.metadata) {
        claim.finalizers_mut().retain(|f| f != devices::FINALIZER);
        claim = api.replace(key.name(), &PostParams::default(), &claim).await?;
    }
    let preconditions = Preconditions { uid: claim.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(key.name(), &params).await {
        Err(error) if client::is_not_found(&error) => Ok(()),
        outcome => outcome.map(drop),
    }
}
