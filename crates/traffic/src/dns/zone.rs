//! The cluster's names, answered from one snapshot of its Services.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::{Endpoint, Service, ServiceName, ServiceState, ServiceType};

/// How long answers may be remembered, in seconds; negative ones too.
const TTL: u32 = 5;
/// The version of the specification these names follow.
const SCHEMA_VERSION: &str = "1.1.0";

/// What the cluster knows about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Records; some of them for the additional section.
    Records {
        /// What was asked for.
        answers: Vec<Record>,
        /// What is asked next.
        additionals: Vec<Record>,
        /// The name an alias leads to, outside the cluster: its records complete the answer.
        chase: Option<Name>,
    },
    /// The name exists, without records of that type.
    NoData,
    /// The name does not exist.
    NoName,
}

/// An immutable snapshot of all names.
#[derive(Debug)]
pub struct Zone {
    state: ServiceState,
    /// The cluster's domain.
    domain: Name,
    soa: Record,
    /// Names of addresses: those of Services, and of endpoints of headless ones.
    reverse: HashMap<IpAddr, Vec<Name>>,
}

impl Zone {
    /// The names of `state` under `domain`, such as `cluster.local`.
    pub fn new(state: ServiceState, domain: &str) -> Result<Self, ProtoError> {
        let mut domain = Name::from_ascii(domain)?.to_lowercase();
        domain.set_fqdn(true);
        let mname = domain.prepend_label("dns")?.prepend_label("ns")?;
        let soa = SOA::new(mname, domain.prepend_label("hostmaster")?, 1, 7200, 1800, 86400, TTL as _);
        let soa = Record::from_rdata(domain.clone(), TTL, RData::SOA(soa));
        let mut zone = Self { state, domain, soa, reverse: HashMap::new() };
        zone.index();
        Ok(zone)
    }

    fn index(&mut self) {
        let mut reverse: HashMap<IpAddr, Vec<Name>> = HashMap::new();
        for (key, service) in &self.state.services {
            // A name that does not fit into DNS has no records, and no pointer to them.
            let Ok(name) = self.service_name(key) else { continue };
            for ip in &service.cluster_ips {
                reverse.entry(*ip).or_default().push(name.clone());
            }
            if service.is_headless() {
                for endpoint in published(service) {
                    if let Ok(name) = name.prepend_label(endpoint_label(endpoint).as_bytes()) {
                        let names = reverse.entry(endpoint.ip).or_default();
                        if !names.contains(&name) {
                            names.push(name);
                        }
                    }
                }
            }
        }
        self.reverse = reverse;
    }

    /// The record that goes with negative answers.
    pub fn soa(&self) -> &Record {
        &self.soa
    }

    /// What the cluster says to a question; none if the name is not the cluster's. `turn` shifts the order of
    /// addresses, so that clients which take the first one spread.
    pub fn answer(&self, name: &Name, kind: RecordType, turn: u32) -> Option<Answer> {
        if let Some(ip) = reverse_address(name) {
            let names = self.reverse.get(&ip)?;
            return Some(self.pointers(name, kind, names));
        }
        if !self.domain.zone_of(name) {
            return None;
        }
        let lower = name.to_lowercase();
        // Not by `num_labels`, which leaves a leading asterisk out.
        let count = name.iter().count() - self.domain.iter().count();
        let labels: Option<Vec<&str>> =
            lower.iter().take(count).map(|l| std::str::from_utf8(l).ok()).collect();
        let Some(labels) = labels else { return Some(Answer::NoName) };
        let found = self.inside(name, &labels, kind).unwrap_or(Answer::NoName);
        Some(match found {
            Answer::Records { answers, .. } if answers.is_empty() => Answer::NoData,
            Answer::Records { mut answers, additionals, chase } => {
                // An alias comes before what it leads to.
                if answers.len() > 1 && answers.iter().all(|r| r.record_type() == kind) {
                    let by = turn as usize % answers.len();
                    answers.rotate_left(by);
                }
                Answer::Records { answers, additionals, chase }
            }
            other => other,
        })
    }

    fn pointers(&self, name: &Name, kind: RecordType, names: &[Name]) -> Answer {
        if !matches!(kind, RecordType::PTR | RecordType::ANY) {
            return Answer::NoData;
        }
        let records = names.iter().map(|n| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(n.clone()))));
        plain(records.collect())
    }

    /// A name in the cluster's domain: the labels before it. None if there is no such name.
    fn inside(&self, name: &Name, labels: &[&str], kind: RecordType) -> Option<Answer> {
        match labels {
            [] => Some(self.apex(name, kind)),
            ["dns-version"] => Some(match kind {
                RecordType::TXT | RecordType::ANY => {
                    let txt = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
                    plain(vec![Record::from_rdata(name.clone(), TTL, txt)])
                }
                _ => Answer::NoData,
            }),
            ["dns"] | ["svc" | "pod"] => Some(Answer::NoData),
            ["ns", "dns"] => Some(Answer::NoData),
            [namespace, "svc"] => self.has_namespace(namespace).then_some(Answer::NoData),
            [_, "pod"] => Some(Answer::NoData),
            [address, _, "pod"] => {
                let ip = dashed(address)?;
                Some(plain(address_record(name, kind, ip).into_iter().collect()))
            }
            [rest @ .., service, namespace, "svc"] => {
                let key = ServiceName::new(namespace, service);
                let service = self.state.services.get(&key)?;
                self.service(name, &key, service, rest, kind)
            }
            _ => None,
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA | RecordType::ANY => plain(vec![self.soa.clone()]),
            RecordType::NS => match &self.soa.data {
                RData::SOA(soa) => {
                    plain(vec![Record::from_rdata(name.clone(), TTL, RData::NS(NS(soa.mname.clone())))])
                }
                _ => Answer::NoData,
            },
            _ => Answer::NoData,
        }
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        let first = self.state.services.range(ServiceName::new(namespace, "")..).next();
        first.is_some_and(|(key, _)| &*key.namespace == namespace)
    }

    fn service(
        &self,
        name: &Name,
        key: &ServiceName,
        service: &Service,
        rest: &[&str],
        kind: RecordType,
    ) -> Option<Answer> {
        if let ServiceType::ExternalName(target) = &service.kind {
            return rest.is_empty().then(|| self.alias(name, target, kind)).flatten();
        }
        match rest {
            [] if kind == RecordType::SRV => self.ports(name, key, service, None),
            [] if service.is_headless() => {
                let records = published(service).filter_map(|e| address_record(name, kind, e.ip));
                Some(plain(dedup(records.collect())))
            }
            [] => Some(plain(
                service.cluster_ips.iter().filter_map(|ip| address_record(name, kind, *ip)).collect(),
            )),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let wanted = (&port[1..], &protocol[1..]);
                let exists = service
                    .ports
                    .iter()
                    .any(|p| &*p.name == wanted.0 && p.protocol.name().eq_ignore_ascii_case(wanted.1));
                match kind {
                    _ if !exists => None,
                    RecordType::SRV | RecordType::ANY => self.ports(name, key, service, Some(wanted)),
                    _ => Some(Answer::NoData),
                }
            }
            [protocol] if protocol.starts_with('_') => {
                let has =
                    service.ports.iter().any(|p| p.protocol.name().eq_ignore_ascii_case(&protocol[1..]));
                has.then_some(Answer::NoData)
            }
            [endpoint] if service.is_headless() => {
                let mut named = published(service)
                    .filter(|e| endpoint_label(e).eq_ignore_ascii_case(endpoint))
                    .peekable();
                named.peek()?;
                Some(plain(dedup(named.filter_map(|e| address_record(name, kind, e.ip)).collect())))
            }
            _ => None,
        }
    }

    fn alias(&self, name: &Name, target: &str, kind: RecordType) -> Option<Answer> {
        let mut target = Name::from_ascii(target).ok()?;
        target.set_fqdn(true);
        let record = Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target.clone())));
        let mut answers = vec![record];
        let mut chase = None;
        if !matches!(kind, RecordType::CNAME | RecordType::ANY) {
            // One step inside the cluster is followed here; a chain of aliases is left to the client.
            match self.one_step(&target, kind) {
                Some(Answer::Records { answers: more, .. }) => answers.extend(more),
                Some(_) => {}
                None => chase = Some(target),
            }
        }
        Some(Answer::Records { answers, additionals: Vec::new(), chase })
    }

    /// The records of an alias's target; none if it is outside the cluster.
    fn one_step(&self, target: &Name, kind: RecordType) -> Option<Answer> {
        if !self.domain.zone_of(target) {
            return None;
        }
        let lower = target.to_lowercase();
        let count = usize::from(target.num_labels()) - usize::from(self.domain.num_labels());
        let labels: Vec<&str> =
            lower.iter().take(count).filter_map(|l| std::str::from_utf8(l).ok()).collect();
        match labels[..] {
            [service, namespace, "svc"] => {
                let service = self.state.services.get(&ServiceName::new(namespace, service));
                match service {
                    Some(s) if !matches!(s.kind, ServiceType::ExternalName(_)) => {
                        self.inside(target, &labels, kind)
                    }
                    _ => Some(Answer::NoName),
                }
            }
            _ => Some(self.inside(target, &labels, kind).unwrap_or(Answer::NoName)),
        }
    }

    /// SRV records: of one port, or of all.
    fn ports(
        &self,
        name: &Name,
        key: &ServiceName,
        service: &Service,
        wanted: Option<(&str, &str)>,
    ) -> Option<Answer> {
        let asked = |port: &str, protocol: &str| {
            wanted.is_none_or(|(p, proto)| p == port && proto.eq_ignore_ascii_case(protocol))
        };
        let base = self.service_name(key).ok()?;
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        let srv = |port, target: &Name| {
            Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, 100, port, target.clone())))
        };
        if service.is_headless() {
            for endpoint in published(service) {
                let Ok(target) = base.prepend_label(endpoint_label(endpoint).as_bytes()) else { continue };
                for port in endpoint.ports.iter().filter(|p| asked(&p.name, p.protocol.name())) {
                    answers.push(srv(port.port, &target));
                    additionals.extend(any_address(&target, endpoint.ip));
                }
            }
        } else {
            for port in service.ports.iter().filter(|p| asked(&p.name, p.protocol.name())) {
                answers.push(srv(port.port, &base));
            }
            if !answers.is_empty() {
                additionals.extend(service.cluster_ips.iter().flat_map(|ip| any_address(&base, *ip)));
            }
        }
        Some(Answer::Records { answers: dedup(answers), additionals: dedup(additionals), chase: None })
    }

    fn service_name(&self, key: &ServiceName) -> Result<Name, ProtoError> {
        self.domain
            .prepend_label("svc")?
            .prepend_label(key.namespace.as_bytes())?
            .prepend_label(key.name.as_bytes())
    }
}

/// The endpoints of a headless Service that have names.
fn published(service: &Service) -> impl Iterator<Item = &Endpoint> {
    service.endpoints.iter().filter(|e| e.ready || service.publish_not_ready)
}

/// An endpoint's label: its hostname, or its address with dashes.
fn endpoint_label(endpoint: &Endpoint) -> String {
    match &endpoint.hostname {
        Some(hostname) => hostname.to_string(),
        None => endpoint.ip.to_string().replace(['.', ':'], "-"),
    }
}

fn plain(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new(), chase: None }
}

fn dedup(mut records: Vec<Record>) -> Vec<Record> {
    let mut kept: Vec<Record> = Vec::with_capacity(records.len());
    // Slices of one Service may repeat an address. Few of them are long, so a search is cheap; long ones are sorted.
    if records.len() > 64 {
        records.sort_by_cached_key(|r| r.data.to_string());
        records.dedup();
        return records;
    }
    for record in records {
        if !kept.contains(&record) {
            kept.push(record);
        }
    }
    kept
}

fn address_record(name: &Name, kind: RecordType, ip: IpAddr) -> Option<Record> {
    let wanted = match ip {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    };
    (kind == wanted || kind == RecordType::ANY).then(|| any_address(name, ip)).flatten()
}

fn any_address(name: &Name, ip: IpAddr) -> Option<Record> {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

/// `1-2-3-4` or `2001-db8--1`.
fn dashed(label: &str) -> Option<IpAddr> {
    if let Ok(ip) = label.replace('-', ".").parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// The address a name under `in-addr.arpa` or `ip6.arpa` stands for, if it is a whole one.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&str> = name.iter().map(|l| std::str::from_utf8(l).ok()).collect::<Option<_>>()?;
    let ends = |label: &str, with: &str| label.eq_ignore_ascii_case(with);
    match labels[..] {
        [d, c, b, a, zone, arpa] if ends(zone, "in-addr") && ends(arpa, "arpa") => {
            format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        [ref nibbles @ .., zone, arpa] if nibbles.len() == 32 && ends(zone, "ip6") && ends(arpa, "arpa") => {
            let mut address = 0u128;
            for nibble in nibbles.iter().rev() {
                if nibble.len() != 1 {
                    return None;
                }
                address = address << 4 | u128::from(u8::from_str_radix(nibble, 16).ok()?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(address)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
