use base::Ids;
use serde_json::{Value, json};
use types::{Status, ensure_object, str_at};

use super::common::{list, text};
use super::node_restriction::references;
use crate::plugin::{Draft, Final, Plugin};
use crate::request::{Operation, Request};

/// Every pod runs as a service account and finds its token in a volume (kubernetes/kubernetes,
/// `plugin/pkg/admission/serviceaccount/admission.go`).
pub(crate) struct ServiceAccount;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit(&self, Draft { request, object: pod, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        // A mirror of a static pod has no account: its node made it without asking.
        if is_mirror(pod) {
            return check_mirror(request, pod);
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
        if str_at(&account, &["metadata", "annotations", MOUNTABLE]) == Some("true") {
            check_secrets(request, spec, &account)?;
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

    fn validate(&self, Final { request, object, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let creates = request.is("", "pods") && request.operation == Operation::Create;
        let debugs = request.is_part("", "pods", "ephemeralcontainers");
        if !creates && !debugs {
            return Ok(());
        }
        if is_mirror(pod) {
            return if creates { check_mirror(request, pod) } else { Ok(()) };
        }
        let name = str_at(pod, &["spec", "serviceAccountName"]).unwrap_or("default");
        match cluster.get("serviceaccounts", request.namespace, name) {
            Some(account) if str_at(&account, &["metadata", "annotations", MOUNTABLE]) == Some("true") => {
                check_secrets(request, &pod["spec"], &account)
            }
            Some(_) => Ok(()),
            None if debugs => Ok(()),
            None => {
                let namespace = request.namespace;
                Err(request.forbidden(&format!(
                    "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
                )))
            }
        }
    }
}

/// Accounts with this annotation name the secrets that their pods may use.
const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}

/// A mirror pod names nothing of the API: its node runs it whatever the API says.
fn check_mirror(request: &Request<'_>, pod: &Value) -> Result<(), Status> {
    if str_at(pod, &["spec", "serviceAccountName"]).is_some() {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    if references(pod, "secret", "secretRef", "secretKeyRef") {
        return Err(request.forbidden("a mirror pod may not reference secrets"));
    }
    let tokens = |v: &Value| list(v, &["projected", "sources"]).any(|s| !s["serviceAccountToken"].is_null());
    if list(pod, &["spec", "volumes"]).any(tokens) {
        return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

/// `limitSecretReferences`.
fn check_secrets(request: &Request<'_>, spec: &Value, account: &Value) -> Result<(), Status> {
    let own = text(account, &["metadata", "name"]);
    let mountable = |name: &str| list(account, &["secrets"]).any(|s| s["name"] == name);
    for volume in list(spec, &["volumes"]) {
        let name = text(volume, &["secret", "secretName"]);
        if !name.is_empty() && !mountable(name) {
            return Err(request.forbidden(&format!(
                "volume with secret.secretName=\"{name}\" is not allowed because service account {own} does not reference that secret"
            )));
        }
    }
    for (field, what) in [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ] {
        for container in list(spec, &[field]) {
            for env in list(container, &["env"]) {
                let name = text(env, &["valueFrom", "secretKeyRef", "name"]);
                if !name.is_empty() && !mountable(name) {
                    return Err(request.forbidden(&format!(
                        "{what} {} with envVar {} referencing secret.secretName=\"{name}\" is not allowed because service account {own} does not reference that secret",
                        text(container, &["name"]),
                        text(env, &["name"])
                    )));
                }
            }
        }
    }
    let pullable = |name: &Value| list(account, &["imagePullSecrets"]).any(|s| s["name"] == *name);
    for (i, secret) in list(spec, &["imagePullSecrets"]).enumerate() {
        if !pullable(&secret["name"]) {
            return Err(request.forbidden(&format!(
                "imagePullSecrets[{i}].name=\"{}\" is not allowed because service account {own} does not reference that imagePullSecret",
                text(secret, &["name"])
            )));
        }
    }
    Ok(())
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
