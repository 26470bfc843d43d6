//! What a pod demands of the kernel, and whether it may: sysctls, AppArmor, seccomp profiles, users.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::Seccomp;

use crate::admit::Refusal;
use crate::error::NodeError;
use crate::status::full_name;

/// Sysctls that hurt nobody else (`pkg/kubelet/sysctl/safe_sysctls.go`).
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The namespace that a sysctl belongs to (`component-helpers/node/util/sysctl/namespace.go`).
fn namespace(name: &str) -> Option<&'static str> {
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
    match name {
        _ if ipc || name == "kernel.sem" => Some("ipc"),
        _ if name.starts_with("net.") => Some("net"),
        _ => None,
    }
}

/// Reads `--allowed-unsafe-sysctls`: names, or prefixes that end with `*`.
///
/// # Errors
/// At one that no namespace of a pod has.
pub(crate) fn check_patterns(patterns: &[String]) -> Result<(), String> {
    for pattern in patterns {
        let name = dotted(pattern);
        if namespace(name.trim_end_matches('*')).is_none() {
            return Err(format!("the sysctls {name:?} are not known to be namespaced"));
        }
    }
    Ok(())
}

/// Names may be written with slashes, which then have dots in their parts.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Why a pod's sysctls are not taken (`pkg/kubelet/sysctl/allowlist.go`).
pub(crate) fn refused_sysctl(pod: &Pod, allowed: &[String]) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let sysctls = spec.security_context.as_ref()?.sysctls.as_ref()?;
    let of_host = |namespace: &str| match namespace {
        "ipc" => spec.host_ipc == Some(true),
        _ => spec.host_network == Some(true),
    };
    let fault = |sysctl: &core::Sysctl| {
        let name = dotted(&sysctl.name);
        let listed = SAFE.contains(&name.as_str())
            || allowed.iter().map(|pattern| dotted(pattern)).any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            });
        match namespace(&name) {
            _ if !listed => Some(format!("{name:?} not allowlisted")),
            Some(namespace) if of_host(namespace) => {
                Some(format!("{name:?} not allowed with host {namespace} enabled"))
            }
            _ => None,
        }
    };
    let why = sysctls.iter().find_map(fault)?;
    Some(Refusal { reason: "SysctlForbidden".into(), message: format!("forbidden sysctl: {why}") })
}

/// Why a pod's AppArmor profiles cannot be had (`pkg/security/apparmor/validate.go`, `pkg/kubelet/lifecycle/handlers.go`).
pub(crate) fn refused_apparmor(pod: &Pod, enabled: bool, has_default: bool) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let inits = spec.init_containers.iter().flatten();
    let mut wanted = inits.chain(&spec.containers).filter_map(|container| apparmor(pod, container));
    let why = match wanted.find(|profile| profile.type_ != "Unconfined") {
        None => return None,
        Some(_) if !enabled => "AppArmor is not enabled on the host",
        Some(profile) if profile.type_ == "RuntimeDefault" && !has_default => {
            "the kernel has not taken the default profile"
        }
        Some(_) => return None,
    };
    Some(Refusal { reason: "AppArmor".into(), message: format!("Cannot enforce AppArmor: {why}") })
}

/// The container's profile, or the pod's.
fn apparmor(pod: &Pod, container: &Container) -> Option<core::AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|s| s.app_armor_profile.clone());
    own.or_else(|| pod.spec.as_ref()?.security_context.as_ref()?.app_armor_profile.clone())
}

/// The name of the AppArmor profile that the kernel shall use. `default` is the name of the one for whom none is named, if
/// there is one (containerd, `internal/cri/server/container_create.go`, `generateApparmorSpecOpts`).
pub(crate) fn apparmor_name(pod: &Pod, container: &Container, default: Option<&str>) -> Option<String> {
    match apparmor(pod, container) {
        Some(core::AppArmorProfile { type_, localhost_profile }) if type_ == "Localhost" => localhost_profile,
        Some(core::AppArmorProfile { type_, .. }) if type_ == "Unconfined" => Some("unconfined".into()),
        _ => default.map(str::to_owned),
    }
}

/// The container's profile, or the pod's.
fn seccomp_profile(pod: &Pod, container: &Container) -> Option<core::SeccompProfile> {
    let own = container.security_context.as_ref().and_then(|s| s.seccomp_profile.clone());
    own.or_else(|| pod.spec.as_ref()?.security_context.as_ref()?.seccomp_profile.clone())
}

/// The name of the node's own profile that the container asks for.
pub(crate) fn localhost_seccomp(pod: &Pod, container: &Container) -> Option<String> {
    seccomp_profile(pod, container).filter(|p| p.type_ == "Localhost")?.localhost_profile
}

/// Which system calls a container may make: its profile, or the pod's, or the runtime's own if that is the `default`, or
/// all. Profiles of the node's own lie in `folder`.
///
/// # Errors
/// When such a profile cannot be had.
pub(crate) fn seccomp(
    pod: &Pod,
    container: &Container,
    default: bool,
    folder: &Path,
) -> Result<Seccomp, NodeError> {
    let Some(profile) = seccomp_profile(pod, container) else {
        return Ok(if default { Seccomp::Default } else { Seccomp::Unconfined });
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::Default),
        "Localhost" => {
            let name = profile.localhost_profile.filter(|name| !name.is_empty()).ok_or_else(|| {
                let why = "localhostProfile must be set if seccompProfile type is Localhost.";
                NodeError::Config(why.to_owned())
            })?;
            let inside = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
            let path = folder.join(&name);
            let failed = |why: String| {
                NodeError::Create(format!("cannot load seccomp profile {:?}: {why}", path.display()))
            };
            if !inside {
                return Err(failed("it lies outside of the node's folder of profiles".into()));
            }
            let text = std::fs::read(&path).map_err(|e| failed(e.to_string()))?;
            let profile = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
            Ok(Seccomp::Profile(profile))
        }
        // As upstream, no profile means no filter, unless the pod asks for the runtime's own.
        _ => Ok(Seccomp::Unconfined),
    }
}

/// Whether a container that must not run as root does not (`pkg/kubelet/kuberuntime/security_context_others.go`,
/// `verifyRunAsNonRoot`). `image_user` is what the image says.
///
/// # Errors
/// When it would, or nobody can tell.
pub(crate) fn check_not_root(
    pod: &Pod,
    container: &Container,
    image_user: Option<&str>,
) -> Result<(), NodeError> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let demanded = own.and_then(|s| s.run_as_non_root).or_else(|| of_pod?.run_as_non_root);
    if demanded != Some(true) {
        return Ok(());
    }
    let about = format!("(pod: {:?}, container: {})", full_name(pod), container.name);
    let refuse = |why: String| Err(NodeError::Config(why));
    match own.and_then(|s| s.run_as_user).or_else(|| of_pod?.run_as_user) {
        Some(0) => return refuse(format!("container's runAsUser breaks non-root policy {about}")),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image_user.unwrap_or_default().split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(0) => refuse(format!("container has runAsNonRoot and image will run as root {about}")),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() => {
            refuse(format!("container has runAsNonRoot and image will run as root {about}"))
        }
        Err(_) => refuse(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {about}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut whole = json!({"containers": [{"name": "a"}]});
        whole.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": whole}),
        )
        .unwrap()
    }

    #[test]
    fn sysctls_must_be_safe_or_allowed() {
        let refused = |name: &str, host: bool, allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
            let sysctls = json!([{"name": name, "value": "1"}]);
            let pod = pod(json!({"hostNetwork": host, "securityContext": {"sysctls": sysctls}}));
            refused_sysctl(&pod, &allowed).map(|r| r.message)
        };
        assert_eq!(refused("net.ipv4.tcp_syncookies", false, &[]), None);
        assert_eq!(refused("net/ipv4/tcp_syncookies", false, &[]), None);
        let not = |name: &str| Some(format!("forbidden sysctl: {name:?} not allowlisted"));
        assert_eq!(refused("net.core.somaxconn", false, &[]), not("net.core.somaxconn"));
        assert_eq!(refused("net.core.somaxconn", false, &["net.core.*"]), None);
        assert_eq!(refused("kernel.msgmax", false, &["kernel.msgmax"]), None);
        assert_eq!(refused("kernel.msgmnb", false, &["kernel.msgmax"]), not("kernel.msgmnb"));
        assert_eq!(
            refused("net.ipv4.tcp_syncookies", true, &[]).as_deref(),
            Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled")
        );
        assert!(check_patterns(&["net.*".into(), "kernel.shm*".into()]).is_ok());
        assert!(check_patterns(&["vm.swappiness".into()]).is_err());
    }

    #[test]
    fn apparmor_must_be_there() {
        let of = |profile: Value| pod(json!({"securityContext": {"appArmorProfile": profile}}));
        let why = |pod: &Pod, enabled| refused_apparmor(pod, enabled, false).map(|r| r.message);
        let default = of(json!({"type": "RuntimeDefault"}));
        assert_eq!(
            why(&default, false).as_deref(),
            Some("Cannot enforce AppArmor: AppArmor is not enabled on the host")
        );
        assert!(why(&default, true).is_some());
        assert_eq!(refused_apparmor(&default, true, true), None);
        let name = |pod: &Pod, default| apparmor_name(pod, &Container::default(), default);
        assert_eq!(name(&default, Some("gantry-default")).as_deref(), Some("gantry-default"));
        assert_eq!(name(&Pod::default(), Some("gantry-default")).as_deref(), Some("gantry-default"));
        assert_eq!(name(&Pod::default(), None), None);
        let free = of(json!({"type": "Unconfined"}));
        assert_eq!(name(&free, Some("gantry-default")).as_deref(), Some("unconfined"));
        assert_eq!(why(&of(json!({"type": "Unconfined"})), false), None);
        let local = of(json!({"type": "Localhost", "localhostProfile": "mine"}));
        assert_eq!((why(&local, true), why(&local, false).is_some()), (None, true));
        assert_eq!(name(&local, Some("gantry-default")).as_deref(), Some("mine"));
    }

    #[test]
    fn profiles_are_files_of_the_node() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good.json"), "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}").unwrap();
        std::fs::write(folder.path().join("bad.json"), "{").unwrap();
        let by_default = |profile: Value, default| {
            let pod = pod(json!({"securityContext": {"seccompProfile": profile}}));
            let container = Container { name: "a".into(), ..Container::default() };
            seccomp(&pod, &container, default, folder.path())
        };
        let load = |profile: Value| by_default(profile, false);
        let local = |name: &str| load(json!({"type": "Localhost", "localhostProfile": name}));
        assert!(
            matches!(local("good.json"), Ok(Seccomp::Profile(p)) if p["defaultAction"] == "SCMP_ACT_ALLOW")
        );
        let why = |name: &str| local(name).unwrap_err().to_string();
        assert!(why("bad.json").starts_with("cannot load seccomp profile "), "{}", why("bad.json"));
        assert!(why("none.json").contains("No such file"), "{}", why("none.json"));
        assert!(why("../x").contains("outside"), "{}", why("../x"));
        assert!(matches!(load(json!({"type": "RuntimeDefault"})), Ok(Seccomp::Default)));
        assert!(matches!(load(json!({"type": "Unconfined"})), Ok(Seccomp::Unconfined)));
        assert!(matches!(load(Value::Null), Ok(Seccomp::Unconfined)));
        assert!(matches!(by_default(Value::Null, true), Ok(Seccomp::Default)), "as the node's settings say");
        assert!(matches!(by_default(json!({"type": "Unconfined"}), true), Ok(Seccomp::Unconfined)));
    }

    #[test]
    fn root_is_found_out() {
        let why = |security: Value, image: Option<&str>| {
            let pod = pod(json!({"securityContext": security}));
            let container = Container { name: "a".into(), ..Container::default() };
            check_not_root(&pod, &container, image).map_err(|e| e.to_string())
        };
        let about = "(pod: \"p_n(u)\", container: a)";
        let demanded = || json!({"runAsNonRoot": true});
        assert_eq!(why(json!({}), None), Ok(()));
        assert_eq!(why(demanded(), Some("1000:0")), Ok(()));
        let root = Err(format!("container has runAsNonRoot and image will run as root {about}"));
        assert_eq!((why(demanded(), None), why(demanded(), Some("0"))), (root.clone(), root));
        assert_eq!(
            why(demanded(), Some("web")),
            Err(format!(
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root {about}"
            ))
        );
        assert_eq!(why(json!({"runAsNonRoot": true, "runAsUser": 5}), None), Ok(()));
        assert_eq!(
            why(json!({"runAsNonRoot": true, "runAsUser": 0}), Some("5")),
            Err(format!("container's runAsUser breaks non-root policy {about}"))
        );
    }
}
