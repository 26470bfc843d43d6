mod pod_certificates;
mod snapshots;

use serde_json::Value;
use types::{Status, at, local_volumes};

use super::common::{containers, list, text};
use crate::cluster::Cluster;
use crate::plugin::{Final, Plugin};
use crate::request::{Operation, Request};

/// A node changes only what is its own (kubernetes/kubernetes, `plugin/pkg/admission/noderestriction/admission.go`).
pub(crate) struct NodeRestriction;

const USER: &str = "system:node:";

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate(&self, Final { request, object, old, cluster, .. }: Final<'_>) -> Result<(), Status> {
        if !request.user.in_group("system:nodes") {
            return Ok(());
        }
        let Some(node) = request.user.name.strip_prefix(USER) else { return Ok(()) };
        let refuse = |why: String| Err(request.forbidden_of(object, &why));
        if node.is_empty() {
            return refuse(format!("could not determine node from user {:?}", request.user.name));
        }
        let nothing = Value::Null;
        let (new, was) = (object.unwrap_or(&nothing), old.unwrap_or(&nothing));
        let outcome = match (&*request.def.gvk.group, &*request.def.resource, request.subresource) {
            ("", "pods", "") => pod(request, node, new, was, cluster),
            ("", "pods", "status") => pod_status(node, new, was),
            ("", "pods", "eviction") => match cluster.get("pods", request.namespace, request.name) {
                None => return Err(Status::not_found("", "pods", request.name)),
                Some(pod) if text(&pod, &["spec", "nodeName"]) != node => {
                    Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
                }
                Some(_) => Ok(()),
            },
            ("", "nodes", _) => node_itself(request, node, new, was),
            ("", "persistentvolumeclaims", "status") => claim_status(node, new, was),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
            ("", "persistentvolumes", "") if request.operation == Operation::Update => volume(node, new, was),
            ("snapshot.storage.k8s.io", "volumesnapshotcontents", subresource)
                if request.operation == Operation::Update =>
            {
                snapshots::content(node, subresource, new, was)
            }
            ("certificates.k8s.io", "podcertificaterequests", "")
                if request.operation == Operation::Create =>
            {
                pod_certificates::request(node, request.own_namespace(), new, cluster)
            }
            ("", "serviceaccounts", "token") => token(request, node, new, cluster),
            ("coordination.k8s.io", "leases", _) => lease(request, node, new),
            ("storage.k8s.io", "csinodes", _) => {
                let name =
                    if request.name.is_empty() { text(new, &["metadata", "name"]) } else { request.name };
                if name == node {
                    Ok(())
                } else {
                    Err("can only access CSINode with the same name as the requesting node".to_owned())
                }
            }
            ("resource.k8s.io", "resourceslices", _) => {
                let own = |o: &Value| o.is_null() || text(o, &["spec", "nodeName"]) == node;
                let subject = if request.operation == Operation::Delete { was } else { new };
                if own(subject) {
                    Ok(())
                } else {
                    Err("can only create ResourceSlice with the same NodeName as the requesting node"
                        .to_owned())
                }
            }
            _ => Ok(()),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(why) => refuse(why),
        }
    }
}

fn pod(
    request: &Request<'_>,
    node: &str,
    new: &Value,
    old: &Value,
    cluster: &dyn Cluster,
) -> Result<(), String> {
    match request.operation {
        Operation::Create => new_pod(node, new, cluster),
        Operation::Delete if text(old, &["spec", "nodeName"]) == node => Ok(()),
        Operation::Delete => {
            Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        other => Err(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            other.as_str()
        )),
    }
}

fn new_pod(node: &str, pod: &Value, cluster: &dyn Cluster) -> Result<(), String> {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    if at(pod, &["metadata", "annotations", MIRROR]).is_none() {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(pod, &["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners: Vec<&Value> = list(pod, &["metadata", "ownerReferences"]).collect();
    let itself = || format!("node {node:?} can only create pods with an owner reference set to itself");
    let [owner] = owners.as_slice() else {
        return Err(if owners.is_empty() {
            itself()
        } else {
            format!("node {node:?} can only create pods with a single owner reference set to itself")
        });
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Err(itself());
    }
    if owner["controller"] != true {
        return Err(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    if let Some(own) = cluster.get("nodes", "", node)
        && own["metadata"]["uid"] != owner["uid"]
    {
        let uid = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        return Err(format!(
            "node {node} UID mismatch: expected {} got {}",
            uid(&owner["uid"]),
            uid(&own["metadata"]["uid"])
        ));
    }
    let cannot = |what: &str| Err(format!("node {node:?} can not create pods that reference {what}"));
    if !text(pod, &["spec", "serviceAccountName"]).is_empty() {
        return cannot("a service account");
    }
    if references(pod, "secret", "secretRef", "secretKeyRef")
        || list(pod, &["spec", "imagePullSecrets"]).next().is_some()
    {
        return cannot("secrets");
    }
    if references(pod, "configMap", "configMapRef", "configMapKeyRef") {
        return cannot("configmaps");
    }
    let volumes = || list(pod, &["spec", "volumes"]);
    if volumes().any(|v| list(v, &["projected", "sources"]).any(|s| !s["clusterTrustBundle"].is_null())) {
        return cannot("clustertrustbundles");
    }
    if volumes().any(|v| !v["persistentVolumeClaim"].is_null()) {
        return cannot("persistentvolumeclaims");
    }
    Ok(())
}

/// Whether volumes or environments name an object of a sort.
pub(super) fn references(pod: &Value, volume: &str, all: &str, key: &str) -> bool {
    let volumes = list(pod, &["spec", "volumes"])
        .any(|v| !v[volume].is_null() || list(v, &["projected", "sources"]).any(|s| !s[volume].is_null()));
    volumes
        || containers(&pod["spec"]).any(|c| {
            list(c, &["env"]).any(|e| at(e, &["valueFrom", key]).is_some())
                || list(c, &["envFrom"]).any(|e| at(e, &[all]).is_some())
        })
}

fn pod_status(node: &str, new: &Value, old: &Value) -> Result<(), String> {
    if text(old, &["spec", "nodeName"]) != node {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if at(new, &["metadata", "labels"]) != at(old, &["metadata", "labels"]) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Value| at(pod, &["status", "resourceClaimStatuses"]).cloned();
    if claims(new) != claims(old) {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

fn claim_status(node: &str, new: &Value, old: &Value) -> Result<(), String> {
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            types::object(&mut claim["metadata"]).remove(field);
        }
        for field in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
            types::object(&mut claim["status"]).remove(field);
        }
        claim
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    Err(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    ))
}

/// Of a volume of the built-in storage, the node that keeps its data may say that it need not be kept any more. Upstream
/// has no such storage, and lets nodes change no volumes.
fn volume(node: &str, new: &Value, old: &Value) -> Result<(), String> {
    let source = &old["spec"]["csi"];
    if source["driver"] != local_volumes::DRIVER {
        return Ok(());
    }
    if source["volumeAttributes"][local_volumes::NODE] != node {
        return Err(format!("node {node:?} can only change persistent volumes whose data it keeps"));
    }
    if only_lets_go(local_volumes::FINALIZER, new, old) {
        return Ok(());
    }
    Err(format!(
        "node {node:?} may only take the finalizer {:?} off a persistent volume",
        local_volumes::FINALIZER
    ))
}

/// Whether nothing changes but that a finalizer is taken off.
fn only_lets_go(finalizer: &str, new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        let metadata = types::object(&mut object["metadata"]);
        for field in ["resourceVersion", "managedFields", "generation"] {
            metadata.remove(field);
        }
        if let Some(finalizers) = metadata.remove("finalizers") {
            let others = finalizers.as_array().into_iter().flatten().filter(|f| *f != finalizer);
            object["finalizers"] = others.cloned().collect();
        }
        if object["finalizers"].as_array().is_none_or(Vec::is_empty) {
            types::object(&mut object).remove("finalizers");
        }
        object
    };
    let held = |object: &Value| list(object, &["metadata", "finalizers"]).any(|f| f == finalizer);
    rest(new) == rest(old) && (held(old) || !held(new))
}

fn node_itself(request: &Request<'_>, node: &str, new: &Value, old: &Value) -> Result<(), String> {
    let name = if request.name.is_empty() { text(new, &["metadata", "name"]) } else { request.name };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let changed = forbidden_labels(new, old);
    match request.operation {
        Operation::Create => {
            if !new["spec"]["configSource"].is_null() {
                return Err(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            if !changed.is_empty() {
                let all = changed.join(", ");
                return Err(format!("node {node:?} is not allowed to set the following labels: {all}"));
            }
        }
        Operation::Update => {
            let source = &new["spec"]["configSource"];
            if !source.is_null() && *source != old["spec"]["configSource"] {
                return Err(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            let taints = |n: &Value| at(n, &["spec", "taints"]).cloned();
            if taints(new) != taints(old) {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            if !changed.is_empty() {
                return Err(format!("is not allowed to modify labels: {}", changed.join(", ")));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The labels that differ and are not a node's to set.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let (now, before) = (at(new, &["metadata", "labels"]), at(old, &["metadata", "labels"]));
    let keys = |labels: Option<&Value>| -> Vec<String> {
        labels.and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.clone()).collect()
    };
    let mut all = [keys(now), keys(before)].concat();
    all.sort();
    all.dedup();
    let differs = |key: &String| now.and_then(|l| l.get(key)) != before.and_then(|l| l.get(key));
    all.into_iter().filter(differs).filter(|key| is_forbidden(key)).collect()
}

fn is_forbidden(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let below = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if below("node-restriction.kubernetes.io") {
        return true;
    }
    (below("kubernetes.io") || below("k8s.io")) && !is_kubelet_label(key, domain)
}

/// `k8s.io/kubelet/pkg/apis/well_known_labels.go`, `IsKubeletLabel`.
fn is_kubelet_label(key: &str, domain: &str) -> bool {
    let own = ["kubelet.kubernetes.io", "node.kubernetes.io"];
    own.iter().any(|d| domain == *d || domain.ends_with(&format!(".{d}")))
        || matches!(
            key,
            "kubernetes.io/hostname"
                | "kubernetes.io/os"
                | "kubernetes.io/arch"
                | "beta.kubernetes.io/os"
                | "beta.kubernetes.io/arch"
                | "beta.kubernetes.io/instance-type"
                | "node.kubernetes.io/instance-type"
                | "topology.kubernetes.io/zone"
                | "topology.kubernetes.io/region"
                | "failure-domain.beta.kubernetes.io/zone"
                | "failure-domain.beta.kubernetes.io/region"
        )
}

fn token(request: &Request<'_>, node: &str, review: &Value, cluster: &dyn Cluster) -> Result<(), String> {
    if request.operation != Operation::Create {
        return Ok(());
    }
    let reference = &review["spec"]["boundObjectRef"];
    let name = text(reference, &["name"]);
    if reference["apiVersion"] != "v1" || reference["kind"] != "Pod" || name.is_empty() {
        return Err("node requested token not bound to a pod".to_owned());
    }
    let uid = text(reference, &["uid"]);
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".to_owned());
    }
    let Some(pod) = cluster.get("pods", request.namespace, name) else {
        return Err(format!("pods {name:?} not found"));
    };
    if pod["metadata"]["uid"] != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if text(&pod, &["spec", "nodeName"]) != node {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    Ok(())
}

fn lease(request: &Request<'_>, node: &str, new: &Value) -> Result<(), String> {
    if request.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    let name = if request.name.is_empty() { text(new, &["metadata", "name"]) } else { request.name };
    if name == node {
        Ok(())
    } else {
        Err("can only access node lease with the same name as the requesting node".to_owned())
    }
}
