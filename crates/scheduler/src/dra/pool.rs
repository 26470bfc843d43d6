use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use client::Labels;

use super::amounts::Amounts;
use super::slice::Slice;

/// Driver and name.
pub(crate) type PoolId = (Arc<str>, Arc<str>);

/// What a driver offers together, in its newest generation (kubernetes/kubernetes,
/// `dynamic-resource-allocation/structured/internal/incubating/pools_incubating.go`, `GatherPools`).
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) id: PoolId,
    /// By name.
    pub(super) slices: Vec<Arc<Slice>>,
    /// Not all of it has been told yet.
    pub(super) incomplete: bool,
    /// It contradicts itself.
    pub(super) invalid: bool,
    /// What its devices may use up together.
    pub(super) counters: BTreeMap<String, Amounts>,
    /// Some device has to be made ready after it was given away; such pools come last.
    pub(super) slow: bool,
}

impl Pool {
    /// All slices there are of a pool; there is at least one.
    pub(super) fn of(id: PoolId, all: &BTreeMap<String, Arc<Slice>>) -> Self {
        let newest = all.values().map(|slice| slice.generation).max().unwrap_or_default();
        let slices: Vec<Arc<Slice>> = all.values().filter(|s| s.generation == newest).cloned().collect();
        let told = i64::try_from(slices.len()).unwrap_or(i64::MAX);
        let mut names = HashSet::new();
        let mut counters: BTreeMap<String, Amounts> = BTreeMap::new();
        let mut invalid = false;
        for slice in &slices {
            invalid |= slice.offers.iter().any(|offer| !names.insert(offer.device.name.as_str()));
            for (set, amounts) in &slice.counters {
                invalid |= counters.insert(set.clone(), amounts.clone()).is_some();
            }
        }
        let offers = || slices.iter().flat_map(|slice| &slice.offers);
        // Counters are somewhere else in the pool, so only a whole one can lack some.
        let incomplete = slices.first().is_none_or(|slice| slice.count != told);
        let known = |set: &str, amounts: &Amounts| {
            counters.get(set).is_some_and(|has| amounts.keys().all(|name| has.contains_key(name)))
        };
        invalid |= !incomplete && offers().any(|o| o.consumes.iter().any(|(set, a)| !known(set, a)));
        let slow = offers().any(|o| o.device.binding_conditions.as_ref().is_some_and(|c| !c.is_empty()));
        Self { id, incomplete, invalid, counters, slow, slices }
    }

    /// Whether a node can use some of it.
    pub(super) fn serves(&self, node: &str, labels: &Labels) -> bool {
        self.slices.iter().any(|slice| slice.serves(node, labels))
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.id.0, self.id.1)
    }
}
