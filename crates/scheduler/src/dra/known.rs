use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use client::{Key, Labels, devices};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, DeviceToleration, ResourceClaim, ResourceSlice,
};
use k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
use kube::ResourceExt;

use super::ask::Grant;
use super::pool::{Pool, PoolId};
use super::slice::{Offer, Reach, Slice};
use super::taken::Taken;
use super::wanted::{Selectors, Wanted};
use crate::pod::PodInfo;

/// What devices there are, who has which, and what classes say. What a decision has given away counts as given away
/// before the server has heard of it.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    claims: HashMap<Key, Known>,
    classes: BTreeMap<String, Class>,
    /// By the name of the resource: the class that stands for it.
    pub(super) extended: HashMap<String, String>,
    slices: HashMap<String, Arc<Slice>>,
    /// Taints that people lay upon devices.
    rules: BTreeMap<String, Arc<DeviceTaintRule>>,
    by_pool: BTreeMap<PoolId, BTreeMap<String, Arc<Slice>>>,
    pools: BTreeMap<PoolId, Arc<Pool>>,
    /// The pools that only one node can use, and all others.
    on_node: HashMap<String, BTreeSet<PoolId>>,
    anywhere: BTreeSet<PoolId>,
    taken: Taken,
}

#[derive(Debug)]
struct Class {
    object: Arc<DeviceClass>,
    selectors: Selectors,
}

/// A claim as the server has it, and as it is about to be.
#[derive(Debug)]
struct Known {
    now: Arc<ResourceClaim>,
    wanted: Arc<Wanted>,
    /// Decided, and not written yet.
    pending: Option<Arc<AllocationResult>>,
    /// Written, and not come back yet.
    soon: Option<Arc<ResourceClaim>>,
}

impl Known {
    fn latest(&self) -> &Arc<ResourceClaim> {
        self.soon.as_ref().unwrap_or(&self.now)
    }

    fn allocation(&self) -> Option<&AllocationResult> {
        devices::allocation(self.latest()).or(self.pending.as_deref())
    }
}

/// What a change of a claim means for waiting pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Devices are free again.
    Freed,
    /// It matters to those who use the claim.
    Changed,
}

fn revision(claim: &ResourceClaim) -> u64 {
    claim.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Devices {
    /// Takes in a claim, or that it is gone.
    pub(crate) fn set_claim(&mut self, key: Key, claim: Option<Arc<ResourceClaim>>) -> News {
        let before = self.claims.remove(&key);
        let had = before.as_ref().and_then(Known::allocation).cloned();
        if let Some(claim) = claim {
            let before = before.filter(|known| known.now.metadata.uid == claim.metadata.uid);
            let (pending, soon, wanted) = match before {
                Some(known) => (known.pending, known.soon, Some(known.wanted)),
                None => (None, None, None),
            };
            let known = Known {
                wanted: wanted.unwrap_or_else(|| Arc::new(Wanted::of(&claim))),
                pending: pending.filter(|_| devices::allocation(&claim).is_none()),
                soon: soon.filter(|soon| revision(soon) > revision(&claim)),
                now: claim,
            };
            self.claims.insert(key.clone(), known);
        }
        let has = self.claims.get(&key).and_then(Known::allocation);
        let freed = had.is_some() && has.is_none();
        if let Some(has) = has {
            self.taken.take(has);
        }
        if let Some(had) = had {
            self.taken.give_back(&had);
        }
        if freed { News::Freed } else { News::Changed }
    }

    /// Takes in a class, or that it is gone.
    pub(crate) fn set_class(&mut self, name: &str, class: Option<Arc<DeviceClass>>) {
        match class {
            Some(object) => {
                let selectors = Selectors::of_class(&object);
                self.classes.insert(name.to_owned(), Class { object, selectors });
            }
            None => drop(self.classes.remove(name)),
        }
        self.extended = super::extended::classes(self.classes.values().map(|class| &*class.object));
    }

    /// Takes in a rule, or that it is gone.
    pub(crate) fn set_rule(&mut self, name: &str, rule: Option<Arc<DeviceTaintRule>>) {
        match rule {
            Some(rule) => drop(self.rules.insert(name.to_owned(), rule)),
            None => drop(self.rules.remove(name)),
        }
    }

    /// Takes in a slice, or that it is gone.
    pub(crate) fn set_slice(&mut self, name: &str, slice: Option<&ResourceSlice>) {
        if let Some(before) = self.slices.remove(name) {
            let id = (before.driver.clone(), before.pool.clone());
            if let Some(all) = self.by_pool.get_mut(&id) {
                all.remove(name);
            }
            self.gather(&id);
        }
        if let Some(slice) = slice {
            let slice = Arc::new(Slice::of(slice));
            let id = (slice.driver.clone(), slice.pool.clone());
            self.by_pool.entry(id.clone()).or_default().insert(name.to_owned(), slice.clone());
            self.slices.insert(name.to_owned(), slice);
            self.gather(&id);
        }
    }

    /// Makes a pool anew of what is known of it.
    fn gather(&mut self, id: &PoolId) {
        if let Some(before) = self.pools.remove(id) {
            for slice in &before.slices {
                if let Reach::Node(node) = &slice.reach
                    && let Some(pools) = self.on_node.get_mut(node)
                {
                    pools.remove(id);
                    if pools.is_empty() {
                        self.on_node.remove(node);
                    }
                }
            }
            self.anywhere.remove(id);
        }
        let Some(all) = self.by_pool.get(id).filter(|all| !all.is_empty()) else {
            self.by_pool.remove(id);
            return;
        };
        let pool = Arc::new(Pool::of(id.clone(), all));
        for slice in &pool.slices {
            match &slice.reach {
                Reach::Node(node) => drop(self.on_node.entry(node.clone()).or_default().insert(id.clone())),
                _ => drop(self.anywhere.insert(id.clone())),
            }
        }
        self.pools.insert(id.clone(), pool);
    }

    /// The pools that a node can use some of. Those that need to be made ready come last.
    pub(super) fn pools_for(&self, node: &str, labels: &Labels) -> Vec<&Pool> {
        let own = self.on_node.get(node).into_iter().flatten();
        let ids: BTreeSet<&PoolId> = own.chain(&self.anywhere).collect();
        let pools = ids.into_iter().filter_map(|id| self.pools.get(id)).map(|pool| &**pool);
        let mut pools: Vec<&Pool> = pools.filter(|pool| pool.serves(node, labels)).collect();
        pools.sort_by_key(|pool| pool.slow);
        pools
    }

    /// Whether a class stands for an extended resource.
    pub(crate) fn stands_for(&self, resource: &str) -> bool {
        self.extended.contains_key(resource)
    }

    pub(super) fn taken(&self) -> &Taken {
        &self.taken
    }

    pub(super) fn class(&self, name: &str) -> Option<&Selectors> {
        self.classes.get(name).map(|class| &class.selectors)
    }

    pub(super) fn whole_class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(name).map(|class| &class.object)
    }

    /// Whether a device is tainted so that a request does not take it (`taintPreventsAllocation`).
    pub(super) fn repels(&self, offer: &Offer, slice: &Slice, tolerations: &[DeviceToleration]) -> bool {
        let tolerated = |key: &str, value: &str, effect: &str| {
            tolerations.iter().any(|toleration| devices::tolerates(toleration, key, value, effect))
        };
        let repels = |key: &str, value: Option<&str>, effect: &str| {
            matches!(effect, "NoSchedule" | "NoExecute") && !tolerated(key, value.unwrap_or_default(), effect)
        };
        let own = offer.device.taints.iter().flatten();
        let rules = self.rules.values().filter(|rule| means(rule, offer, slice)).map(|rule| &rule.spec.taint);
        own.into_iter().any(|t| repels(&t.key, t.value.as_deref(), &t.effect))
            || rules.into_iter().any(|t| repels(&t.key, t.value.as_deref(), &t.effect))
    }

    /// A claim as it is or is about to be.
    pub(super) fn claim(&self, key: &Key) -> Option<(&Key, &Arc<ResourceClaim>, &Wanted)> {
        self.claims.get_key_value(key).map(|(key, known)| (key, known.latest(), &*known.wanted))
    }

    /// Whether somebody is about to be given the claim.
    pub(super) fn is_pending(&self, key: &Key) -> bool {
        self.claims.get(key).is_some_and(|known| known.pending.is_some())
    }

    /// A claim that was made for a pod's extended resources.
    pub(super) fn extended_claim(&self, namespace: &str, uid: &str) -> Option<Key> {
        let mut all = self.claims.iter().filter(|(key, known)| {
            let meta = &known.now.metadata;
            key.namespace() == namespace
                && meta
                    .annotations
                    .as_ref()
                    .is_some_and(|a| a.get(devices::EXTENDED).map(String::as_str) == Some("true"))
                && client::is_controlled_by(meta, uid)
        });
        all.next().map(|(key, _)| key.clone())
    }

    /// A claim for a pod's extended resources that an earlier attempt has left.
    pub(crate) fn stale(&self, pod: &PodInfo) -> Option<Arc<ResourceClaim>> {
        if super::extended::names(pod, self).is_empty() {
            return None;
        }
        let key = self.extended_claim(pod.key.namespace(), &pod.uid)?;
        self.claims.get(&key).map(|known| known.latest().clone())
    }

    /// From now on, others see what was decided as given away.
    pub(crate) fn assume(&mut self, key: &Key, allocation: Arc<AllocationResult>) {
        if let Some(known) = self.claims.get_mut(key)
            && known.allocation().is_none()
        {
            self.taken.take(&allocation);
            known.pending = Some(allocation);
        }
    }

    /// The same for a claim that is not there yet.
    pub(crate) fn assume_new(&mut self, allocation: &AllocationResult) {
        self.taken.take(allocation);
    }

    /// It was not given away after all.
    pub(crate) fn forsake_new(&mut self, allocation: &AllocationResult) {
        self.taken.give_back(allocation);
    }

    /// What was decided came to nothing; what the server has, counts.
    pub(crate) fn forsake(&mut self, key: &Key) {
        if let Some(known) = self.claims.get_mut(key)
            && let Some(pending) = known.pending.take()
        {
            self.taken.give_back(&pending);
        }
    }

    /// From now on, all that a pod is about to be given is nobody else's.
    pub(crate) fn assume_grant(&mut self, grant: &Grant) {
        for claim in &grant.claims {
            if let Some(allocation) = &claim.allocation {
                self.assume(&claim.key, allocation.clone());
            }
        }
        if let Some(extended) = &grant.extended {
            self.assume_new(&extended.allocation);
        }
    }

    /// The pod is not given it after all. What another pod has been given for a claim that both have, stays.
    pub(crate) fn forsake_grant(&mut self, grant: &Grant) {
        for claim in grant.claims.iter().filter(|claim| claim.allocation.is_some()) {
            self.forsake(&claim.key);
        }
        if let Some(extended) = &grant.extended {
            self.forsake_new(&extended.allocation);
        }
    }

    /// What was decided is written.
    pub(crate) fn written(&mut self, claim: ResourceClaim) {
        let key = Key::of(&claim);
        let Some(known) = self.claims.get_mut(&key) else {
            // One that was made a moment ago.
            let claim = Arc::new(claim);
            if let Some(has) = devices::allocation(&claim) {
                self.taken.take(has);
            }
            let wanted = Arc::new(Wanted::of(&claim));
            let known = Known { now: claim.clone(), wanted, pending: None, soon: Some(claim) };
            self.claims.insert(key, known);
            return;
        };
        if known.now.metadata.uid != claim.metadata.uid || revision(&claim) <= revision(&known.now) {
            return;
        }
        let had = known.allocation().cloned();
        known.pending = None;
        known.soon = Some(Arc::new(claim));
        if let Some(has) = known.allocation() {
            self.taken.take(has);
        }
        if let Some(had) = had {
            self.taken.give_back(&had);
        }
    }

    /// Whether a claim's devices are ready, once they are given (upstream: `isPodReadyForBinding`).
    pub(crate) fn readiness(&self, key: &Key) -> Readiness {
        let Some(known) = self.claims.get(key) else { return Readiness::Failed("claim is gone".to_owned()) };
        let claim = known.latest();
        if devices::allocation(claim).is_none() {
            return Readiness::Failed(format!("claim {key} is not allocated any more"));
        }
        let statuses = claim.status.iter().flat_map(|s| s.devices.iter().flatten()).collect::<Vec<_>>();
        let mut outcome = Readiness::Ready;
        for result in devices::results(claim) {
            let wanted = result.binding_conditions.as_deref().unwrap_or_default();
            if wanted.is_empty() {
                continue;
            }
            let status = statuses
                .iter()
                .find(|s| (&s.driver, &s.pool, &s.device) == (&result.driver, &result.pool, &result.device));
            let find = |name: &String| {
                let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
                conditions.find(|c| c.type_ == *name && c.status == "True")
            };
            let failures = result.binding_failure_conditions.as_deref().unwrap_or_default();
            if let Some(failed) = failures.iter().find_map(find) {
                return Readiness::Failed(format!(
                    "claim {} binding failed: reason={}, message={:?}",
                    key.name(),
                    failed.reason,
                    failed.message
                ));
            }
            if !wanted.iter().all(|name| find(name).is_some()) {
                outcome = Readiness::NotYet;
            }
        }
        outcome
    }
}

/// Whether a rule is about a device; what it does not name does not matter.
fn means(rule: &DeviceTaintRule, offer: &Offer, slice: &Slice) -> bool {
    let Some(selector) = &rule.spec.device_selector else { return true };
    let is = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    is(&selector.driver, &slice.driver)
        && is(&selector.pool, &slice.pool)
        && is(&selector.device, &offer.device.name)
}

/// Whether devices can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Their drivers are at it.
    NotYet,
    /// They never will be.
    Failed(String),
}
