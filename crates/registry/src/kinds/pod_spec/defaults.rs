//! Defaults of pod templates (kubernetes/kubernetes, `pkg/apis/core/v1/defaults.go`, `SetDefaults_PodSpec` and
//! what it calls).

use serde_json::{Value, json};
use types::{at, at_mut, ensure_object, set_default, str_at};

/// The lists of a pod spec that hold containers.
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills in the template of a workload.
pub(in super::super) fn default_template(spec: &mut Value) {
    default_pod_spec(ensure_object(ensure_object(spec, "template"), "spec"));
}

/// Fills in a pod spec, whether a pod's own or a template's.
pub(in super::super) fn default_pod_spec(spec: &mut Value) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "schedulerName", "default-scheduler");
    ensure_object(spec, "securityContext");
    // The old name of the field is kept equal to the new one, as upstream's conversion does.
    if let Some(name) = str_at(spec, &["serviceAccountName"]).or(str_at(spec, &["serviceAccount"])) {
        let name = name.to_owned();
        spec["serviceAccountName"] = name.clone().into();
        spec["serviceAccount"] = name.into();
    }
    for list in CONTAINER_LISTS {
        for container in each(spec, list) {
            default_container(container);
        }
    }
    for volume in each(spec, "volumes") {
        default_volume(volume);
    }
}

/// What is filled in for pods only, not for templates (`SetDefaults_Pod`).
pub(in super::super) fn default_pod(spec: &mut Value) {
    set_default(spec, "enableServiceLinks", true);
    let host_network = spec["hostNetwork"] == true;
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            default_requests(container);
            for port in each(container, "ports").filter(|_| host_network) {
                if port["hostPort"].as_i64().unwrap_or(0) == 0 {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
    }
}

/// Sets a text that is absent or empty.
pub(in super::super) fn default_text(value: &mut Value, key: &str, to: &str) {
    if str_at(value, &[key]).is_none() {
        value[key] = to.into();
    }
}

/// The elements of a list field, to change.
pub(in super::super) fn each<'a>(value: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

/// `latest` or no tag at all means that the image may change under its name.
fn default_pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn default_container(container: &mut Value) {
    let policy = default_pull_policy(str_at(container, &["image"]).unwrap_or_default());
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    ensure_object(container, "resources");
    for port in each(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for env in each(container, "env") {
        if let Some(field) = at_mut(env, &["valueFrom", "fieldRef"]) {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(key) = at_mut(env, &["valueFrom", "fileKeyRef"]) {
            set_default(key, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = at_mut(container, &[probe]) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            // Zero counts as unset, as it does upstream.
            if probe[field].as_i64().unwrap_or(0) == 0 {
                probe[field] = value.into();
            }
        }
        default_http_get(probe);
        if let Some(grpc) = at_mut(probe, &["grpc"]) {
            set_default(grpc, "service", "");
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = at_mut(container, &["lifecycle", hook]) {
            default_http_get(hook);
        }
    }
}

fn default_http_get(handler: &mut Value) {
    if let Some(get) = at_mut(handler, &["httpGet"]) {
        default_text(get, "path", "/");
        default_text(get, "scheme", "HTTP");
    }
}

/// A limit without a request asks for as much as the limit.
fn default_requests(container: &mut Value) {
    let Some(limits) = at(container, &["resources", "limits"]).and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = ensure_object(&mut container["resources"], "requests");
    for (name, limit) in limits {
        set_default(requests, &name, limit);
    }
}

fn default_volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |v| v.keys().filter(|k| *k != "name").count());
    if sources == 0 {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = at_mut(volume, &[source]) {
            set_default(source, "defaultMode", 0o644);
            default_field_refs(source);
        }
    }
    default_source(volume);
    if let Some(image) = at_mut(volume, &["image"]) {
        let policy = default_pull_policy(str_at(image, &["reference"]).unwrap_or_default());
        default_text(image, "pullPolicy", policy);
    }
    if let Some(claim) = at_mut(volume, &["ephemeral", "volumeClaimTemplate"]) {
        set_default(ensure_object(claim, "spec"), "volumeMode", "Filesystem");
    }
    if let Some(projected) = at_mut(volume, &["projected"]) {
        for source in each(projected, "sources") {
            if let Some(token) = at_mut(source, &["serviceAccountToken"]) {
                set_default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = at_mut(source, &["downwardAPI"]) {
                default_field_refs(downward);
            }
        }
    }
}

/// What sources of pods' volumes and of PersistentVolumes have in common.
pub(in super::super) fn default_source(volume: &mut Value) {
    if let Some(path) = at_mut(volume, &["hostPath"]) {
        set_default(path, "type", "");
    }
    if let Some(iscsi) = at_mut(volume, &["iscsi"]) {
        default_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = at_mut(volume, &["rbd"]) {
        default_text(rbd, "pool", "rbd");
        default_text(rbd, "user", "admin");
        default_text(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(scale) = at_mut(volume, &["scaleIO"]) {
        default_text(scale, "storageMode", "ThinProvisioned");
        default_text(scale, "fsType", "xfs");
    }
    if let Some(disk) = at_mut(volume, &["azureDisk"]) {
        set_default(disk, "cachingMode", "ReadWrite");
        set_default(disk, "kind", "Shared");
        set_default(disk, "fsType", "ext4");
        set_default(disk, "readOnly", false);
    }
}

fn default_field_refs(source: &mut Value) {
    for item in each(source, "items") {
        if let Some(field) = at_mut(item, &["fieldRef"]) {
            default_text(field, "apiVersion", "v1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("web", "Always"),
            ("web:latest", "Always"),
            ("web:1", "IfNotPresent"),
            ("host:5000/web", "Always"),
            ("host:5000/web:1", "IfNotPresent"),
            ("web@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn requests_follow_limits() {
        let mut spec = json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"},
            "requests": {"cpu": "500m"}}}]});
        default_pod_spec(&mut spec);
        assert_eq!(
            spec["containers"][0]["resources"]["requests"],
            json!({"cpu": "500m"}),
            "a template's are left"
        );
        default_pod(&mut spec);
        assert_eq!(spec["containers"][0]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(spec["restartPolicy"], "Always");
    }
}
