//! The level `baseline` (`k8s.io/pod-security-admission/policy`, the checks of `LevelBaseline`).

use std::collections::BTreeSet;

use serde_json::Value;
use types::at;

use super::super::common::{entries, list, text};
use super::checks::{Fault, Pod, named, plural, quoted};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// By the minor version since which they are harmless.
const SYSCTLS: [(u32, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

/// Every fault, in the order of the checks' names. `overridden` leaves out what the restricted level says better.
pub(super) fn check(pod: &Pod<'_>, overridden: bool) -> Vec<Fault> {
    let strict = |fault: Option<Fault>| if overridden { None } else { fault };
    [
        app_armor(pod),
        strict(capabilities(pod)),
        host_namespaces(pod),
        strict(host_paths(pod)),
        host_ports(pod),
        host_probes(pod),
        privileged(pod),
        proc_mount(pod),
        se_linux(pod),
        strict(seccomp(pod)),
        sysctls(pod),
        windows(pod),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn app_armor(pod: &Pod<'_>) -> Option<Fault> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let harmless = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let mut details: Vec<String> = entries(pod.metadata, &["annotations"])
        .filter(|(key, _)| key.starts_with(PREFIX))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !harmless(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let path = ["appArmorProfile", "type"];
    let bad = |value: &str| !matches!(value, "RuntimeDefault" | "Localhost");
    let values = pod.values(&path, bad);
    let mut count = details.len();
    if let Some(setters) = pod.setters(|s| at(s, &path).and_then(Value::as_str).is_some_and(bad)) {
        count += values.len();
        details.push(format!("{setters} must not set AppArmor profile type to {}", quoted(&values)));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count);
    (!details.is_empty()).then(|| Fault::new(reason, details.join(", ")))
}

fn capabilities(pod: &Pod<'_>) -> Option<Fault> {
    let added = |c: &Value| -> Vec<String> {
        let all = list(c, &["securityContext", "capabilities", "add"]).filter_map(Value::as_str);
        all.filter(|c| !CAPABILITIES.contains(c)).map(str::to_owned).collect()
    };
    let those = pod.those(|c| !added(c).is_empty());
    let all: BTreeSet<String> = pod.containers().flat_map(added).collect();
    (!those.is_empty()).then(|| {
        let detail = format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&those),
            quoted(&all)
        );
        Fault::new("non-default capabilities", detail)
    })
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Fault> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| Fault::new("host namespaces", set.join(", ")))
}

fn host_paths(pod: &Pod<'_>) -> Option<Fault> {
    let volumes: Vec<&str> = list(pod.spec, &["volumes"])
        .filter(|v| !v["hostPath"].is_null())
        .map(|v| text(v, &["name"]))
        .collect();
    (!volumes.is_empty()).then(|| {
        let detail = format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(&volumes));
        Fault::new("hostPath volumes", detail)
    })
}

fn host_ports(pod: &Pod<'_>) -> Option<Fault> {
    let ports = |c: &Value| -> Vec<String> {
        let all = list(c, &["ports"]).filter_map(|p| p["hostPort"].as_i64());
        all.filter(|p| *p != 0).map(|p| p.to_string()).collect()
    };
    let those = pod.those(|c| !ports(c).is_empty());
    let all: BTreeSet<String> = pod.containers().flat_map(ports).collect();
    (!those.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {}",
            named(&those),
            plural("uses", "use", those.len()),
            plural("hostPort", "hostPorts", all.len()),
            Vec::from_iter(all).join(", ")
        );
        Fault::new("hostPort", detail)
    })
}

fn host_probes(pod: &Pod<'_>) -> Option<Fault> {
    if !pod.standard.since(34) {
        return None;
    }
    let hosts = |c: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| vec![p]);
        let hooks = ["postStart", "preStop"].map(|h| vec!["lifecycle", h]);
        let places = probes.into_iter().chain(hooks);
        let found = places.flat_map(|place| {
            ["httpGet", "tcpSocket"].map(|kind| {
                let mut path = place.clone();
                path.extend([kind, "host"]);
                text(c, &path).to_owned()
            })
        });
        found.filter(|host| !host.is_empty()).collect()
    };
    let mut those = pod.those(|c| !hosts(c).is_empty());
    those.sort_unstable();
    let all: BTreeSet<String> = pod.containers().flat_map(hosts).collect();
    (!those.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {}",
            named(&those),
            plural("uses", "use", those.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()),
            quoted(&all)
        );
        Fault::new("probe or lifecycle host", detail)
    })
}

fn privileged(pod: &Pod<'_>) -> Option<Fault> {
    let those = pod.those(|c| at(c, &["securityContext", "privileged"]) == Some(&Value::Bool(true)));
    (!those.is_empty()).then(|| {
        Fault::new("privileged", format!("{} must not set securityContext.privileged=true", named(&those)))
    })
}

fn proc_mount(pod: &Pod<'_>) -> Option<Fault> {
    if pod.own_users() {
        return None;
    }
    let bad = |c: &Value| {
        Some(text(c, &["securityContext", "procMount"]).to_owned())
            .filter(|m| !m.is_empty() && m != "Default")
    };
    let those = pod.those(|c| bad(c).is_some());
    let all: BTreeSet<String> = pod.containers().filter_map(bad).collect();
    (!those.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.procMount to {}", named(&those), quoted(&all));
        Fault::new("procMount", detail)
    })
}

fn se_linux(pod: &Pod<'_>) -> Option<Fault> {
    let engine = pod.standard.since(31);
    let bad_type = |t: &str| {
        !(matches!(t, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || engine && t == "container_engine_t")
    };
    let has = |s: &Value, field: &str| !text(s, &["seLinuxOptions", field]).is_empty();
    let bad = |s: &Value| has(s, "user") || has(s, "role") || bad_type(text(s, &["seLinuxOptions", "type"]));
    let setters = pod.setters(bad)?;
    let types = pod.values(&["seLinuxOptions", "type"], bad_type);
    let any = |field: &str| !pod.values(&["seLinuxOptions", field], |v| !v.is_empty()).is_empty();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if any("user") {
        data.push("user may not be set".to_owned());
    }
    if any("role") {
        data.push("role may not be set".to_owned());
    }
    let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Some(Fault::new("seLinuxOptions", detail))
}

fn seccomp(pod: &Pod<'_>) -> Option<Fault> {
    if !pod.standard.since(19) {
        return seccomp_annotations(pod);
    }
    explicit_seccomp(pod)
}

/// What is set, and is neither the runtime's profile nor one of the node.
pub(super) fn explicit_seccomp(pod: &Pod<'_>) -> Option<Fault> {
    let path = ["seccompProfile", "type"];
    let bad = |value: &str| !matches!(value, "RuntimeDefault" | "Localhost");
    let setters = pod.setters(|s| at(s, &path).and_then(Value::as_str).is_some_and(bad))?;
    let values = quoted(pod.values(&path, bad));
    let detail = format!("{setters} must not set securityContext.seccompProfile.type to {values}");
    Some(Fault::new("seccompProfile", detail))
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Fault> {
    const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let harmless = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let own = |key: &str| {
        key == OF_POD
            || key.strip_prefix(OF_CONTAINER).is_some_and(|name| pod.containers().any(|c| c["name"] == name))
    };
    let forbidden: BTreeSet<String> = entries(pod.metadata, &["annotations"])
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| own(key) && !harmless(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    (!forbidden.is_empty()).then(|| {
        let word = plural("annotation", "annotations", forbidden.len());
        Fault::new("seccompProfile", format!("forbidden {word} {}", Vec::from_iter(forbidden).join(", ")))
    })
}

fn sysctls(pod: &Pod<'_>) -> Option<Fault> {
    let known = |name: &str| SYSCTLS.iter().any(|(since, n)| *n == name && pod.standard.since(*since));
    let bad: Vec<&str> = list(pod.spec, &["securityContext", "sysctls"])
        .map(|s| text(s, &["name"]))
        .filter(|name| !known(name))
        .collect();
    (!bad.is_empty()).then(|| Fault::new("forbidden sysctls", bad.join(", ")))
}

fn windows(pod: &Pod<'_>) -> Option<Fault> {
    let bad = |s: &Value| at(s, &["windowsOptions", "hostProcess"]) == Some(&Value::Bool(true));
    let setters = pod.setters(bad)?;
    let detail = format!("{setters} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Fault::new("hostProcess", detail))
}
