//! Rules for pod specs, whether a pod's own or a template's (kubernetes/kubernetes,
//! `pkg/apis/core/validation/validation.go`, `ValidatePodSpec` and what it calls).

mod annotations;
mod containers;
mod defaults;
mod dns;
mod env;
mod mounts;
mod probes;
mod projected;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
pub(super) mod sources;
pub(super) mod volumes;
pub(super) mod warnings;
mod windows;

use serde_json::Value;
use types::{FieldErrors, LabelSelector, Path, at, dns_label, dns_subdomain, validate_labels};

use super::check::*;
pub(super) use annotations::{is_mirror, validate_update as validate_annotations_update};
pub(super) use defaults::{
    default_pod, default_pod_spec, default_source, default_template, default_text, each,
};
use volumes::Volumes;

/// What the rules of one part of a pod need to know of the rest.
struct PodContext<'a> {
    spec: &'a Value,
    volumes: Volumes<'a>,
    grace: Option<i64>,
    host_users: bool,
}

/// What distinguishes the pod specs there are.
#[derive(Clone, Copy, Default)]
pub(super) struct Kind<'a> {
    /// The pod's name, empty for templates.
    pub(super) pod: &'a str,
    /// Whether it is a pod's own rather than a template's.
    pub(super) is_pod: bool,
    /// Claims that a StatefulSet makes for each of its pods.
    pub(super) claims: Option<&'a Value>,
}

/// Checks a pod's metadata and spec (`validatePodMetadataAndSpec`), the common rules of metadata apart.
pub(super) fn validate_pod(pod: &Value, errors: &mut FieldErrors) {
    let (spec, meta) = (Path::new("spec"), Path::new("metadata"));
    annotations::validate(pod, &meta.child("annotations"), errors);
    let name = at(pod, &["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
    validate_pod_spec(&pod["spec"], Kind { pod: name, is_pod: true, claims: None }, &spec, errors);
    if text(&pod["spec"], "serviceAccountName").is_empty() {
        let path = spec.child("volumes");
        for (i, volume) in list(&pod["spec"], "volumes").enumerate() {
            let Some(projected) = get(volume, "projected") else { continue };
            let path = path.index(i);
            let path = path.child("projected");
            let path = path.child("sources");
            for (i, _) in
                list(projected, "sources").enumerate().filter(|(_, s)| has(s, "serviceAccountToken"))
            {
                let why = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&path.index(i).child("serviceAccountToken"), why);
            }
        }
    }
    for field in ["containers", "initContainers"] {
        let path = spec.child(field);
        for (i, container) in list(&pod["spec"], field).enumerate() {
            containers::only_for_pods(container, &path.index(i), errors);
        }
    }
}

/// What a new pod is held to besides (`ValidatePodCreate`).
pub(super) fn validate_new_pod(pod: &Value, errors: &mut FieldErrors) {
    let path = Path::new("spec");
    let spec = &pod["spec"];
    if count(spec, "ephemeralContainers") > 0 {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(spec, "nodeName").is_empty() && count(spec, "schedulingGates") > 0 {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&path.child("nodeName"), why);
    }
    annotations::validate_match(pod, &path, errors);
}

fn validate_pod_spec(spec: &Value, kind: Kind<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let mut volumes = volumes::validate(spec, kind.pod, kind.is_pod, path, errors);
    for claim in kind.claims.and_then(Value::as_array).into_iter().flatten() {
        volumes.add_claim(at(claim, &["metadata", "name"]).and_then(Value::as_str).unwrap_or_default());
    }
    let host_users = spec.get("hostUsers") != Some(&Value::Bool(false));
    let pod = PodContext { spec, volumes, grace, host_users };
    resources::pod_claims(spec, path, errors);
    containers::validate(&pod, path, errors);
    resources::pod_level(spec, path, errors);
    host_network(spec, kind.is_pod, path, errors);
    required_one_of(spec, "restartPolicy", path, &["Always", "OnFailure", "Never"], errors);
    dns::policy(spec, path, errors);
    validate_labels(spec.get("nodeSelector"), &path.child("nodeSelector"), errors);
    security::validate_pod(spec, path, errors);
    scheduling::affinity(spec, path, errors);
    dns::config(spec, path, errors);
    scheduling::gates(spec, path, errors);
    scheduling::topology_spread(spec, path, errors);
    windows::validate_host_process(spec, path, errors);
    if !host_users {
        // Upstream writes two of these names so.
        for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if flag(spec, field) {
                errors.forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false");
            }
        }
    }
    optional_name(spec, "serviceAccountName", dns_subdomain, path, errors);
    optional_name(spec, "nodeName", dns_subdomain, path, errors);
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64) {
        in_range(seconds, 1, i64::from(i32::MAX), &path.child("activeDeadlineSeconds"), errors);
    }
    optional_name(spec, "hostname", dns_label, path, errors);
    optional_name(spec, "subdomain", dns_label, path, errors);
    dns::hostname_override(spec, path, errors);
    scheduling::tolerations(spec, path, errors);
    dns::host_aliases(spec, path, errors);
    optional_name(spec, "priorityClassName", dns_subdomain, path, errors);
    if let Some(class) = spec.get("runtimeClassName").and_then(Value::as_str) {
        name_is(class, dns_subdomain, &path.child("runtimeClassName"), errors);
    }
    if has(spec, "preemptionPolicy") {
        required_one_of(spec, "preemptionPolicy", path, &["PreemptLowerPriority", "Never"], errors);
    }
    if let Some(overhead) = get(spec, "overhead") {
        validate_overhead(overhead, &path.child("overhead"), errors);
    }
    windows::validate_os(spec, path, errors);
}

/// What a sandbox itself takes; also in RuntimeClasses.
pub(super) fn validate_overhead(overhead: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let limits = path.child("limits");
    for (name, value) in overhead.as_object().into_iter().flatten() {
        resources::container_resource(name, &limits.key(name), errors);
        resources::amount(name, value, &limits.key(name), errors);
    }
}

fn host_network(spec: &Value, is_pod: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    let path = path.child("containers");
    for (i, container) in list(spec, "containers").enumerate() {
        let path = path.index(i);
        let path = path.child("ports");
        for (i, port) in list(container, "ports").enumerate() {
            let host = int(port, "hostPort");
            if (is_pod || host != 0) && host != int(port, "containerPort") {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.index(i).child("hostPort"), host, why);
            }
        }
    }
}

/// Checks a template by itself (`ValidatePodTemplateSpec`).
pub(super) fn validate_template(template: &Value, kind: Kind<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let meta = get(template, "metadata");
    validate_labels(meta.and_then(|m| m.get("labels")), &path.child("labels"), errors);
    types::validate_annotations(meta.and_then(|m| m.get("annotations")), &path.child("annotations"), errors);
    annotations::validate(template, &path.child("annotations"), errors);
    let spec = path.child("spec");
    validate_pod_spec(&template["spec"], kind, &spec, errors);
    annotations::validate_match(template, &spec, errors);
    if count(&template["spec"], "ephemeralContainers") > 0 {
        errors.forbidden(
            &spec.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// The selector of a workload must select the pods that it makes.
pub(super) fn validate_selected(
    selector: &LabelSelector,
    template: &Value,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let labels = at(template, &["metadata", "labels"]);
    if !selector.is_everything() && !selector.matches_labels(labels) {
        let shown = labels.cloned().unwrap_or_default();
        errors.invalid(
            &path.child("metadata").child("labels"),
            shown,
            "`selector` does not match template `labels`",
        );
    }
}
