//! Whether and how a pod is resized: pure.

use client::Amounts;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Allocation;
use crate::plan::is_sidecar;

/// What differs between two sets of resources, of what can be changed while a container runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) cpu: bool,
    pub(crate) memory: bool,
}

impl Changes {
    pub(crate) fn between(old: Option<&ResourceRequirements>, new: Option<&ResourceRequirements>) -> Self {
        let same = |name: &str| amounts_of(old, name) == amounts_of(new, name);
        Self { cpu: !same("cpu"), memory: !same("memory") }
    }

    pub(crate) fn any(self) -> bool {
        self.cpu || self.memory
    }
}

/// A resource's request and limit, in thousandths.
fn amounts_of(given: Option<&ResourceRequirements>, name: &str) -> [Option<i64>; 2] {
    let amount =
        |quantity: &Quantity| quantity.0.parse::<types::Quantity>().ok().map(types::Quantity::millis);
    let lists = [given.and_then(|r| r.requests.as_ref()), given.and_then(|r| r.limits.as_ref())];
    lists.map(|list| list.and_then(|list| amount(list.get(name)?)))
}

/// By what name an allocation has what is said for the pod as a whole; no container is called so.
pub(crate) const WHOLE: &str = "";

fn whole(pod: &Pod) -> Option<&ResourceRequirements> {
    pod.spec.as_ref()?.resources.as_ref()
}

/// The containers that can be resized: all but ordinary init containers, which are over before long.
pub(crate) fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|s| s.init_containers.iter().flatten().filter(|c| is_sidecar(c)).chain(&s.containers))
}

/// What an agent that has just begun goes on from: the resources that the status tells of. What it does not tell of is
/// as the spec has it.
pub(crate) fn told(pod: &Pod) -> Allocation {
    let status = pod.status.iter();
    let told = status.flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses)).flatten();
    resizable(pod)
        .map(|container| {
            let said = told.clone().find(|c| c.name == container.name).and_then(|c| c.resources.clone());
            let own = container.resources.clone();
            (container.name.clone(), said.or(own).unwrap_or_default())
        })
        .chain(whole_told(pod).map(|whole| (WHOLE.to_owned(), whole)))
        .collect()
}

/// The same of the pod as a whole, if anything is said for it.
pub(crate) fn whole_told(pod: &Pod) -> Option<ResourceRequirements> {
    let own = whole(pod)?;
    let said = pod.status.as_ref().and_then(|status| status.resources.clone());
    Some(said.unwrap_or_else(|| own.clone()))
}

/// What the spec asks for.
pub(crate) fn wanted(pod: &Pod) -> Allocation {
    let whole = whole(pod).map(|whole| (WHOLE.to_owned(), whole.clone()));
    resizable(pod).map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).chain(whole).collect()
}

/// Whether two allocations differ in what can be resized.
pub(crate) fn differ(one: &Allocation, other: &Allocation) -> bool {
    other.iter().any(|(name, new)| Changes::between(one.get(name), Some(new)).any())
}

/// The pod with these resources instead of its own.
pub(crate) fn with(pod: &Pod, allocation: &Allocation) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        if let Some(whole) = allocation.get(WHOLE) {
            spec.resources = Some(whole.clone());
        }
        let sidecars = spec.init_containers.iter_mut().flatten().filter(|c| is_sidecar(c));
        for container in sidecars.chain(&mut spec.containers) {
            if let Some(resources) = allocation.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        }
    }
    pod
}

/// Why a pod is not resized now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// `Deferred` or `Infeasible`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Whether the node has room for a pod that grows from `before` to `after` beside others that have `used`
/// (kubernetes/kubernetes, `pkg/kubelet/allocation/allocation_manager.go`, `canResizePod`).
pub(crate) fn room(before: &Amounts, after: &Amounts, used: &Amounts, node: &Amounts) -> Result<(), Pending> {
    let all = [
        ("memory", before.memory, after.memory, used.memory, node.memory),
        ("cpu", before.cpu, after.cpu, used.cpu, node.cpu),
    ];
    let grows = all.into_iter().filter(|(_, before, after, ..)| after > before);
    for (name, _, after, _, has) in grows.clone() {
        if after > has {
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {after}, capacity: {has}");
            return Err(Pending { reason: "Infeasible", message });
        }
    }
    for (name, _, after, used, has) in grows {
        if after > has.saturating_sub(used) {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {after}, used: {used}, capacity: {has}"
            );
            return Err(Pending { reason: "Deferred", message });
        }
    }
    Ok(())
}

/// How a running container comes to what it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Its cgroup is told.
    Update,
    /// It is replaced.
    Restart,
}

/// The way from what runs to what the container is to have (`pkg/kubelet/kuberuntime/kuberuntime_manager.go`,
/// `computePodResizeAction`).
pub(crate) fn step(container: &Container, runs_with: &ResourceRequirements) -> Step {
    let changes = Changes::between(Some(runs_with), container.resources.as_ref());
    let restarts = |name: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
    };
    match changes {
        Changes { cpu: false, memory: false } => Step::Nothing,
        Changes { cpu, memory } if cpu && restarts("cpu") || memory && restarts("memory") => Step::Restart,
        _ => Step::Update,
    }
}

/// The new limit on memory, if it is lower than the old one.
pub(crate) fn lower_memory_limit(
    wanted: Option<&ResourceRequirements>,
    runs_with: &ResourceRequirements,
) -> Option<i64> {
    let [_, new] = amounts_of(wanted, "memory");
    let [_, old] = amounts_of(Some(runs_with), "memory");
    new.filter(|new| old.is_none_or(|old| *new < old)).map(|thousandths| thousandths / 1000)
}
