//! Security contexts of pods and containers (`ValidateSecurityContext`, `validatePodSpecSecurityContext`).

use serde_json::Value;
use types::{FieldErrors, Path, at};

use super::super::check::*;
use super::{PodContext, windows};

pub(super) fn validate_container(v: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    id(v, "runAsUser", path, errors);
    id(v, "runAsGroup", path, errors);
    one_of(v, "procMount", path, &["Default", "Unmasked"], errors);
    if text(v, "procMount") == "Unmasked" && pod.host_users {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.invalid(&path.child("procMount"), "Unmasked", why);
    }
    seccomp(v, path, errors);
    if v.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if flag(v, "privileged") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, v.clone(), why);
        }
        let added = get(v, "capabilities").map(|c| texts(c, "add")).into_iter().flatten();
        for _ in added.filter(|c| *c == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, v.clone(), why);
        }
    }
    windows::validate_options(v, path, errors);
    app_armor(v, path, errors);
}

pub(super) fn validate_pod(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let path = path.child("securityContext");
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    let Some(v) = get(spec, "securityContext") else { return };
    let path = path.child("securityContext");
    id(v, "fsGroup", &path, errors);
    id(v, "runAsUser", &path, errors);
    id(v, "runAsGroup", &path, errors);
    let groups = path.child("supplementalGroups");
    for (i, group) in list(v, "supplementalGroups").enumerate() {
        in_range(group.as_i64().unwrap_or_default(), 0, i64::from(i32::MAX), &groups.index(i), errors);
    }
    sysctls(v, spec, &path.child("sysctls"), errors);
    one_of(v, "fsGroupChangePolicy", &path, &["Always", "OnRootMismatch"], errors);
    seccomp(v, &path, errors);
    windows::validate_options(v, &path, errors);
    app_armor(v, &path, errors);
    one_of(v, "supplementalGroupsPolicy", &path, &["Merge", "Strict"], errors);
    one_of(v, "seLinuxChangePolicy", &path, &["MountOption", "Recursive"], errors);
}

fn seccomp(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(profile) = get(v, "seccompProfile") else { return };
    let path = path.child("seccompProfile");
    let kind = text(profile, "type");
    match kind {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        other => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"])
        }
    }
    let path = path.child("localhostProfile");
    match (kind, at(profile, &["localhostProfile"]).and_then(Value::as_str)) {
        ("Localhost", None) => errors.required(&path, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(place)) => descending_path(place, &path, errors),
        (_, Some(_)) => {
            errors.invalid(&path, profile.clone(), "can only be set when seccomp type is Localhost");
        }
        (_, None) => {}
    }
}

fn app_armor(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(profile) = get(v, "appArmorProfile") else { return };
    let path = path.child("appArmorProfile");
    let local = path.child("localhostProfile");
    let name = at(profile, &["localhostProfile"]).and_then(Value::as_str);
    match text(profile, "type") {
        "Localhost" => match name {
            Some(name) if !name.trim().is_empty() || name.is_empty() => {
                if name.is_empty() {
                    errors.required(&local, "must be set when AppArmor type is Localhost");
                } else if name.trim() != name {
                    errors.invalid(&local, name, "must not be padded with whitespace");
                }
                if name.len() > 4095 {
                    errors.too_long(&local, 4095);
                }
            }
            Some(name) => errors.invalid(&local, name, "must not be padded with whitespace"),
            None => errors.required(&local, "must be set when AppArmor type is Localhost"),
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = name {
                errors.invalid(&local, name, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        other => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"])
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |s: &str| {
        let b = s.as_bytes();
        !b.is_empty()
            && alnum(b[0])
            && alnum(b[b.len() - 1])
            && b.iter().all(|&c| alnum(c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

/// The kernel namespace that a sysctl lives in (`component-helpers/node/util/sysctl/namespace.go`).
fn sysctl_namespace(name: &str) -> &'static str {
    let dotted = name.replace('/', ".");
    match dotted.as_str() {
        "kernel.sem" => "ipc",
        n if n.starts_with("kernel.shm") || n.starts_with("kernel.msg") || n.starts_with("fs.mqueue.") => {
            "ipc"
        }
        n if n.starts_with("net.") => "net",
        _ => "",
    }
}

fn sysctls(v: &Value, spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, sysctl) in list(v, "sysctls").enumerate() {
        let path = path.index(i);
        let path = path.child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl_name(name) {
            errors.invalid(&path, name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if repeats(list(v, "sysctls").take(i).map(|s| text(s, "name")), name) {
            errors.duplicate(&path, name);
        }
        match sysctl_namespace(name) {
            "net" if flag(spec, "hostNetwork") => {
                errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
            }
            "ipc" if flag(spec, "hostIPC") => {
                errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
            }
            _ => {}
        }
    }
}
