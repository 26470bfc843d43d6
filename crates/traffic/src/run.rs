//! Keeps packet rules and DNS in step with the cluster's Services.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Drain};
use client::{Informer, Informers};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dns::{DnsConfig, DnsError, Server, ServerHandle, Upstreams, Zone};
use crate::services::{Applier, ApplyError, ProxyConfig, desired};
use crate::state::{
    Endpoint, EndpointPort, Protocol, Service, ServicePort, ServiceState, ServiceType, TrafficPolicy,
};

/// What a node's traffic needs.
#[derive(Clone)]
pub struct Config {
    /// How it sees the cluster.
    pub informers: Informers,
    /// Ends it; the rules stay.
    pub drain: Drain,
    /// This node's name.
    pub node: String,
    /// The pods' ranges on all nodes.
    pub cluster_cidrs: Vec<Ipv4Net>,
    /// Where the DNS server listens on this node.
    pub dns: SocketAddr,
    /// The cluster's address for DNS, which leads there.
    pub dns_service: Ipv4Addr,
    /// Such as `cluster.local`.
    pub domain: String,
    /// Whom to ask for names that are not the cluster's.
    pub resolv_conf: PathBuf,
}

/// Traffic that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The packet rules.
    #[error("cannot set up the rules of Services: {0}")]
    Rules(#[from] ApplyError),
    /// The DNS server.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The cluster's domain is no name.
    #[error("the cluster's domain {0:?} is no name")]
    Domain(String),
}

/// The nftables table of Services.
pub const TABLE: &str = "gantry-services";

/// Starts the proxy and the DNS server. They run until the configuration's drain starts.
///
/// # Errors
/// When the rules cannot be reached or the DNS address cannot be had.
pub async fn run(config: &Config) -> Result<(), TrafficError> {
    let proxy = ProxyConfig { node: config.node.clone(), cluster_cidrs: config.cluster_cidrs.clone() };
    let applier = Applier::open(TABLE, proxy)?;
    let zone = Zone::new(ServiceState::new(), &config.domain)
        .map_err(|_| TrafficError::Domain(config.domain.clone()))?;
    let dns = DnsConfig {
        listen: vec![config.dns],
        upstreams: Upstreams::File(config.resolv_conf.clone()),
        aliases: vec![IpAddr::V4(config.dns_service)],
    };
    let server = Server::bind(dns, zone).await?;
    let handle = server.handle();
    let (stop, drain) = (CancellationToken::new(), config.drain.clone());
    let stopped = stop.clone();
    config.drain.spawn(server.run(stopped));
    config.drain.spawn(async move {
        drain.started().await;
        stop.cancel();
    });
    let (services, slices) = (config.informers.of::<core::Service>(), config.informers.of::<EndpointSlice>());
    let (wake, woken) = watch::channel(());
    let wake = Arc::new(wake);
    let (first, second) = (wake.clone(), wake);
    services.on_change(move |_| first.send_replace(()));
    slices.on_change(move |_| second.send_replace(()));
    config.drain.spawn(follow(config.clone(), applier, handle, services, slices, woken));
    Ok(())
}

/// Brings rules and names up to date whenever something has changed; changes that come meanwhile are taken together.
async fn follow(
    config: Config,
    mut applier: Applier,
    dns: ServerHandle,
    services: Informer<core::Service>,
    slices: Informer<EndpointSlice>,
    mut woken: watch::Receiver<()>,
) {
    tokio::select! {
        () = async { services.ready().await; slices.ready().await } => {}
        () = config.drain.started() => return,
    }
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        woken.mark_unchanged();
        let state = state(&config, &services, &slices);
        let rules = Arc::new(desired(&state, applier.config()));
        if let Ok(zone) = Zone::new(state, &config.domain) {
            dns.set_zone(zone);
        }
        let retry = match applier.apply(rules).await {
            Ok(_) => {
                backoff.reset();
                None
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write the rules of Services");
                applier.forget();
                Some(backoff.fail())
            }
        };
        tokio::select! {
            changed = woken.changed(), if retry.is_none() => if changed.is_err() { return },
            () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
            () = config.drain.started() => return,
        }
    }
}

fn state(
    config: &Config,
    services: &Informer<core::Service>,
    slices: &Informer<EndpointSlice>,
) -> ServiceState {
    let mut state = ServiceState::new();
    let slices = slices.store().list();
    let mut endpoints: HashMap<(&str, &str), Vec<Endpoint>> = HashMap::new();
    for slice in &slices {
        let owner =
            slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        if let (Some(namespace), Some(owner)) = (slice.metadata.namespace.as_deref(), owner) {
            endpoints.entry((namespace, owner)).or_default().extend(endpoints_of(slice));
        }
    }
    let services = services.store().list();
    for object in &services {
        let (Some(namespace), Some(name)) =
            (object.metadata.namespace.as_deref(), object.metadata.name.as_deref())
        else {
            continue;
        };
        let mut service = service_of(object);
        service.endpoints = endpoints.remove(&(namespace, name)).unwrap_or_default();
        state.insert(namespace, name, service);
    }
    state.add_local("kube-system", "kube-dns", &config.node, config.dns.ip(), config.dns.port());
    state
}

fn protocol_of(text: Option<&str>) -> Protocol {
    match text {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn policy_of(text: Option<&str>) -> TrafficPolicy {
    if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn port_of(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n != 0)
}

fn service_of(object: &core::Service) -> Service {
    let spec = object.spec.clone().unwrap_or_default();
    let ips = |list: Option<Vec<String>>| {
        list.into_iter().flatten().filter_map(|ip| ip.parse::<IpAddr>().ok()).collect()
    };
    let ingress =
        object.status.iter().flat_map(|s| &s.load_balancer).flat_map(|l| l.ingress.iter().flatten());
    let seconds = spec
        .session_affinity_config
        .and_then(|c| c.client_ip)
        .and_then(|c| c.timeout_seconds)
        .unwrap_or(10_800);
    Service {
        kind: match spec.type_.as_deref() {
            Some("NodePort") => ServiceType::NodePort,
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            Some("ExternalName") => ServiceType::ExternalName(spec.external_name.unwrap_or_default()),
            _ => ServiceType::ClusterIp,
        },
        // `None` is no address, which is what makes a Service headless.
        cluster_ips: ips(spec.cluster_ips),
        ports: spec
            .ports
            .iter()
            .flatten()
            .filter_map(|p| {
                Some(ServicePort {
                    name: p.name.as_deref().unwrap_or_default().into(),
                    protocol: protocol_of(p.protocol.as_deref()),
                    port: port_of(p.port)?,
                    node_port: p.node_port.and_then(port_of),
                })
            })
            .collect(),
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP"))
            .then(|| Duration::from_secs(seconds.max(0) as u64)),
        internal_policy: policy_of(spec.internal_traffic_policy.as_deref()),
        external_policy: policy_of(spec.external_traffic_policy.as_deref()),
        external_ips: ips(spec.external_ips),
        load_balancer_ips: ingress.filter_map(|i| i.ip.as_ref()?.parse().ok()).collect(),
        load_balancer_sources: spec
            .load_balancer_source_ranges
            .iter()
            .flatten()
            .filter_map(|c| c.parse().ok())
            .collect(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        endpoints: Vec::new(),
    }
}

fn endpoints_of(slice: &EndpointSlice) -> Vec<Endpoint> {
    let ports: Arc<[EndpointPort]> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|p| {
            Some(EndpointPort {
                name: p.name.as_deref().unwrap_or_default().into(),
                protocol: protocol_of(p.protocol.as_deref()),
                port: port_of(p.port?)?,
            })
        })
        .collect();
    let mut endpoints = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        for ip in endpoint.addresses.iter().filter_map(|a| a.parse().ok()) {
            endpoints.push(Endpoint {
                ip,
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                node: endpoint.node_name.as_deref().map(Into::into),
                hostname: endpoint.hostname.as_deref().map(Into::into),
                ports: ports.clone(),
            });
        }
    }
    endpoints
}
