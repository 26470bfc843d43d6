//! Probes and lifecycle hooks (`validateProbe`, `validateHandler`).

use serde_json::Value;
use types::{FieldErrors, Path, http_header_name};

use super::super::check::*;
use super::PodContext;

pub(super) fn validate(container: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = get(container, name) else { continue };
        let path = path.child(name);
        handler(probe, pod, &["exec", "httpGet", "tcpSocket", "grpc"], &path, errors);
        for field in
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            not_negative(probe, field, &path, errors);
        }
        let grace = probe.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
        if let Some(seconds) = grace.filter(|s| *s <= 0) {
            let why = "must be greater than 0";
            errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, why);
        }
        if name == "readinessProbe" {
            if let Some(seconds) = grace {
                let why = "must not be set for readinessProbes";
                errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, why);
            }
        } else if int(probe, "successThreshold") != 1 {
            errors.invalid(&path.child("successThreshold"), int(probe, "successThreshold"), "must be 1");
        }
    }
}

pub(super) fn validate_lifecycle(
    container: &Value,
    pod: &PodContext<'_>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let Some(lifecycle) = get(container, "lifecycle") else { return };
    let path = path.child("lifecycle");
    for name in ["postStart", "preStop"] {
        if let Some(hook) = get(lifecycle, name) {
            handler(hook, pod, &["exec", "httpGet", "tcpSocket", "sleep"], &path.child(name), errors);
        }
    }
    if let Some(signal) = get(lifecycle, "stopSignal").and_then(Value::as_str) {
        stop_signal(signal, pod, &path.child("stopSignal"), errors);
    }
}

fn stop_signal(signal: &str, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    match types::at(pod.spec, &["os", "name"]).and_then(Value::as_str) {
        None => errors.forbidden(path, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") if !["SIGTERM", "SIGKILL"].contains(&signal) => {
            errors.not_supported(path, signal, &["SIGKILL", "SIGTERM"]);
        }
        _ if !SIGNALS.contains(&signal) && !is_realtime(signal) => {
            errors.not_supported(path, signal, SIGNALS);
        }
        _ => {}
    }
}

/// `SIGRTMIN`, `SIGRTMIN+1` to `+15`, `SIGRTMAX-1` to `-14` and `SIGRTMAX`.
fn is_realtime(signal: &str) -> bool {
    let within = |rest: &str, sign: char, most: u8| {
        rest.is_empty()
            || rest.strip_prefix(sign).and_then(|n| n.parse().ok()).is_some_and(|n| (1..=most).contains(&n))
    };
    signal.strip_prefix("SIGRTMIN").is_some_and(|rest| within(rest, '+', 15))
        || signal.strip_prefix("SIGRTMAX").is_some_and(|rest| within(rest, '-', 14))
}

const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn handler(value: &Value, pod: &PodContext<'_>, kinds: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = get(value, kind) else { continue };
        let path = path.child(kind);
        if found {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" if count(action, "command") == 0 => errors.required(&path.child("command"), ""),
            "exec" => {}
            "httpGet" => http_get(action, &path, errors),
            "sleep" => sleep(action, pod, &path, errors),
            _ => port_or_name(action.get("port"), &path.child("port"), errors),
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(action: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    required(action, "path", path, errors);
    port_or_name(action.get("port"), &path.child("port"), errors);
    if !["HTTP", "HTTPS"].contains(&text(action, "scheme")) {
        errors.not_supported(&path.child("scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
    }
    for header in list(action, "httpHeaders") {
        name_is(text(header, "name"), http_header_name, &path.child("httpHeaders"), errors);
    }
}

fn sleep(action: &Value, pod: &PodContext<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let seconds = int(action, "seconds");
    if let Some(grace) = pod.grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(path, seconds, &why);
    }
}
