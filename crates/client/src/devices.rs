//! What claims of devices, pods and taints are to each other: controllers ask, the scheduler, and the node agent
//! (kubernetes/kubernetes, `dynamic-resource-allocation/resourceclaim`).

use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceRequestAllocationResult, DeviceToleration, ResourceClaim,
    ResourceClaimConsumerReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::is_controlled_by;

/// On a claim: it is allocated, and stays until it is not.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// On a claim that was made of a template: which of its pod's claims it is.
pub const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// On a claim: it was made for a pod's extended resources.
pub const EXTENDED: &str = "resource.kubernetes.io/extended-resource-claim";
/// How many pods may have a claim at a time.
pub const MOST_CONSUMERS: usize = 256;

/// What a claim was given.
pub fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// The devices that a claim was given.
pub fn results(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let devices = allocation(claim).and_then(|allocation| allocation.devices.as_ref());
    devices.and_then(|devices| devices.results.as_deref()).unwrap_or_default()
}

/// Whether a claim's devices have to get ready after they were given (upstream: `hasBindingConditions`).
pub fn has_conditions(claim: &ResourceClaim) -> bool {
    results(claim).iter().any(|device| device.binding_conditions.as_ref().is_some_and(|all| !all.is_empty()))
}

/// Who has a claim.
pub fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

/// Whether the pod with this UID has a claim.
pub fn is_reserved_for(claim: &ResourceClaim, uid: &str) -> bool {
    consumers(claim).iter().any(|consumer| consumer.uid == uid)
}

/// A pod, as claims name it.
pub fn consumer(name: &str, uid: &str) -> ResourceClaimConsumerReference {
    ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    }
}

/// Why a claim is not the one that was made for a pod, if it is not (`IsForPod`).
pub fn disowned(claim: &ResourceClaim, namespace: &str, name: &str, uid: &str) -> Option<String> {
    let own =
        claim.metadata.namespace.as_deref() == Some(namespace) && is_controlled_by(&claim.metadata, uid);
    (!own).then(|| {
        let (from, called) = (of(&claim.metadata.namespace), of(&claim.metadata.name));
        format!("ResourceClaim {from}/{called} was not created for pod {namespace}/{name} (pod is not owner)")
    })
}

fn of(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

/// Whether a claim or another object has our finalizer.
pub fn is_protected(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// Whether a toleration is about this taint of a device (`ToleratesTaint`).
pub fn tolerates(toleration: &DeviceToleration, key: &str, value: &str, effect: &str) -> bool {
    let any_or =
        |wanted: &Option<String>, is: &str| matches!(of(wanted), wanted if wanted.is_empty() || wanted == is);
    any_or(&toleration.effect, effect)
        && any_or(&toleration.key, key)
        && match toleration.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => of(&toleration.value) == value,
            "Exists" => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_a_toleration_does_not_say_does_not_matter() {
        let tolerates = |toleration: Value| {
            super::tolerates(&serde_json::from_value(toleration).unwrap(), "k", "v", "NoExecute")
        };
        assert!(tolerates(json!({"operator": "Exists"})));
        assert!(tolerates(json!({"key": "k", "value": "v"})));
        assert!(tolerates(json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"})));
        assert!(!tolerates(json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"})));
        assert!(!tolerates(json!({"key": "k"})));
        assert!(!tolerates(json!({"key": "other", "operator": "Exists"})));
        assert!(!tolerates(json!({"key": "k", "operator": "Near", "value": "v"})));
    }

    #[test]
    fn a_claim_is_its_owners() {
        let claim: ResourceClaim = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]},
            "spec": {}, "status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}}))
        .unwrap();
        assert_eq!(disowned(&claim, "n", "p", "u"), None);
        let why = disowned(&claim, "n", "p", "other").unwrap();
        assert_eq!(why, "ResourceClaim n/c was not created for pod n/p (pod is not owner)");
        assert!(is_reserved_for(&claim, "u") && !is_reserved_for(&claim, "other"));
    }
}
