//! How much of everything a pod needs: the scheduler asks, and so does the node that takes the pod.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::{ContainerView, PodSpecView, ResourcesView};

/// Amounts of everything: thousandths of a core, bytes, pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of ephemeral storage.
    pub storage: i64,
    /// Pieces, or bytes of huge pages, by the resource's name.
    pub others: BTreeMap<String, i64>,
}

impl Amounts {
    /// Reads a list of resources. Pods themselves are not counted.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
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

    /// Puts other amounts into these, one by one.
    pub fn combine(&mut self, other: &Self, how: impl Fn(i64, i64) -> i64) {
        self.cpu = how(self.cpu, other.cpu);
        self.memory = how(self.memory, other.memory);
        self.storage = how(self.storage, other.storage);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = how(*mine, *amount);
        }
    }
}

/// Whether an init container runs on beside the others.
pub fn is_sidecar(container: &ContainerView) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod needs at most at any one time (kubernetes/kubernetes, `component-helpers/resource/helpers.go`,
/// `PodRequests`): its containers together, or the hungriest of the init containers with the sidecars that run
/// already, plus overhead. What is said for the whole pod counts instead of the sum.
pub fn pod_requests(spec: &PodSpecView) -> Amounts {
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut total =
        sum_over_containers(spec, |container| Amounts::of(container.and_then(|r| r.requests.as_ref())));
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

/// What a pod needs if each container needs what `of` says of its resources: all containers together, or the hungriest
/// of the init containers with the sidecars that run already.
pub fn sum_over_containers(spec: &PodSpecView, of: impl Fn(Option<&ResourcesView>) -> Amounts) -> Amounts {
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
