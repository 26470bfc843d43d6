//! Containers of each sort (`validateContainers`, `validateInitContainers`, `validateEphemeralContainers`).

use serde_json::Value;
use types::{FieldErrors, Path, at, dns_label, port_name};

use super::super::check::*;
use super::{PodContext, env, mounts, probes, resources, security};

const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Calls `each` with every container and the way to it.
pub(in super::super) fn each_container(
    spec: &Value,
    path: &Path<'_>,
    mut each: impl FnMut(&Value, &Path<'_>),
) {
    // Upstream visits the initial ones first.
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(field);
        for (i, container) in list(spec, field).enumerate() {
            each(container, &path.index(i));
        }
    }
}

pub(super) fn validate(pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    regular(pod, &path.child("containers"), errors);
    initial(pod, &path.child("initContainers"), errors);
    ephemeral(pod, &path.child("ephemeralContainers"), errors);
}

fn names_before<'a>(
    spec: &'a Value,
    lists: &'static [&'static str],
    field: &str,
    index: usize,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let own = list(spec, field).take(index).map(|c| text(c, "name"));
    lists.iter().flat_map(|l| list(spec, l).map(|c| text(c, "name"))).chain(own)
}

fn regular(pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(pod.spec, "containers") == 0 {
        return errors.required(path, "");
    }
    for (i, container) in list(pod.spec, "containers").enumerate() {
        let path = path.index(i);
        common(container, pod, &path, errors);
        let name = text(container, "name");
        if repeats(names_before(pod.spec, &[], "containers", i), name) {
            errors.duplicate(&path.child("name"), name);
        }
        probes::validate_lifecycle(container, pod, &path, errors);
        probes::validate(container, pod, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(list(pod.spec, "containers"), path, errors);
}

fn initial(pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, container) in list(pod.spec, "initContainers").enumerate() {
        let here = path.index(i);
        common(container, pod, &here, errors);
        restart_policy(container, &here, errors);
        let name = text(container, "name");
        if !name.is_empty() && repeats(names_before(pod.spec, &LISTS[..1], "initContainers", i), name) {
            errors.duplicate(&here.child("name"), name);
        }
        host_ports(std::iter::once(container), path, errors);
        if text(container, "restartPolicy") == "Always" {
            probes::validate_lifecycle(container, pod, &here, errors);
            probes::validate(container, pod, &here, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(container, field) {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(&here.child(field), why);
            }
        }
    }
}

fn ephemeral(pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    const ALLOWED: &[&str] = &[
        "name",
        "image",
        "command",
        "args",
        "workingDir",
        "envFrom",
        "env",
        "volumeMounts",
        "volumeDevices",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "imagePullPolicy",
        "securityContext",
        "stdin",
        "stdinOnce",
        "tty",
        "targetContainerName",
    ];
    const WHY: &str = "cannot be set for an Ephemeral Container";
    for (i, container) in list(pod.spec, "ephemeralContainers").enumerate() {
        let path = path.index(i);
        common(container, pod, &path, errors);
        only_for_pods(container, &path, errors);
        let name = text(container, "name");
        if repeats(names_before(pod.spec, &LISTS[..2], "ephemeralContainers", i), name) {
            errors.duplicate(&path.child("name"), name);
        }
        let target = text(container, "targetContainerName");
        let mut others = LISTS[..2].iter().flat_map(|l| list(pod.spec, l)).map(|c| text(c, "name"));
        if !target.is_empty() && !others.any(|n| n == target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        for (field, value) in container.as_object().into_iter().flatten() {
            if !ALLOWED.contains(&field.as_str()) && !same(Some(value), None) {
                errors.forbidden(&path.child(field), WHY);
            }
        }
        let mounts = path.child("volumeMounts");
        for (i, mount) in list(container, "volumeMounts").enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    errors.forbidden(&mounts.index(i).child(field), WHY);
                }
            }
        }
    }
}

/// What only pods, not templates, are held to.
pub(super) fn only_for_pods(container: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let image = text(container, "image");
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn common(container: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    required_name(container, "name", dns_label, path, errors);
    required(container, "image", path, errors);
    required_one_of(container, "terminationMessagePolicy", path, &["File", "FallbackToLogsOnError"], errors);
    ports(container, &path.child("ports"), errors);
    env::validate(container, path, errors);
    mounts::validate(container, pod, path, errors);
    required_one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"], errors);
    if let Some(given) = get(container, "resources") {
        resources::validate(given, resources::Scope::Container, pod.spec, &path.child("resources"), errors);
    }
    resize_policy(container, pod, &path.child("resizePolicy"), errors);
    if let Some(context) = get(container, "securityContext") {
        security::validate_container(context, pod, &path.child("securityContext"), errors);
    }
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, port) in list(container, "ports").enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let found = port_name(name);
            let good = found.is_empty();
            faults(found, name, &path.child("name"), errors);
            let before = list(container, "ports").take(i).map(|p| text(p, "name"));
            if good && repeats(before, name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        match int(port, "containerPort") {
            0 => errors.required(&path.child("containerPort"), ""),
            n => super::super::check::port(n, &path.child("containerPort"), errors),
        }
        if int(port, "hostPort") != 0 {
            super::super::check::port(int(port, "hostPort"), &path.child("hostPort"), errors);
        }
        required_one_of(port, "protocol", &path, PROTOCOLS, errors);
    }
}

/// No two containers may have the same port of the node.
fn host_ports<'a>(containers: impl Iterator<Item = &'a Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut taken: Vec<(&str, &str, i64)> = Vec::new();
    for (c, container) in containers.enumerate() {
        for (p, port) in list(container, "ports").enumerate() {
            let key = (text(port, "protocol"), text(port, "hostIP"), int(port, "hostPort"));
            if key.2 == 0 {
                continue;
            }
            if taken.contains(&key) {
                let shown = format!("{}/{}/{}", key.0, key.1, key.2);
                errors.duplicate(&path.index(c).child("ports").index(p).child("hostPort"), shown);
            } else {
                taken.push(key);
            }
        }
    }
}

fn restart_policy(container: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    one_of(container, "restartPolicy", path, &["Always", "Never", "OnFailure"], errors);
    let rules = count(container, "restartPolicyRules");
    if rules == 0 {
        return;
    }
    if !has(container, "restartPolicy") {
        errors
            .required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
    }
    let path = path.child("restartPolicyRules");
    if rules > 20 {
        errors.too_many(&path, rules, 20);
    }
    for (i, rule) in list(container, "restartPolicyRules").enumerate() {
        let path = path.index(i);
        let action = text(rule, "action");
        if !["Restart", "RestartAllContainers"].contains(&action) {
            errors.not_supported(&path.child("action"), action, &["Restart", "RestartAllContainers"]);
        }
        let Some(codes) = get(rule, "exitCodes") else {
            errors.required(&path.child("exitCodes"), "must be specified");
            continue;
        };
        let path = path.child("exitCodes");
        if !["In", "NotIn"].contains(&text(codes, "operator")) {
            errors.not_supported(&path.child("operator"), text(codes, "operator"), &["In", "NotIn"]);
        }
        if count(codes, "values") > 255 {
            errors.too_many(&path.child("values"), count(codes, "values"), 255);
        }
    }
}

fn resize_policy(container: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    const POLICIES: &[&str] = &["NotRequired", "RestartContainer"];
    for (i, policy) in list(container, "resizePolicy").enumerate() {
        let resource = text(policy, "resourceName");
        if repeats(list(container, "resizePolicy").take(i).map(|p| text(p, "resourceName")), resource) {
            errors.duplicate(&path.index(i), resource);
        }
        match resource {
            "cpu" | "memory" => {}
            "" => errors.required(path, ""),
            other => errors.not_supported(path, other, &["cpu", "memory"]),
        }
        let restart = text(policy, "restartPolicy");
        match restart {
            "" => errors.required(path, ""),
            other if !POLICIES.contains(&other) => errors.not_supported(path, other, POLICIES),
            _ => {}
        }
        let never = match at(container, &["restartPolicy"]) {
            Some(own) => own == "Never",
            None => text(pod.spec, "restartPolicy") == "Never",
        };
        if never && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}
