//! From Services to rules. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use xxhash_rust::xxh3::Xxh3;

use super::rules::{Backend, Chain, ChainName, Frontend, Mark, NodePort, Pool, Refusal, Rules, Slot};
use crate::{
    Endpoint, Protocol, Service, ServiceName, ServicePort, ServiceState, ServiceType, TrafficPolicy,
};

/// What a node's proxy must know besides the Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// This node's name.
    pub node: String,
    /// The pods' ranges on all nodes. Sources in them are left as they are.
    pub cluster_cidrs: Vec<Ipv4Net>,
}

/// What the kernel of `config.node` should hold for these Services. Only IPv4 addresses are programmed.
pub fn desired(state: &ServiceState, config: &ProxyConfig) -> Rules {
    let mut rules = Rules::default();
    for (name, service) in &state.services {
        if service.is_headless() || matches!(service.kind, ServiceType::ExternalName(_)) {
            continue;
        }
        for port in &service.ports {
            PortPlan::new(name, service, port, config).add(&mut rules);
        }
    }
    rules
}

/// The endpoints one port of a Service may use.
struct Choice {
    pool: Pool,
    backends: Vec<Backend>,
}

struct PortPlan<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    /// Endpoints anywhere.
    all: Choice,
    /// Endpoints on this node.
    local: Choice,
}

impl<'a> PortPlan<'a> {
    fn new(name: &ServiceName, service: &'a Service, port: &'a ServicePort, config: &ProxyConfig) -> Self {
        let here = |e: &Endpoint| e.node.as_deref() == Some(&*config.node);
        let affinity = service.affinity.map(|t| u32::try_from(t.as_secs()).unwrap_or(u32::MAX).max(1));
        let choice = |scope: u8, backends: Vec<Backend>| Choice {
            pool: Pool {
                id: pool_id(name, port, scope),
                count: u32::try_from(backends.len()).unwrap_or(u32::MAX),
                affinity,
            },
            backends,
        };
        Self {
            service,
            port,
            all: choice(0, usable(service, port, |_| true)),
            local: choice(1, usable(service, port, here)),
        }
    }

    fn add(&self, rules: &mut Rules) {
        rules.hairpin.extend(self.local.backends.iter().map(|b| b.ip));
        self.add_internal(rules);
        self.add_external(rules);
    }

    /// The cluster's own addresses.
    fn add_internal(&self, rules: &mut Rules) {
        let choice = match self.service.internal_policy {
            TrafficPolicy::Cluster => &self.all,
            TrafficPolicy::Local => &self.local,
        };
        let chain = self.balance(rules, choice, Mark::OffCluster);
        for ip in v4(&self.service.cluster_ips) {
            self.lead(rules, ip, chain.as_ref().map_err(|r| *r), choice);
        }
    }

    /// Addresses and ports that strangers use.
    fn add_external(&self, rules: &mut Rules) {
        let service = self.service;
        let node_port = match service.kind {
            ServiceType::NodePort | ServiceType::LoadBalancer => self.port.node_port,
            _ => None,
        };
        let balanced = matches!(service.kind, ServiceType::LoadBalancer);
        let external: Vec<_> = v4(&service.external_ips).collect();
        let load_balancer: Vec<_> =
            if balanced { v4(&service.load_balancer_ips).collect() } else { Vec::new() };
        if node_port.is_none() && external.is_empty() && load_balancer.is_empty() {
            return;
        }
        let chain = match service.external_policy {
            TrafficPolicy::Cluster => self.balance(rules, &self.all, Mark::Always),
            TrafficPolicy::Local => self.local_chain(rules),
        };
        for ip in external {
            self.lead(rules, ip, chain.as_ref().map_err(|r| *r), &self.all);
        }
        if let Some(port) = node_port {
            let key = NodePort { protocol: self.port.protocol, port };
            match &chain {
                Ok(chain) => drop(rules.node_ports.entry(key).or_insert_with(|| chain.clone())),
                Err(refusal) => drop(rules.refused_node_ports.entry(key).or_insert(*refusal)),
            }
            if key.protocol == Protocol::Udp {
                rules
                    .udp_node_ports
                    .entry(key)
                    .or_insert_with(|| self.all.backends.iter().copied().collect());
            }
        }
        if load_balancer.is_empty() {
            return;
        }
        let chain = match chain {
            Ok(next) if !service.load_balancer_sources.is_empty() => {
                let mut ranges = service.load_balancer_sources.clone();
                ranges.sort_unstable();
                let name: ChainName = format!(
                    "src-{:016x}",
                    hash(|h| {
                        h.update(next.as_bytes());
                        ranges.iter().for_each(|r| {
                            h.update(&r.network().octets());
                            h.update(&[r.prefix_len()]);
                        });
                    })
                )
                .into();
                rules.chains.insert(name.clone(), Chain::Sources { ranges, next });
                Ok(name)
            }
            other => other,
        };
        for ip in load_balancer {
            self.lead(rules, ip, chain.as_ref().map_err(|r| *r), &self.all);
        }
    }

    fn lead(&self, rules: &mut Rules, ip: Ipv4Addr, chain: Result<&ChainName, Refusal>, choice: &Choice) {
        let key = Frontend { ip, protocol: self.port.protocol, port: self.port.port };
        // Two Services may claim one external address and port. The first by name has it, on every node alike.
        if rules.frontends.contains_key(&key) || rules.refused.contains_key(&key) {
            return;
        }
        match chain {
            Ok(chain) => drop(rules.frontends.insert(key, chain.clone())),
            Err(refusal) => drop(rules.refused.insert(key, refusal)),
        }
        if key.protocol == Protocol::Udp {
            rules.udp_frontends.insert(key, choice.backends.iter().copied().collect());
        }
    }

    fn balance(&self, rules: &mut Rules, choice: &Choice, mark: Mark) -> Result<ChainName, Refusal> {
        if choice.backends.is_empty() {
            return Err(self.refusal());
        }
        let pool = self.pool(rules, choice);
        let prefix = match mark {
            Mark::OffCluster => "svc",
            Mark::Always => "ext",
        };
        let name = chain_name(prefix, &pool);
        rules.chains.entry(name.clone()).or_insert(Chain::Balance { pool, mark });
        Ok(name)
    }

    fn local_chain(&self, rules: &mut Rules) -> Result<ChainName, Refusal> {
        let pods = self.balance(rules, &self.all, Mark::OffCluster)?;
        let node = self.balance(rules, &self.all, Mark::Always)?;
        let pool = (!self.local.backends.is_empty()).then(|| self.pool(rules, &self.local));
        let local = pool.map_or_else(|| "none".into(), |p| chain_name("own", &p));
        let name: ChainName = format!("loc-{}-{local}", &pods[4..]).into();
        rules.chains.insert(name.clone(), Chain::Local { pods, node, pool });
        Ok(name)
    }

    /// Without endpoints anywhere the caller is told at once; if only this node has none, it is left to time out,
    /// as upstream does.
    fn refusal(&self) -> Refusal {
        if self.all.backends.is_empty() { Refusal::Reject } else { Refusal::Drop }
    }

    fn pool(&self, rules: &mut Rules, choice: &Choice) -> Pool {
        let id = choice.pool.id;
        for (index, backend) in (0u32..).zip(&choice.backends) {
            rules.slots.insert(Slot { pool: id, index }, *backend);
            if choice.pool.affinity.is_some() {
                rules.live.insert((id, *backend));
            }
        }
        choice.pool
    }
}

/// The endpoints for a port: the ready ones, or, when there are none, those that still serve while they terminate
/// (kubernetes `pkg/proxy/topology.go`, `CategorizeEndpoints`).
fn usable(service: &Service, port: &ServicePort, mut here: impl FnMut(&Endpoint) -> bool) -> Vec<Backend> {
    let mut pick = |usable: fn(&Endpoint) -> bool| -> Vec<Backend> {
        let mut set = BTreeSet::new();
        for endpoint in service.endpoints.iter().filter(|e| usable(e) && here(e)) {
            let IpAddr::V4(ip) = endpoint.ip else { continue };
            let matching =
                endpoint.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
            set.extend(matching.map(|p| Backend { ip, port: p.port }));
        }
        set.into_iter().collect()
    };
    let ready = pick(|e| e.ready);
    if ready.is_empty() { pick(|e| e.serving && e.terminating) } else { ready }
}

fn v4(addrs: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> + '_ {
    addrs.iter().filter_map(|a| match a {
        IpAddr::V4(a) => Some(*a),
        IpAddr::V6(_) => None,
    })
}

fn hash(feed: impl FnOnce(&mut Xxh3)) -> u64 {
    let mut hasher = Xxh3::new();
    feed(&mut hasher);
    hasher.digest()
}

fn pool_id(name: &ServiceName, port: &ServicePort, scope: u8) -> u64 {
    hash(|h| {
        for part in [&name.namespace, &name.name, &port.name] {
            h.update(part.as_bytes());
            h.update(&[0]);
        }
        h.update(&[port.protocol.number(), scope]);
    })
}

/// Everything about the chain is in its name; see [`ChainName`].
fn chain_name(prefix: &str, pool: &Pool) -> ChainName {
    let affinity = pool.affinity.map(|t| format!("-{t}s")).unwrap_or_default();
    Arc::from(format!("{prefix}-{:016x}-{}{affinity}", pool.id, pool.count))
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
