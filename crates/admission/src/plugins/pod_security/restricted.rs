//! The level `restricted` (`k8s.io/pod-security-admission/policy`, the checks of `LevelRestricted`).

use std::collections::BTreeSet;

use serde_json::Value;
use types::at;

use super::super::common::{list, text};
use super::baseline::explicit_seccomp;
use super::checks::{Fault, Pod, named, plural, quoted};

const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Every fault beyond the baseline, in the order of the checks' names.
pub(super) fn check(pod: &Pod<'_>) -> Vec<Fault> {
    [escalation(pod), capabilities(pod), volumes(pod), non_root(pod), user(pod), seccomp(pod)]
        .into_iter()
        .flatten()
        .collect()
}

fn escalation(pod: &Pod<'_>) -> Option<Fault> {
    if !pod.standard.since(8) || pod.is_windows() {
        return None;
    }
    let off = Some(&Value::Bool(false));
    let those = pod.those(|c| at(c, &["securityContext", "allowPrivilegeEscalation"]) != off);
    (!those.is_empty()).then(|| {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&those));
        Fault::new("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(pod: &Pod<'_>) -> Option<Fault> {
    if !pod.standard.since(22) || pod.is_windows() {
        return None;
    }
    let path = ["securityContext", "capabilities"];
    let keeps = pod.those(|c| !list(c, &[path[0], path[1], "drop"]).any(|d| d == "ALL"));
    let added = |c: &Value| -> Vec<String> {
        let all = list(c, &[path[0], path[1], "add"]).filter_map(Value::as_str);
        all.filter(|c| *c != "NET_BIND_SERVICE").map(str::to_owned).collect()
    };
    let adds = pod.those(|c| !added(c).is_empty());
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeps)));
    }
    if !adds.is_empty() {
        let all: BTreeSet<String> = pod.containers().flat_map(added).collect();
        let all = quoted(&all);
        details.push(format!("{} must not include {all} in securityContext.capabilities.add", named(&adds)));
    }
    (!details.is_empty()).then(|| Fault::new("unrestricted capabilities", details.join("; ")))
}

fn volumes(pod: &Pod<'_>) -> Option<Fault> {
    let source = |v: &Value| -> String {
        let fields = v.as_object().into_iter().flatten();
        fields.map(|(k, _)| k.as_str()).find(|k| *k != "name").unwrap_or("unknown").to_owned()
    };
    let bad: Vec<&Value> =
        list(pod.spec, &["volumes"]).filter(|v| !VOLUMES.iter().any(|kind| !v[kind].is_null())).collect();
    if bad.is_empty() {
        return None;
    }
    let types: BTreeSet<String> = bad.iter().map(|v| source(v)).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(bad.iter().map(|v| text(v, &["name"]))),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quoted(&types)
    );
    Some(Fault::new("restricted volume types", detail))
}

fn non_root(pod: &Pod<'_>) -> Option<Fault> {
    if pod.own_users() {
        return None;
    }
    let says = |s: &Value| at(s, &["runAsNonRoot"]).and_then(Value::as_bool);
    let reason = "runAsNonRoot != true";
    if let Some(setters) = pod.setters(|s| says(s) == Some(false)) {
        return Some(Fault::new(
            reason,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        ));
    }
    if at(pod.spec, &["securityContext"]).and_then(says) == Some(true) {
        return None;
    }
    let those = pod.those(|c| at(c, &["securityContext"]).and_then(says).is_none());
    (!those.is_empty()).then(|| {
        Fault::new(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&those)))
    })
}

fn user(pod: &Pod<'_>) -> Option<Fault> {
    if !pod.standard.since(23) || pod.own_users() {
        return None;
    }
    let setters = pod.setters(|s| at(s, &["runAsUser"]).and_then(Value::as_i64) == Some(0))?;
    Some(Fault::new("runAsUser=0", format!("{setters} must not set runAsUser=0")))
}

fn seccomp(pod: &Pod<'_>) -> Option<Fault> {
    if !pod.standard.since(19) || pod.is_windows() {
        return None;
    }
    if let Some(fault) = explicit_seccomp(pod) {
        return Some(fault);
    }
    let path = ["securityContext", "seccompProfile", "type"];
    if at(pod.spec, &path).is_some() {
        return None;
    }
    let those = pod.those(|c| at(c, &path).is_none());
    (!those.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&those)
        );
        Fault::new("seccompProfile", detail)
    })
}
