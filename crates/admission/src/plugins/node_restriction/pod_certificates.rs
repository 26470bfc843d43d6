use serde_json::Value;

use crate::cluster::Cluster;
use crate::plugins::common::text;

/// A node asks for certificates of the pods that run on it, as what they are (`admitPodCertificateRequest`).
pub(super) fn request(node: &str, namespace: &str, new: &Value, cluster: &dyn Cluster) -> Result<(), String> {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let asked = |field: &str| text(new, &["spec", field]);
    if asked("nodeName") != node {
        let named = asked("nodeName");
        return Err(format!(
            "PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}"
        ));
    }
    let uid = |object: &Value| text(object, &["metadata", "uid"]).to_owned();
    let own = cluster.get("nodes", "", node);
    if own.as_ref().map(uid).is_none_or(|uid| uid != asked("nodeUID")) {
        return Err(format!("PodCertificateRequest.Spec.NodeUID is not the UID of node {node:?}"));
    }
    let name = asked("podName");
    let Some(pod) = cluster.get("pods", namespace, name) else {
        return Err(format!("PodCertificateRequest for pod {name:?}, which does not exist"));
    };
    if uid(&pod) != asked("podUID") {
        return Err(format!("PodCertificateRequest.Spec.PodUID is not the UID of pod {name:?}"));
    }
    if text(&pod, &["spec", "nodeName"]) != node {
        return Err(format!("PodCertificateRequest for pod {name:?}, which is not on node {node:?}"));
    }
    if !pod["metadata"]["annotations"][MIRROR].is_null() {
        return Err(format!("PodCertificateRequest for pod {name:?}, which is a mirror pod"));
    }
    let account = asked("serviceAccountName");
    if text(&pod, &["spec", "serviceAccountName"]) != account {
        return Err(format!(
            "PodCertificateRequest for service account {account:?}, which pod {name:?} has not"
        ));
    }
    match cluster.get("serviceaccounts", namespace, account) {
        None => Err(format!("PodCertificateRequest for service account {account:?}, which does not exist")),
        Some(found) if uid(&found) != asked("serviceAccountUID") => Err(format!(
            "PodCertificateRequest.Spec.ServiceAccountUID is not the UID of service account {account:?}"
        )),
        Some(_) => Ok(()),
    }
}
