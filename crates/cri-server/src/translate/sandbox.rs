use std::net::Ipv4Addr;
use std::path::PathBuf;

use cri::{DnsConfig, NamespaceMode, NamespaceOption, PodSandboxConfig, PortMapping, Protocol};
use network::HostPort;
use runtime::{IpcMode, NetworkMode, PidMode, SandboxSpec, UserRange};

use crate::error::CriError;
use crate::service::LABEL;

/// What the engine is told of a sandbox. `oci_runtime` is the handler's program.
///
/// # Errors
/// When something is asked for that cannot be.
pub(crate) fn sandbox(
    id: &str,
    config: &PodSandboxConfig,
    oci_runtime: Option<PathBuf>,
) -> Result<SandboxSpec, CriError> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let namespaces = security.namespace_options.unwrap_or_default();
    let users = users(&namespaces)?;
    if users.is_some() && oci_runtime.is_some() {
        return Err(CriError::Invalid("this runtime handler does not support user namespaces".to_owned()));
    }
    Ok(SandboxSpec {
        id: id.to_owned(),
        name: metadata.name,
        hostname: config.hostname.clone(),
        labels: [(LABEL.to_owned(), String::new())].into(),
        network: match namespaces.network {
            NamespaceMode::Node => NetworkMode::Host,
            _ => NetworkMode::Own,
        },
        pid: match namespaces.pid {
            NamespaceMode::Node => PidMode::Host,
            NamespaceMode::Pod => PidMode::Shared,
            _ => PidMode::PerContainer,
        },
        ipc: match namespaces.ipc {
            NamespaceMode::Node => IpcMode::Host,
            _ => IpcMode::Own,
        },
        sysctls: linux.sysctls,
        cgroup_path: cgroup_path(&linux.cgroup_parent, id)?,
        log_dir: Some(config.log_directory.clone()).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        users,
        oci_runtime,
        ..SandboxSpec::default()
    })
}

/// A cgroup of the sandbox's own in the one that the kubelet has made: sandboxes of one pod follow each other there.
fn cgroup_path(parent: &str, id: &str) -> Result<String, CriError> {
    let parent = parent.trim_matches('/');
    if parent.is_empty() {
        return Ok(String::new());
    }
    if parent.ends_with(".slice") {
        return Err(CriError::Invalid(format!(
            "cgroup_parent {parent:?} is for systemd; run the kubelet with --cgroup-driver=cgroupfs"
        )));
    }
    Ok(format!("/{parent}/{id}"))
}

/// The engine gives a sandbox one range of users from 0 on, and the same of groups.
fn users(namespaces: &NamespaceOption) -> Result<Option<UserRange>, CriError> {
    let Some(wanted) = &namespaces.userns_options else { return Ok(None) };
    match wanted.mode {
        NamespaceMode::Node => return Ok(None),
        NamespaceMode::Pod if wanted.uids.is_empty() && wanted.gids.is_empty() => return Ok(None),
        NamespaceMode::Pod => {}
        other => return Err(CriError::Invalid(format!("there is no user namespace of mode {other:?}"))),
    }
    match (wanted.uids.as_slice(), wanted.gids.as_slice()) {
        ([uids], [gids]) if uids == gids && uids.container_id == 0 && uids.length > 0 => {
            Ok(Some(UserRange { first: uids.host_id, count: uids.length }))
        }
        _ => Err(CriError::Invalid(
            "a user namespace needs one range of users from 0 on, and the same one of groups".to_owned(),
        )),
    }
}

/// The node's ports that lead to a sandbox.
///
/// # Errors
/// At what is no port or no IPv4 address.
pub(crate) fn host_ports(mappings: &[PortMapping]) -> Result<Vec<HostPort>, CriError> {
    let port = |number: i32| {
        let fault = || CriError::Invalid(format!("port_mappings: {number} is no port"));
        u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(fault)
    };
    let published = mappings.iter().filter(|mapping| mapping.host_port != 0).map(|mapping| {
        let ip = mapping.host_ip.as_str();
        let host_ip = match ip.parse::<Ipv4Addr>() {
            _ if ip.is_empty() => None,
            Ok(ip) if ip.is_unspecified() => None,
            Ok(ip) => Some(ip),
            Err(_) => return Err(CriError::Invalid(format!("port_mappings: {ip:?} is no IPv4 address"))),
        };
        Ok(HostPort {
            protocol: match mapping.protocol {
                Protocol::Tcp => network::Protocol::Tcp,
                Protocol::Udp => network::Protocol::Udp,
                Protocol::Sctp => network::Protocol::Sctp,
            },
            host_ip,
            host_port: port(mapping.host_port)?,
            container_port: port(mapping.container_port)?,
        })
    });
    published.collect()
}

/// What `/etc/resolv.conf` says; nothing if it is the host's.
pub(crate) fn resolv_conf(dns: Option<&DnsConfig>) -> Option<String> {
    let dns = dns?;
    let line = |name: &str, words: &[String]| match words {
        [] => String::new(),
        words => format!("{name} {}\n", words.join(" ")),
    };
    let servers: String = dns.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    Some(line("search", &dns.searches) + &servers + &line("options", &dns.options))
}

#[cfg(test)]
mod tests {
    use cri::{
        IdMapping, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PodSandboxMetadata, UserNamespace,
    };

    use super::*;

    fn with(parent: &str, namespaces: NamespaceOption) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata { name: "web".to_owned(), ..Default::default() }),
            hostname: "web".to_owned(),
            log_directory: "/logs".to_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: parent.to_owned(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    ..Default::default()
                }),
                sysctls: [("net.core.somaxconn".to_owned(), "9".to_owned())].into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn namespaces_and_cgroups_are_as_asked() {
        let plain = sandbox("i", &with("", NamespaceOption::default()), None).unwrap();
        assert_eq!((plain.network, plain.pid, plain.ipc), (NetworkMode::Own, PidMode::Shared, IpcMode::Own));
        assert_eq!((plain.cgroup_path.as_str(), plain.users), ("", None));
        assert_eq!(plain.sysctls["net.core.somaxconn"], "9");
        assert_eq!(plain.log_dir, Some("/logs".into()));
        let node = NamespaceMode::Node;
        let host = NamespaceOption { network: node, pid: node, ipc: node, ..Default::default() };
        let host = sandbox("i", &with("/kubepods/burstable/podx/", host), None).unwrap();
        assert_eq!((host.network, host.pid, host.ipc), (NetworkMode::Host, PidMode::Host, IpcMode::Host));
        assert_eq!(host.cgroup_path, "/kubepods/burstable/podx/i");
        let own = NamespaceOption { pid: NamespaceMode::Container, ..Default::default() };
        assert_eq!(sandbox("i", &with("", own), None).unwrap().pid, PidMode::PerContainer);
        let why = sandbox("i", &with("kubepods-podx.slice", NamespaceOption::default()), None).unwrap_err();
        assert!(why.to_string().contains("--cgroup-driver=cgroupfs"), "{why}");
    }

    #[test]
    fn users_are_one_range_or_the_hosts() {
        let range = |host_id, container_id| vec![IdMapping { host_id, container_id, length: 65536 }];
        let of = |mode, uids, gids| {
            let userns_options = Some(UserNamespace { mode, uids, gids });
            sandbox("i", &with("", NamespaceOption { userns_options, ..Default::default() }), None)
                .map(|spec| spec.users)
        };
        let own = UserRange { first: 131_072, count: 65536 };
        assert_eq!(of(NamespaceMode::Pod, range(131_072, 0), range(131_072, 0)).unwrap(), Some(own));
        assert_eq!(of(NamespaceMode::Node, range(1, 0), vec![]).unwrap(), None);
        assert_eq!(of(NamespaceMode::Pod, vec![], vec![]).unwrap(), None);
        assert!(of(NamespaceMode::Pod, range(1, 0), range(2, 0)).is_err());
        assert!(of(NamespaceMode::Pod, range(1, 1), range(1, 1)).is_err());
        assert!(of(NamespaceMode::Target, vec![], vec![]).is_err());
    }

    #[test]
    fn ports_of_the_node_are_those_that_are_not_zero() {
        let mapping = |host_port, host_ip: &str| PortMapping {
            protocol: Protocol::Udp,
            container_port: 53,
            host_port,
            host_ip: host_ip.to_owned(),
        };
        let ports =
            host_ports(&[mapping(0, ""), mapping(5353, "127.0.0.1"), mapping(54, "0.0.0.0")]).unwrap();
        let ips: Vec<_> = ports.iter().map(|port| (port.host_port, port.host_ip)).collect();
        assert_eq!(ips, [(5353, Some(Ipv4Addr::LOCALHOST)), (54, None)]);
        assert!(host_ports(&[mapping(70_000, "")]).is_err());
        assert!(host_ports(&[mapping(1, "::1")]).is_err());
    }

    #[test]
    fn names_are_asked_as_the_config_says() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let dns = DnsConfig {
            servers: words(&["10.0.0.10", "1.1.1.1"]),
            searches: words(&["a.b", "b"]),
            options: words(&["ndots:5"]),
        };
        let text = "search a.b b\nnameserver 10.0.0.10\nnameserver 1.1.1.1\noptions ndots:5\n";
        assert_eq!(resolv_conf(Some(&dns)).as_deref(), Some(text));
        assert_eq!(resolv_conf(None), None);
    }
}
