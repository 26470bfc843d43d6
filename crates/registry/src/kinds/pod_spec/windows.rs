//! What goes with which operating system (`validateWindows`, `validateLinux`,
//! `validateWindowsSecurityContextOptions`, `validateWindowsHostProcessPod`).

use serde_json::Value;
use types::{FieldErrors, Path, at, dns_subdomain};

use super::super::check::*;
use super::containers::each_container;

pub(super) fn validate_options(context: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(v) = get(context, "windowsOptions") else { return };
    let path = path.child("windowsOptions");
    if let Some(name) = v.get("gmsaCredentialSpecName").and_then(Value::as_str) {
        name_is(name, dns_subdomain, &path.child("gmsaCredentialSpecName"), errors);
    }
    if let Some(spec) = v.get("gmsaCredentialSpec").and_then(Value::as_str) {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, "", "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 * 1024 {
            errors.invalid(&path, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = v.get("runAsUserName").and_then(Value::as_str) {
        user_name(name, &path.child("runAsUserName"), errors);
    }
}

fn user_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut fault = |why: &str| errors.invalid(path, name, &format!("runAsUserName{why}"));
    if name.is_empty() {
        return fault(" cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return fault(" cannot contain control characters");
    }
    let (domain, user) = match name.split_once('\\') {
        None => (None, name),
        Some((_, rest)) if rest.contains('\\') => return fault(" cannot contain more than one backslash"),
        Some((domain, user)) => (Some(domain), user),
    };
    if domain.is_some_and(|d| d.len() >= 256) {
        fault("'s Domain length must be under 256 characters");
    }
    if domain.is_some_and(|d| !is_net_bios(d) && !is_domain(d)) {
        fault("'s Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        fault("'s User cannot be empty");
    } else if user.len() > 104 {
        fault("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        fault("'s User cannot contain only periods or spaces");
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        fault("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

fn is_net_bios(s: &str) -> bool {
    (1..=15).contains(&s.chars().count()) && !s.starts_with('.') && !s.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_domain(s: &str) -> bool {
    s.split('.').all(|label| {
        let b = label.as_bytes();
        (1..=63).contains(&b.len())
            && b[0].is_ascii_alphanumeric()
            && b[b.len() - 1].is_ascii_alphanumeric()
            && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    })
}

/// Containers that are processes of the host: all of a pod or none.
pub(super) fn validate_host_process(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let setting =
        |v: &Value| at(v, &["securityContext", "windowsOptions", "hostProcess"]).and_then(Value::as_bool);
    let pod = setting(spec);
    let (mut all, mut host) = (0, 0);
    each_container(spec, path, |container, path| {
        all += 1;
        let own = setting(container);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(
                &path.child("securityContext").child("windowsOptions").child("hostProcess"),
                own,
                &why,
            );
        }
        host += usize::from(own.or(pod) == Some(true));
    });
    if host == 0 {
        return;
    }
    if host != all {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", why);
    }
    if !flag(spec, "hostNetwork") {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, why);
    }
}

/// The pod's operating system, and what may be set under it.
pub(super) fn validate_os(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(os) = get(spec, "os") else { return };
    match text(os, "name") {
        "" => errors.required(&path.child("os").child("name"), "cannot be empty"),
        "linux" => linux(spec, path, errors),
        "windows" => windows(spec, path, errors),
        other => errors.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
}

fn linux(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if at(spec, &["securityContext", "windowsOptions"]).is_some() {
        errors.forbidden(&path.child("securityContext").child("windowsOptions"), WHY);
    }
    each_container(spec, path, |container, path| {
        if at(container, &["securityContext", "windowsOptions"]).is_some() {
            errors.forbidden(&path.child("securityContext").child("windowsOptions"), WHY);
        }
    });
}

fn windows(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const WHY: &str = "cannot be set for a windows pod";
    const POD: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for field in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"] {
        let set = has(spec, field) && (!matches!(field, "hostPID" | "hostIPC") || flag(spec, field));
        if set {
            errors.forbidden(&path.child(field), WHY);
        }
    }
    if let Some(context) = get(spec, "securityContext") {
        let path = path.child("securityContext");
        for field in POD.iter().filter(|f| has(context, f)) {
            errors.forbidden(&path.child(field), WHY);
        }
    }
    each_container(spec, path, |container, path| {
        let Some(context) = get(container, "securityContext") else { return };
        let path = path.child("securityContext");
        for field in CONTAINER.iter().filter(|f| has(context, f)) {
            errors.forbidden(&path.child(field), WHY);
        }
    });
}
