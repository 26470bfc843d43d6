//! How much of everything a pod needs.

use std::collections::BTreeMap;

use client::{ContainerView, PodSpecView, ResourcesView};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// For scores, a container that says nothing counts as if it asked for this much
/// (kubernetes/kubernetes, `pkg/scheduler/util/pod_resources.go`).
pub(super) const SMALL_CPU: i64 = 100;
pub(super) const SMALL_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of everything: thousandths of a core, bytes, pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) storage: i64,
    pub(crate) others: BTreeMap<String, i64>,
}

impl Amounts {
    pub(crate) fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            // The server lets nothing else in.
            let Ok(quantity) = quantity.0.parse::<types::Quantity>() else { continue };
            match name.as_str() {
                "cpu" => amounts.cpu = quantity.millis(),
                "memory" => amounts.memory = quantity.units(),
                "ephemeral-storage" => amounts.storage = quantity.units(),
                "pods" => {}
                other => drop(amounts.others.insert(other.to_owned(), quantity.units())),
            }
        }
        amounts
    }

    pub(crate) fn combine(&mut self, other: &Self, how: impl Fn(i64, i64) -> i64) {
        self.cpu = how(self.cpu, other.cpu);
        self.memory = how(self.memory, other.memory);
        self.storage = how(self.storage, other.storage);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = how(*mine, *amount);
        }
    }
}

pub(super) fn is_sidecar(container: &ContainerView) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod needs at most at any one time (kubernetes/kubernetes, `component-helpers/resource/helpers.go`,
/// `PodRequests`): its containers together, or the hungriest of the init containers with the sidecars that run
/// already, plus overhead. What is said for the whole pod counts instead of the sum.
pub(super) fn requests(spec: &PodSpecView) -> Amounts {
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut total = sum(spec, |container| Amounts::of(container.and_then(|r| r.requests.as_ref())));
    if let Some(whole) = whole {
        let amounts = Amounts::of(Some(whole));
        if whole.contains_key("cpu") {
            total.cpu = amounts.cpu;
        }
        if whole.contains_key("memory") {
            total.memory = amounts.memory;
        }
        total.others.extend(amounts.others);
    }
    total.combine(&Amounts::of(spec.overhead.as_ref()), i64::saturating_add);
    total.others.retain(|_, amount| *amount > 0);
    total
}

/// Cores and memory as scores count them: a container that does not mention one of them counts for a little, unless
/// the pod as a whole says how much (`pkg/scheduler/framework/types.go`, `calculateResource`).
pub(super) fn weight(spec: &PodSpecView, requests: &Amounts) -> (i64, i64) {
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let said = |name: &str| whole.is_some_and(|w| w.contains_key(name));
    let total = sum(spec, |container| {
        let list = container.and_then(|r| r.requests.as_ref());
        let mut amounts = Amounts::of(list);
        let mentions = |name: &str| list.is_some_and(|l| l.contains_key(name));
        if !mentions("cpu") {
            amounts.cpu = SMALL_CPU;
        }
        if !mentions("memory") {
            amounts.memory = SMALL_MEMORY;
        }
        amounts
    });
    let overhead = Amounts::of(spec.overhead.as_ref());
    (
        if said("cpu") { requests.cpu } else { total.cpu.saturating_add(overhead.cpu) },
        if said("memory") { requests.memory } else { total.memory.saturating_add(overhead.memory) },
    )
}

fn sum(spec: &PodSpecView, of: impl Fn(Option<&ResourcesView>) -> Amounts) -> Amounts {
    let mut total = Amounts::default();
    for container in &spec.containers {
        total.combine(&of(container.resources.as_ref()), i64::saturating_add);
    }
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needs = of(container.resources.as_ref());
        if is_sidecar(container) {
            total.combine(&needs, i64::saturating_add);
            sidecars.combine(&needs, i64::saturating_add);
            needs = sidecars.clone();
        } else {
            needs.combine(&sidecars, i64::saturating_add);
        }
        peak.combine(&needs, i64::max);
    }
    total.combine(&peak, i64::max);
    total
}
