//! What claims and volumes get, and may become.

use serde_json::Value;
use types::{Status, at, ensure_object};

use super::common::{list_mut, map_mut, newest_default, quantity, text};
use crate::plugin::{Draft, Final, Plugin};
use crate::request::Operation;

const CLASSES: &str = "storageclasses.storage.k8s.io";

/// A claim that names no class gets the default one (kubernetes/kubernetes,
/// `plugin/pkg/admission/storage/storageclass/setdefault/admission.go`).
pub(crate) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn admit(&self, Draft { request, object: claim, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !request.is("", "persistentvolumeclaims") || request.operation != Operation::Create {
            return Ok(());
        }
        let beta = at(claim, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
        if beta.is_some() || at(claim, &["spec", "storageClassName"]).is_some() {
            return Ok(());
        }
        let marks = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        if let Some(class) = newest_default(cluster, CLASSES, &marks) {
            ensure_object(claim, "spec")["storageClassName"] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}

/// A claim grows only if it is bound and its class lets it (`plugin/pkg/admission/storage/persistentvolume/resize`).
pub(crate) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, Final { request, object, old, cluster, .. }: Final<'_>) -> Result<(), Status> {
        if !request.is("", "persistentvolumeclaims") || request.operation != Operation::Update {
            return Ok(());
        }
        let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
        let size =
            |claim: &Value| at(claim, &["spec", "resources", "requests", "storage"]).and_then(quantity);
        if size(new) <= size(old) {
            return Ok(());
        }
        if text(old, &["status", "phase"]) != "Bound" {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = match text(new, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
            "" => text(new, &["spec", "storageClassName"]),
            class => class,
        };
        let class = Some(class).filter(|c| !c.is_empty()).and_then(|c| cluster.get(CLASSES, "", c));
        if class.is_some_and(|c| c["allowVolumeExpansion"] == true) {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(request.forbidden(why))
    }
}

/// Volumes and claims do not go while they are in use (`plugin/pkg/admission/storage/storageobjectinuseprotection`).
pub(crate) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn admit(&self, Draft { request, object, .. }: Draft<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create {
            return Ok(());
        }
        let finalizer = if request.is("", "persistentvolumeclaims") {
            "kubernetes.io/pvc-protection"
        } else if request.is("", "persistentvolumes") {
            "kubernetes.io/pv-protection"
        } else if request.is("storage.k8s.io", "volumeattributesclasses") {
            "kubernetes.io/vac-protection"
        } else {
            return Ok(());
        };
        if let Some(list) = list_mut(ensure_object(object, "metadata"), "finalizers")
            && !list.iter().any(|f| f == finalizer)
        {
            list.push(finalizer.into());
        }
        Ok(())
    }
}

/// An Ingress that names no class gets the default one (`plugin/pkg/admission/network/defaultingressclass`).
pub(crate) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn admit(&self, Draft { request, object: ingress, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !request.is("networking.k8s.io", "ingresses") || request.operation != Operation::Create {
            return Ok(());
        }
        let old_way = at(ingress, &["metadata", "annotations", "kubernetes.io/ingress.class"]);
        if old_way.is_some() || at(ingress, &["spec", "ingressClassName"]).is_some() {
            return Ok(());
        }
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) = newest_default(cluster, "ingressclasses.networking.k8s.io", &marks) {
            ensure_object(ingress, "spec")["ingressClassName"] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}

/// New nodes are not ready (`plugin/pkg/admission/nodetaint`).
pub(crate) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn admit(&self, Draft { request, object: node, .. }: Draft<'_>) -> Result<(), Status> {
        if !request.is("", "nodes") || request.operation != Operation::Create {
            return Ok(());
        }
        let taint = serde_json::json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        if let Some(taints) = list_mut(ensure_object(node, "spec"), "taints")
            && !taints.iter().any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"])
        {
            taints.push(taint);
        }
        Ok(())
    }
}

/// Pods know in which zone and region they run (`plugin/pkg/admission/podtopologylabels`).
pub(crate) struct PodTopologyLabels;

const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn admit(&self, Draft { request, object, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create {
            return Ok(());
        }
        let node = if request.is("", "pods") {
            text(object, &["spec", "nodeName"])
        } else if request.is_part("", "pods", "binding") || request.is("", "bindings") {
            text(object, &["target", "name"])
        } else {
            return Ok(());
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = cluster.get("nodes", "", node) else { return Ok(()) };
        let labels = &node["metadata"]["labels"];
        for key in TOPOLOGY {
            if let Some(value) = labels.get(key) {
                map_mut(object, &["metadata", "labels"]).insert(key.into(), value.clone());
            }
        }
        Ok(())
    }
}
