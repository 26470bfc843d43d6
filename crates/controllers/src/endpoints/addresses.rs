//! From pods to addresses and ports.

use client::PodView;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;

use crate::common::pods::{is_finished, is_ready};

/// One pod behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Backend {
    /// IPv4 first, if it has both.
    pub(super) addresses: Vec<String>,
    pub(super) ports: Vec<EndpointPort>,
    /// Its probes succeed.
    pub(super) serving: bool,
    pub(super) terminating: bool,
    /// Whether traffic may go there.
    pub(super) ready: bool,
    pub(super) hostname: Option<String>,
    pub(super) node: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) pod: ObjectReference,
}

/// The pods that have an address and are not at their end, in order of their names.
pub(super) fn backends(
    service: &Service,
    pods: &[Arc<PodView>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<Backend> {
    let spec = service.spec.clone().unwrap_or_default();
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut found = Vec::new();
    for pod in pods.iter().filter(|pod| !is_finished(pod)) {
        let addresses = addresses(pod);
        if addresses.is_empty() {
            continue;
        }
        let (serving, terminating) = (is_ready(pod), pod.metadata.deletion_timestamp.is_some());
        let ours = pod.spec.subdomain.is_some()
            && pod.spec.subdomain == service.metadata.name
            && pod.metadata.namespace == service.metadata.namespace;
        found.push(Backend {
            addresses,
            ports: spec.ports.iter().flatten().filter_map(|port| target(port, pod)).collect(),
            serving,
            terminating,
            ready: publish || (serving && !terminating),
            hostname: pod.hostname.clone().filter(|h| ours && !h.is_empty()),
            zone: pod.node_name.as_deref().and_then(&zone),
            node: pod.node_name.as_deref().map(str::to_owned),
            pod: ObjectReference {
                kind: Some(PodView::kind(&()).into_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..Default::default()
            },
        });
    }
    found
}

fn addresses(pod: &PodView) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let several: Vec<String> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    if several.is_empty() {
        status.pod_ip.iter().filter(|ip| !ip.is_empty()).cloned().collect()
    } else {
        several
    }
}

/// Where a Service's port leads on a pod; a named one only where the pod has that name.
fn target(port: &ServicePort, pod: &PodView) -> Option<EndpointPort> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named(name, protocol, pod)?,
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol.into()),
        app_protocol: port.app_protocol.clone(),
    })
}

fn named(name: &str, protocol: &str, pod: &PodView) -> Option<i32> {
    let spec = &pod.spec;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let fits = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
        p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(fits).map(|p| p.container_port)
}

/// Whether anything about a pod changed that a Service could notice.
pub(super) fn differ(old: &PodView, new: &PodView) -> bool {
    let seen = |pod: &PodView| {
        (
            pod.labels.clone(),
            pod.metadata.deletion_timestamp.is_some(),
            is_ready(pod),
            is_finished(pod),
            addresses(pod),
            pod.node_name.clone(),
        )
    };
    seen(old) != seen(new)
}
