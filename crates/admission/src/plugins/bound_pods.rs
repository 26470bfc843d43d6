//! Plugins about changes of pods that have their node: it must be able to follow.

use registry::pod_resources;
use serde_json::Value;
use types::{Cause, Quantity, Status, at};

use super::common::{amounts, list, quantity, text};
use crate::plugin::{Final, Plugin};
use crate::request::{Operation, Request};

/// What a change asks of a node that not every node can do has to be declared by it (kubernetes/kubernetes,
/// `plugin/pkg/admission/nodedeclaredfeatures`). Of resource slices upstream asks something, too, but only with a feature that
/// is off by default (`DRANodeAllocatableResources`).
pub(crate) struct NodeDeclaredFeatureValidator;

/// A pod is given other resources than its node has at all, or on a node that cannot do that (`plugin/pkg/admission/podresize`).
pub(crate) struct PodResizeValidator;

/// The pod as it is to be, as it is, and its node: if it has one, and its spec changes.
fn bound<'a>(
    write: &Final<'a>,
    is_meant: impl Fn(&Request<'_>) -> bool,
) -> Option<(&'a Value, &'a Value, &'a str)> {
    let meant = write.request.operation == Operation::Update && is_meant(write.request);
    let (pod, old) = write.object.filter(|_| meant).zip(write.old)?;
    let node = text(pod, &["spec", "nodeName"]);
    (!node.is_empty() && pod["spec"] != old["spec"]).then_some((pod, old, node))
}

fn find(write: &Final<'_>, node: &str) -> Result<Value, Status> {
    let missing = || write.request.forbidden_of(write.object, &format!("node {node:?} not found"));
    write.cluster.get("nodes", "", node).ok_or_else(missing)
}

impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn validate(&self, write: Final<'_>) -> Result<(), Status> {
        let is_meant =
            |request: &Request<'_>| request.is("", "pods") || request.is_part("", "pods", "resize");
        let Some((pod, old, node)) = bound(&write, is_meant) else { return Ok(()) };
        let needed = needed(old, pod);
        if needed.is_empty() {
            return Ok(());
        }
        let found = find(&write, node)?;
        let declared = |name: &&str| list(&found, &["status", "declaredFeatures"]).any(|d| d == *name);
        let missing: Vec<&str> = needed.into_iter().filter(|name| !declared(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "pod update requires features {} which are not available on node {node:?}",
            missing.join(", ")
        );
        Err(write.request.forbidden_of(write.object, &why))
    }
}

/// The features that a change needs, by name (`component-helpers/nodedeclaredfeatures/features/inplacepodresize`).
fn needed(old: &Value, new: &Value) -> Vec<&'static str> {
    let mut needed = Vec::new();
    if text(old, &["status", "qosClass"]) == "Guaranteed" {
        let cpu = |container: &Value| {
            at(container, &["resources", "requests", "cpu"]).and_then(quantity).unwrap_or_default()
        };
        let both = list(old, &["spec", "containers"]).zip(list(new, &["spec", "containers"]));
        if both.into_iter().any(|(old, new)| cpu(old) != cpu(new)) {
            needed.push("GuaranteedQoSPodCPUResize");
        }
    }
    if !same_resources(&old["spec"]["resources"], &new["spec"]["resources"]) {
        needed.push("InPlacePodLevelResourcesVerticalScaling");
    }
    needed
}

/// Whether both say the same of a whole pod, however they write it.
fn same_resources(old: &Value, new: &Value) -> bool {
    let same = |field: &str| {
        let of = |value: &Value| -> Vec<(String, Quantity)> {
            amounts(value, &[field]).map(|(name, amount)| (name.to_owned(), amount)).collect()
        };
        of(old) == of(new)
    };
    old == new || (same("requests") && same("limits"))
}

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn validate(&self, write: Final<'_>) -> Result<(), Status> {
        let is_meant = |request: &Request<'_>| request.is_part("", "pods", "resize");
        let Some((pod, _, node)) = bound(&write, is_meant) else { return Ok(()) };
        let found = find(&write, node)?;
        let requests = pod_resources(&pod["spec"], "requests");
        let lacking = |name: &str, count: fn(Quantity) -> i64| {
            let of = |amount: Option<Quantity>| count(amount.unwrap_or_default());
            let has = of(at(&found, &["status", "allocatable", name]).and_then(quantity));
            let asked = of(requests.get(name).copied());
            (asked > has).then(|| format!("{name}, requested: {asked}, allocatable: {has}"))
        };
        let lacking = [lacking("cpu", Quantity::millis), lacking("memory", Quantity::units)];
        let lacking: Vec<String> = lacking.into_iter().flatten().collect();
        if !lacking.is_empty() {
            let why = format!("Node didn't have enough allocatable resources: {}", lacking.join("; "));
            return Err(refusal(&write, &why, "NodeCapacity"));
        }
        let os = text(&found, &["metadata", "labels", "kubernetes.io/os"]);
        if os != "linux" {
            let why = format!("pod resize is only supported on linux nodes, node {node:?} is {os:?}");
            return Err(refusal(&write, &why, "UnsupportedPlatform"));
        }
        Ok(())
    }
}

/// Those who resize by themselves go by the cause.
fn refusal(write: &Final<'_>, why: &str, cause: &str) -> Status {
    let cause = Cause { reason: cause.to_owned(), message: String::new(), field: String::new() };
    write.request.forbidden_of(write.object, why).with_causes(vec![cause])
}

#[cfg(test)]
mod tests;
