//! UDP has no end of a connection. A client that keeps sending from one port would be led for ever to an endpoint
//! that has gone, or to nowhere if it began before there was one; so such flows are ended when endpoints change
//! (kubernetes `pkg/proxy/conntrack/cleanup.go`, `CleanStaleEntries`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use nlink::netlink::netfilter::{ConntrackEntry, ConntrackFilter, IpProtocol};
use nlink::netlink::types::AddressFamily;
use nlink::netlink::{Connection, Netfilter};

use super::rules::{Backend, Frontend, NodePort, Rules};
use crate::Protocol;

/// Where UDP flows may lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UdpTargets {
    frontends: BTreeMap<Frontend, BTreeSet<Backend>>,
    node_ports: BTreeMap<NodePort, BTreeSet<Backend>>,
}

/// A tracked flow: where it was sent, and who answers.
#[derive(Debug, Clone, Copy)]
struct Flow {
    to: (Ipv4Addr, u16),
    answered_by: Backend,
}

impl UdpTargets {
    pub(super) fn of(rules: &Rules) -> Self {
        Self { frontends: rules.udp_frontends.clone(), node_ports: rules.udp_node_ports.clone() }
    }

    fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.node_ports.is_empty()
    }

    fn is_stale(&self, flow: Flow) -> bool {
        let (ip, port) = flow.to;
        if let Some(backends) = self.frontends.get(&Frontend { ip, protocol: Protocol::Udp, port }) {
            return !backends.contains(&flow.answered_by);
        }
        // A flow to a stranger's port of the same number is not translated.
        let translated = flow.answered_by != Backend { ip, port };
        let backends = self.node_ports.get(&NodePort { protocol: Protocol::Udp, port });
        translated && backends.is_some_and(|b| !b.contains(&flow.answered_by))
    }
}

fn flow(entry: &ConntrackEntry) -> Option<Flow> {
    let v4 = |ip: Option<IpAddr>| match ip? {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    Some(Flow {
        to: (v4(entry.orig.dst_ip)?, entry.orig.dst_port?),
        answered_by: Backend { ip: v4(entry.reply.src_ip)?, port: entry.reply.src_port? },
    })
}

/// Ends every flow to a Service that leads to none of its endpoints. Returns how many.
pub(super) async fn end_stale(conn: &Connection<Netfilter>, targets: &UdpTargets) -> nlink::Result<usize> {
    if targets.is_empty() {
        return Ok(0);
    }
    let filter = ConntrackFilter::new().family(AddressFamily::Inet).proto(IpProtocol::Udp);
    let mut ended = 0;
    for entry in conn.get_conntrack_matching(&filter).await? {
        if !flow(&entry).is_some_and(|flow| targets.is_stale(flow)) {
            continue;
        }
        match conn.del_conntrack_entry(&entry).await {
            Ok(()) => ended += 1,
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_to_absent_endpoints_are_stale() {
        let ip = |d| Ipv4Addr::new(10, 0, 0, d);
        let backend = |d| Backend { ip: ip(d), port: 53 };
        let set = || BTreeSet::from([backend(1)]);
        let targets = UdpTargets {
            frontends: BTreeMap::from([(Frontend { ip: ip(100), protocol: Protocol::Udp, port: 53 }, set())]),
            node_ports: BTreeMap::from([(NodePort { protocol: Protocol::Udp, port: 30053 }, set())]),
        };
        let stale = |to, answered_by| targets.is_stale(Flow { to, answered_by });
        assert!(!stale((ip(100), 53), backend(1)));
        assert!(stale((ip(100), 53), backend(2)), "another endpoint");
        assert!(stale((ip(100), 53), backend(100)), "begun before there was one");
        assert!(!stale((ip(100), 54), backend(100)), "no Service");
        assert!(!stale((ip(9), 30053), backend(1)));
        assert!(stale((ip(9), 30053), backend(2)));
        let stranger = Backend { ip: ip(9), port: 30053 };
        assert!(!stale((ip(9), 30053), stranger), "not translated");
    }
}
