//! Ports of the node that lead to a pod.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use network::{HostPort, Protocol};

use crate::worker::host_network;

/// What the containers of a pod ask for; a pod in the node's own network needs none.
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    if host_network(pod) {
        return Vec::new();
    }
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let mut found: Vec<HostPort> = ports
        .filter_map(|port| {
            Some(HostPort {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                host_ip: match port.host_ip.as_deref() {
                    None | Some("" | "0.0.0.0") => None,
                    // Pods have IPv4 addresses only: a port of another family leads nowhere.
                    Some(ip) => Some(ip.parse::<Ipv4Addr>().ok()?),
                },
                host_port: number(port.host_port?)?,
                container_port: number(port.container_port)?,
            })
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|p| *p > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ports_with_a_host_port() {
        let mut pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a", "ports": [
            {"containerPort": 80}, {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
            {"containerPort": 80, "hostPort": 8080}, {"containerPort": 1, "hostPort": 2, "hostIP": "::1"}]}]}}))
        .unwrap();
        let tcp = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 8080, container_port: 80 };
        let udp = HostPort {
            protocol: Protocol::Udp,
            host_ip: Some(Ipv4Addr::LOCALHOST),
            host_port: 5353,
            container_port: 53,
        };
        assert_eq!(host_ports(&pod), [tcp, udp]);
        pod.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(host_ports(&pod), []);
    }
}
