//! What a pod names of the API: a pod that runs without it can name nothing (kubernetes/kubernetes, `pkg/api/pod/util.go`,
//! `HasAPIObjectReference`).

use serde_json::Value;

fn list<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of[field].as_array().into_iter().flatten()
}

/// What the pod names, as upstream words it; nothing if it stands alone.
pub(super) fn reference(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if names_secrets(spec) {
        return Some("secrets");
    }
    if names(spec, "configMap", "configMapRef", "configMapKeyRef") {
        return Some("configmaps");
    }
    if list(spec, "resourceClaims").next().is_some() {
        return Some("resourceclaims");
    }
    list(spec, "volumes").find_map(|volume| {
        let has = |field: &str| !volume[field].is_null();
        match () {
            () if has("csi") => Some("csidrivers (via CSI volumes)"),
            () if has("glusterfs") => Some("endpoints (via glusterFS volumes)"),
            () if has("persistentVolumeClaim") => Some("persistentvolumeclaims"),
            () if has("ephemeral") => Some("persistentvolumeclaims (via ephemeral volumes)"),
            () => list(&volume["projected"], "sources").find_map(|source| {
                let has = |field: &str| !source[field].is_null();
                match () {
                    () if has("serviceAccountToken") => Some("serviceaccounts (via projected volumes)"),
                    () if has("clusterTrustBundle") => Some("clustertrustbundles"),
                    () if has("podCertificate") => Some("podcertificates"),
                    () => None,
                }
            }),
        }
    })
}

fn names_secrets(spec: &Value) -> bool {
    const DRIVERS: [&str; 7] = ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
    names(spec, "secret", "secretRef", "secretKeyRef")
        || list(spec, "imagePullSecrets").next().is_some()
        || list(spec, "volumes").any(|volume| {
            !volume["azureFile"].is_null()
                || !volume["csi"]["nodePublishSecretRef"].is_null()
                || DRIVERS.iter().any(|driver| !volume[driver]["secretRef"].is_null())
        })
}

/// Whether volumes or environments name an object of a sort.
fn names(spec: &Value, volume: &str, all: &str, key: &str) -> bool {
    let volumes = list(spec, "volumes")
        .any(|v| !v[volume].is_null() || list(&v["projected"], "sources").any(|s| !s[volume].is_null()));
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    volumes
        || containers.iter().flat_map(|field| list(spec, field)).any(|container| {
            list(container, "env").any(|e| !e["valueFrom"][key].is_null())
                || list(container, "envFrom").any(|e| !e[all].is_null())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_needs_the_api_is_found() {
        let volume = |source: Value| {
            let mut volume = source;
            volume["name"] = "v".into();
            json!({"volumes": [volume]})
        };
        let container = |fields: Value| json!({"containers": [fields]});
        for (spec, want) in [
            (json!({"serviceAccountName": "x"}), Some("serviceaccounts")),
            (json!({"imagePullSecrets": [{"name": "x"}]}), Some("secrets")),
            (volume(json!({"secret": {}})), Some("secrets")),
            (volume(json!({"rbd": {"secretRef": {}}})), Some("secrets")),
            (volume(json!({"projected": {"sources": [{"secret": {}}]}})), Some("secrets")),
            (container(json!({"envFrom": [{"secretRef": {"name": "x"}}]})), Some("secrets")),
            (container(json!({"env": [{"valueFrom": {"configMapKeyRef": {}}}]})), Some("configmaps")),
            (volume(json!({"configMap": {}})), Some("configmaps")),
            (json!({"resourceClaims": [{"name": "x"}]}), Some("resourceclaims")),
            (volume(json!({"csi": {}})), Some("csidrivers (via CSI volumes)")),
            (volume(json!({"persistentVolumeClaim": {}})), Some("persistentvolumeclaims")),
            (volume(json!({"ephemeral": {}})), Some("persistentvolumeclaims (via ephemeral volumes)")),
            (
                volume(json!({"projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {}}]}})),
                Some("serviceaccounts (via projected volumes)"),
            ),
            (
                volume(json!({"projected": {"sources": [{"clusterTrustBundle": {}}]}})),
                Some("clustertrustbundles"),
            ),
            (volume(json!({"projected": {"sources": [{"downwardAPI": {}}]}})), None),
            (volume(json!({"hostPath": {"path": "/"}})), None),
            (container(json!({"env": [{"valueFrom": {"fieldRef": {}}}]})), None),
        ] {
            assert_eq!(reference(&json!({"spec": spec})), want, "{spec}");
        }
    }
}
