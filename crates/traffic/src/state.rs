//! The cluster's Services and their endpoints, as plain values: what informers feed and everything here reads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
pub use network::Protocol;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name in it.
    pub name: Arc<str>,
}

impl ServiceName {
    /// The name `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `spec.type`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// Reached under an address inside the cluster; none of it if headless.
    #[default]
    ClusterIp,
    /// Also under a port of every node.
    NodePort,
    /// Also under the addresses of a load balancer.
    LoadBalancer,
    /// An alias of a name elsewhere.
    ExternalName(String),
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Every endpoint.
    #[default]
    Cluster,
    /// Only endpoints on the node that got the packet.
    Local,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if the Service has but one.
    pub name: Arc<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port under the Service's addresses.
    pub port: u16,
    /// The port under the nodes' addresses.
    pub node_port: Option<u16>,
}

/// A port of an endpoint. Its name is the name of the Service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// The name of the Service's port it belongs to.
    pub name: Arc<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// One address behind a Service: an endpoint of an EndpointSlice, with the slice's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// `conditions.ready`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `hostname`.
    pub hostname: Option<Arc<str>>,
    /// The slice's ports.
    pub ports: Arc<[EndpointPort]>,
}

/// A Service with its endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIPs`, without `None`: a headless Service has none.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP` and its timeout.
    pub affinity: Option<Duration>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with `ipMode` VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`; all may come if empty.
    pub load_balancer_sources: Vec<Ipv4Net>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// All endpoints of all its slices.
    pub endpoints: Vec<Endpoint>,
}

impl Service {
    /// Whether it has endpoints and no address of its own.
    pub fn is_headless(&self) -> bool {
        self.cluster_ips.is_empty() && !matches!(self.kind, ServiceType::ExternalName(_))
    }
}

/// All Services. Cloning shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// The Services by name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
}

impl ServiceState {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a Service in, in place of one with the same name.
    pub fn insert(&mut self, namespace: &str, name: &str, service: Service) {
        self.services.insert(ServiceName::new(namespace, name), Arc::new(service));
    }

    /// Leads a Service to an address of this node, besides what its slices say. For `kube-system/kube-dns` that is
    /// the node's own DNS server. Every port of the Service leads to `port`; a Service that is not there is left
    /// alone.
    pub fn add_local(&mut self, namespace: &str, name: &str, node: &str, ip: IpAddr, port: u16) {
        let Some(service) = self.services.get_mut(&ServiceName::new(namespace, name)) else { return };
        let service = Arc::make_mut(service);
        let ports =
            service.ports.iter().map(|p| EndpointPort { name: p.name.clone(), protocol: p.protocol, port });
        service.endpoints.push(Endpoint {
            ip,
            ready: true,
            serving: true,
            terminating: false,
            node: Some(node.into()),
            hostname: None,
            ports: ports.collect(),
        });
    }
}
