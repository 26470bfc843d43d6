use base::Ids;
use serde_json::{Value, json};
use types::{Status, ensure_object, str_at};

use crate::chain::Plugin;
use crate::cluster::Cluster;
use crate::request::{Notes, Operation, Request};

/// Every pod runs as a service account and finds its token in a volume (kubernetes/kubernetes,
/// `plugin/pkg/admission/serviceaccount/admission.go`).
pub(crate) struct ServiceAccount;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        pod: &mut Value,
        _old: Option<&Value>,
        cluster: &dyn Cluster,
        _notes: &mut Notes,
    ) -> Result<(), Status> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        // A mirror of a static pod has no account: its node made it without asking.
        if str_at(pod, &["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some() {
            return Ok(());
        }
        let name = str_at(pod, &["spec", "serviceAccountName"]).unwrap_or("default").to_owned();
        let Some(account) = cluster.get("serviceaccounts", request.namespace, &name) else {
            let namespace = request.namespace;
            return Err(request.forbidden(&format!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
            )));
        };
        let spec = ensure_object(pod, "spec");
        spec["serviceAccountName"] = name.as_str().into();
        spec["serviceAccount"] = name.into();
        if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
            && account["imagePullSecrets"].is_array()
        {
            spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        let wanted = spec["automountServiceAccountToken"]
            .as_bool()
            .or(account["automountServiceAccountToken"].as_bool())
            .unwrap_or(true);
        if wanted {
            mount_token(spec, cluster.ids());
        }
        Ok(())
    }
}

fn mount_token(spec: &mut Value, ids: &dyn Ids) {
    let mounted = |c: &Value| {
        c["volumeMounts"].as_array().is_some_and(|m| m.iter().any(|m| m["mountPath"] == MOUNT_PATH))
    };
    let mut name = None;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if mounted(container) {
                continue;
            }
            let name = name.get_or_insert_with(|| format!("{VOLUME_PREFIX}{}", ids.suffix(5)));
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            push(container, "volumeMounts", mount);
        }
    }
    let Some(name) = name else { return };
    // An hour and seven seconds: a length nobody chooses by hand, so it can be told apart.
    let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    push(spec, "volumes", volume);
}

fn push(object: &mut Value, list: &str, item: Value) {
    match object.get_mut(list) {
        Some(Value::Array(items)) => items.push(item),
        _ => object[list] = Value::Array(vec![item]),
    }
}
