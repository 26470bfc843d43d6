//! Pods leave devices that are tainted so that nobody may go on using them (kubernetes/kubernetes,
//! `pkg/controller/devicetainteviction/device_taint_eviction.go`).
//!
//! ```text
//! taint in a slice, or by a rule ─► claims that have the device ─► pods that have the claims ─► evicted, now or later
//! ```

mod decide;
mod rules;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use base::Timestamp;
use client::{
    Change, Controller, Index, Informer, Key, Next, PodView, Queue, Recorder, devices, is_deleting,
};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::moments::Moments;
use crate::context::Context;
use crate::error::{Attempt, Error};
use decide::{Eviction, Taint, decide};

const EVENT: &str = "DeviceTaintManagerEviction";

struct State {
    ctx: Context,
    recorder: Recorder,
    pods: Informer<PodView>,
    claims: Informer<ResourceClaim>,
    /// Slices by driver and pool.
    pools: Index<ResourceSlice>,
    /// Only where rules are served.
    rules: OnceLock<Informer<DeviceTaintRule>>,
    /// When a pod that is to go later was first found to have to, by UID.
    leaving: Mutex<HashMap<String, Timestamp>>,
    /// How long ago taints came.
    moments: Moments,
    /// How many pods each rule has evicted, by the rule's UID.
    evicted: Mutex<BTreeMap<String, u64>>,
}

pub(crate) fn start(ctx: &Context) {
    let (pods, claims) = (ctx.informers.of::<PodView>(), ctx.informers.of::<ResourceClaim>());
    let slices = ctx.informers.of::<ResourceSlice>();
    let pools =
        slices.index("pool", |slice: &ResourceSlice| [pool_key(&slice.spec.driver, &slice.spec.pool.name)]);
    let users = claims.index("devices-pool", |claim: &ResourceClaim| {
        devices::results(claim).iter().map(|d| pool_key(&d.driver, &d.pool)).collect::<Vec<_>>()
    });
    let controller = Controller::new("device-taint-eviction")
        .workers(10)
        .watches_changes(&pods, |change, queue| {
            if concerns(change) {
                queue.add(Key::of(&**change.object()));
            }
        })
        .watches_changes(&claims, |change, queue| consumers(change.object()).for_each(|pod| queue.add(pod)))
        .watches_changes(&slices, move |change, queue| {
            let tainted = |slice: &ResourceSlice| {
                slice.spec.devices.iter().flatten().any(|d| d.taints.as_ref().is_some_and(|t| !t.is_empty()))
            };
            let before = matches!(change, Change::Updated { old, .. } if tainted(old));
            let slice = change.object();
            if before || tainted(slice) {
                for claim in users.get(&pool_key(&slice.spec.driver, &slice.spec.pool.name)) {
                    consumers(&claim).for_each(|pod| queue.add(pod));
                }
            }
        });
    let queue = controller.queue();
    let recorder = ctx.recorder("device-taint-eviction");
    let state = Arc::new(State {
        ctx: ctx.clone(),
        recorder,
        pods,
        claims,
        pools,
        rules: OnceLock::new(),
        leaving: Mutex::default(),
        moments: Moments::default(),
        evicted: Mutex::default(),
    });
    rules::start(state.clone(), queue);
    ctx.spawn(controller, state, look);
}

fn pool_key(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

/// The pods that have a claim.
fn consumers(claim: &ResourceClaim) -> impl Iterator<Item = Key> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let pods = devices::consumers(claim).iter().filter(|consumer| consumer.resource == "pods");
    pods.map(move |pod| Key::new(namespace, &pod.name))
}

/// Pods change often; what matters here seldom does.
fn concerns(change: &Change<PodView>) -> bool {
    match change {
        Change::Updated { old, new } => {
            let names = |pod: &PodView| pod.status.as_ref().and_then(|s| s.resource_claim_statuses.clone());
            old.metadata.uid != new.metadata.uid
                || old.node_name != new.node_name
                || is_deleting(&old.metadata) != is_deleting(&new.metadata)
                || names(old) != names(new)
        }
        Change::Added(pod) => pod.resource_claims().next().is_some() || pod.extended_claim().is_some(),
        Change::Deleted(_) => true,
    }
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(pod) = state.pods.get(&key) else { return Ok(Next::Done) };
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if is_deleting(&pod.metadata) {
        state.leaving.lock().remove(&uid);
        return Ok(Next::Done);
    }
    let now = state.ctx.now();
    let since = state.leaving.lock().get(&uid).copied().unwrap_or(now);
    let (eviction, causes) = state.eviction(&pod, since, now);
    match eviction {
        Eviction::Never => {
            if state.leaving.lock().remove(&uid).is_some() {
                state.recorder.normal(&*pod, EVENT, "Cancelling deletion");
            }
            Ok(Next::Done)
        }
        Eviction::After(left) => {
            state.leaving.lock().entry(uid).or_insert(now);
            Ok(Next::After(left))
        }
        Eviction::Now => {
            state.evict(&pod).await?;
            state.leaving.lock().remove(&uid);
            let mut evicted = state.evicted.lock();
            causes.into_iter().for_each(|rule| *evicted.entry(rule).or_default() += 1);
            Ok(Next::Done)
        }
    }
}

impl State {
    /// When a pod must go, and the UIDs of the rules that say so.
    fn eviction(&self, pod: &PodView, since: Timestamp, now: Timestamp) -> (Eviction, Vec<String>) {
        let mut soonest = Eviction::Never;
        let mut causes = Vec::new();
        if pod.node_name.is_none() {
            return (soonest, causes);
        }
        for claim in self.claims_of(pod) {
            for device in devices::results(&claim) {
                let taints = self.taints(&device.driver, &device.pool, &device.device);
                let tolerations = device.tolerations.as_deref().unwrap_or_default();
                for taint in &taints {
                    let eviction = decide(taint, tolerations, since, |at| self.moments.passed(at, now));
                    if eviction != Eviction::Never {
                        causes.extend(taint.rule.clone());
                    }
                    soonest = soonest.min(eviction);
                }
            }
        }
        causes.sort();
        causes.dedup();
        (soonest, causes)
    }

    /// The claims that a pod has.
    fn claims_of(&self, pod: &PodView) -> Vec<Arc<ResourceClaim>> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let names = pod.resource_claims().filter_map(|(_, name)| name.object()).chain(pod.extended_claim());
        let claims = names.filter_map(|name| self.claims.store().by_name(namespace, name));
        claims.filter(|claim| devices::is_reserved_for(claim, uid)).collect()
    }

    /// The taints of a device, as the newest generation of its pool and the rules have them.
    fn taints(&self, driver: &str, pool: &str, device: &str) -> Vec<Taint> {
        let slices = self.pools.get(&pool_key(driver, pool));
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
        let current = slices.iter().filter(|slice| Some(slice.spec.pool.generation) == newest);
        let devices = current.flat_map(|slice| slice.spec.devices.iter().flatten());
        let own = devices.filter(|d| d.name == device).flat_map(|d| d.taints.iter().flatten()).map(Taint::of);
        own.chain(self.ruled(driver, pool, device)).collect()
    }

    async fn evict(&self, pod: &PodView) -> Result<(), Error> {
        let key = Key::of(pod);
        self.recorder.normal(pod, EVENT, "Marking for deletion");
        let api = self.ctx.api::<PodView>(key.namespace());
        let condition = json!({"type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByDeviceTaintManager",
            "message": "Device Taint manager: deleting due to NoExecute taint",
            "observedGeneration": pod.metadata.generation, "lastTransitionTime": Time(self.ctx.now())});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let told = api.patch_status(key.name(), &PatchParams::default(), &Patch::Strategic(patch)).await;
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let gone = |error: &kube::Error| client::is_not_found(error) || client::is_conflict(error);
        let deleted = match told {
            Err(error) => Err(error),
            Ok(_) => api.delete(key.name(), &params).await.map(drop),
        };
        match deleted {
            // There is another one by now.
            Err(error) if gone(&error) => Ok(()),
            outcome => outcome.attempt(|| format!("evict pod {key}")),
        }
    }
}

/// Looks at every pod that has a claim.
fn look_at_all(claims: &Informer<ResourceClaim>, queue: &Queue) {
    claims.store().for_each(|_, claim| consumers(claim).for_each(|pod| queue.add(pod)));
}

#[cfg(test)]
mod tests;
