//! Cluster addresses and node ports for Services (kubernetes/kubernetes,
//! `pkg/registry/core/service/{storage,ipallocator}`).
//!
//! Each address that a Service has is an IPAddress object, and each node port a record of a table that is not served.
//! They are written and removed in the Service's own transaction, so no two Services ever have the same one, whichever
//! servers they are made through; and nothing is taken that nobody has.

mod repair;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::Ipv4Net;
use registry::ResourceDef;
use serde_json::{Value, json};
use store::{CommitError, Expect, Op, Snapshot};
use types::{FieldErrors, Path, str_at};

use crate::object;
use crate::state::Inner;

pub(crate) use repair::start;

const SERVICES: &str = "services";
const ADDRESSES: &str = "ipaddresses.networking.k8s.io";
const RANGES: &str = "servicecidrs.networking.k8s.io";
const PORTS: &str = "servicenodeports";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// Addresses below this offset in the range are given only to those who ask for one by name: the API itself has
/// the first, DNS the tenth.
const RESERVED: u32 = 16;

/// Where the server's own ranges lie, and where the search for what is free goes on: going round keeps what was given back out of
/// use for a while, and what is being written from being chosen twice.
pub(crate) struct ServiceAllocator {
    range: Ipv4Net,
    ports: RangeInclusive<u16>,
    next_address: AtomicU32,
    next_port: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claim {
    Address(Ipv4Addr),
    Port(u16),
}

impl Claim {
    fn table(self) -> &'static str {
        match self {
            Self::Address(_) => ADDRESSES,
            Self::Port(_) => PORTS,
        }
    }

    fn key(self) -> Arc<str> {
        match self {
            Self::Address(address) => address.to_string().into(),
            Self::Port(port) => port.to_string().into(),
        }
    }
}

/// Whether objects of a kind are given addresses and ports, which others may be faster to take.
pub(crate) fn takes_addresses(def: &ResourceDef) -> bool {
    &*def.table == SERVICES
}

/// Whether a write of such an object failed only because somebody else was faster with an address or a port: it may
/// succeed with another. Whoever writes an address itself has lost nothing but that.
pub(crate) fn is_lost_race(def: &ResourceDef, error: &CommitError) -> bool {
    match error {
        CommitError::Exists { table, .. } | CommitError::NotFound { table, .. } => {
            takes_addresses(def) && matches!(&**table, ADDRESSES | PORTS)
        }
        _ => false,
    }
}

fn address_of(service: &Value) -> Option<Ipv4Addr> {
    str_at(service, &["spec", "clusterIP"])?.parse().ok()
}

fn ports_of(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports
        .filter_map(|p| p["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()))
        .filter(|p| *p != 0)
        .collect()
}

/// All that a Service has.
fn claims_of(service: &Value) -> HashSet<Claim> {
    let ports = ports_of(service).into_iter().map(Claim::Port);
    address_of(service).map(Claim::Address).into_iter().chain(ports).collect()
}

/// Whether the record of a claim is a Service's.
fn is_owned(record: &store::Record, namespace: &str, name: &str) -> bool {
    let Ok(object) = serde_json::from_slice::<Value>(&record.value) else { return false };
    let parent = &object["spec"]["parentRef"];
    parent["resource"] == SERVICES && parent["namespace"] == namespace && parent["name"] == name
}

/// The operations that belong to the change of the Service at `key` to `new`, or to its end: what it has shall be its own,
/// and what it lets go of free. Nothing for other kinds.
pub(crate) fn claims(server: &Inner, def: &ResourceDef, key: &str, new: Option<&Value>) -> Vec<Op> {
    if !takes_addresses(def) {
        return Vec::new();
    }
    let old = server.store.get(SERVICES, key).and_then(|r| serde_json::from_slice::<Value>(&r.value).ok());
    let (namespace, name) = object::split_key(key);
    let had = old.as_ref().map(claims_of).unwrap_or_default();
    let has = new.map(claims_of).unwrap_or_default();
    let take = has.difference(&had).map(|claim| server.take(*claim, namespace, name));
    take.chain(had.difference(&has).filter_map(|claim| server.free(*claim, namespace, name))).collect()
}

impl Inner {
    fn take(&self, claim: Claim, namespace: &str, name: &str) -> Op {
        let parent = json!({"group": "", "resource": SERVICES, "namespace": namespace, "name": name});
        let mut object = json!({"metadata": {}, "spec": {"parentRef": parent}});
        if let Claim::Address(address) = claim {
            object["apiVersion"] = "networking.k8s.io/v1".into();
            object["kind"] = "IPAddress".into();
            object["metadata"] = json!({
                "name": address.to_string(),
                "uid": self.config.ids.uid(),
                "creationTimestamp": self.timestamp(),
                "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", MANAGED_BY: ALLOCATOR},
            });
        }
        let registry = self.registry();
        let def =
            registry.find("networking.k8s.io", "v1", "ipaddresses").filter(|_| claim.table() == ADDRESSES);
        Op::Put {
            table: claim.table().into(),
            key: claim.key(),
            value: object::template(&object),
            terms: def.map(|def| object::terms(def, &object)).unwrap_or_default(),
            expect: Expect::Absent,
        }
    }

    fn free(&self, claim: Claim, namespace: &str, name: &str) -> Option<Op> {
        let record = self.store.get(claim.table(), &claim.key())?;
        is_owned(&record, namespace, name).then(|| delete(claim, Expect::Any))
    }
}

impl ServiceAllocator {
    /// `None` if the range is too small.
    pub(crate) fn new(range: Ipv4Net, ports: RangeInclusive<u16>) -> Option<Self> {
        if range.prefix_len() > 28 {
            return None;
        }
        let (next_address, next_port) = (AtomicU32::new(0), AtomicU32::new(0));
        Some(Self { range, ports, next_address, next_port })
    }

    /// Gives a new or changed Service what it lacks, and refuses what others have.
    pub(crate) fn allocate(
        &self,
        server: &Inner,
        def: &ResourceDef,
        new: &mut Value,
        old: Option<&Value>,
        errors: &mut FieldErrors,
    ) {
        if &*def.table == SERVICES && errors.is_empty() {
            let ranges = self.ranges(&server.store.snapshot(RANGES));
            self.allocate_address(&server.store.snapshot(ADDRESSES), &ranges, new, old, errors);
            self.allocate_ports(&server.store.snapshot(PORTS), new, old, errors);
        }
    }

    /// The ranges that addresses are given from: the server's own first, and then those that people have added and that
    /// are ready (upstream: `ipallocator/cidrallocator.go`).
    fn ranges(&self, added: &Snapshot) -> Vec<Ipv4Net> {
        let mut all = vec![self.range];
        for record in added.records.values() {
            let Ok(object) = serde_json::from_slice::<Value>(&record.value) else { continue };
            let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions.any(|c| c["type"] == "Ready" && c["status"] == "True");
            if ready && object["metadata"]["deletionTimestamp"].is_null() {
                let cidrs = object["spec"]["cidrs"].as_array().into_iter().flatten();
                let nets = cidrs.filter_map(|cidr| cidr.as_str()?.parse::<Ipv4Net>().ok());
                all.extend(nets.filter(|net| *net != self.range));
            }
        }
        all
    }

    fn allocate_address(
        &self,
        taken: &Snapshot,
        ranges: &[Ipv4Net],
        new: &mut Value,
        old: Option<&Value>,
        errors: &mut FieldErrors,
    ) {
        let had = old.and_then(address_of);
        let spec = &mut new["spec"];
        if spec["type"] == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                types::object(spec).remove(field);
            }
            return;
        }
        let asked = str_at(spec, &["clusterIP"]).or(spec["clusterIPs"][0].as_str().filter(|s| !s.is_empty()));
        let address = match asked {
            Some("None") => "None".to_owned(),
            Some(text) => {
                let root = Path::new("spec");
                let path = root.child("clusterIPs");
                let mut refuse = |why: &str| {
                    errors.invalid(&path, json!([text]), &format!("failed to allocate IP {text}: {why}"));
                };
                match text.parse::<Ipv4Addr>() {
                    Ok(address) if Some(address) == had => {}
                    Ok(address) if !ranges.iter().any(|range| range.contains(&address)) => {
                        let ranges: Vec<String> = ranges.iter().map(Ipv4Net::to_string).collect();
                        refuse(&format!(
                            "the provided network does not match the current range {}",
                            ranges.join(", ")
                        ));
                    }
                    Ok(address) if is_taken(taken, Claim::Address(address)) => {
                        refuse("provided IP is already allocated")
                    }
                    Ok(_) => {}
                    Err(_) => refuse("must be a valid IPv4 address"),
                }
                text.to_owned()
            }
            None => match ranges.iter().find_map(|range| self.free_address(*range, taken)) {
                Some(address) => address.to_string(),
                None => {
                    errors.invalid(
                        &Path::new("spec").child("clusterIPs"),
                        json!([]),
                        "failed to allocate a serviceIP: range is full",
                    );
                    return;
                }
            },
        };
        spec["clusterIPs"] = json!([address]);
        spec["clusterIP"] = address.into();
        types::set_default(spec, "ipFamilies", json!(["IPv4"]));
        types::set_default(spec, "ipFamilyPolicy", "SingleStack");
    }

    fn free_address(&self, range: Ipv4Net, taken: &Snapshot) -> Option<Ipv4Addr> {
        let base = u32::from(range.network());
        let size = u32::from(range.broadcast()) - base;
        // Of a small range everything is given.
        let reserved = if size > 2 * RESERVED { RESERVED } else { 1 };
        let count = size.saturating_sub(reserved);
        let address = |n| Ipv4Addr::from(base + reserved + n);
        self.next(&self.next_address, count, |n| !is_taken(taken, Claim::Address(address(n)))).map(address)
    }

    fn free_port(&self, taken: &Snapshot, own: &HashSet<u16>) -> Option<u16> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        // Within the range, which is of ports.
        let port = |n: u32| first + n as u16;
        let is_free = |n| !own.contains(&port(n)) && !is_taken(taken, Claim::Port(port(n)));
        self.next(&self.next_port, u32::from(last - first) + 1, is_free).map(port)
    }

    /// The next of `count` that is free, going round.
    fn next(&self, cursor: &AtomicU32, count: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
        (0..count).map(|_| cursor.fetch_add(1, Ordering::Relaxed) % count).find(|n| is_free(*n))
    }

    fn allocate_ports(
        &self,
        taken: &Snapshot,
        new: &mut Value,
        old: Option<&Value>,
        errors: &mut FieldErrors,
    ) {
        let had: Vec<u16> = old.map(ports_of).unwrap_or_default();
        let spec = &mut new["spec"];
        let wants = spec["type"] == "NodePort"
            || (spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false);
        let root = Path::new("spec");
        let path = root.child("ports");
        let mut own: HashSet<u16> = HashSet::new();
        for (i, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let asked = port["nodePort"].as_u64().unwrap_or(0) as u16;
            if asked == 0 {
                if wants {
                    match self.free_port(taken, &own) {
                        Some(free) => {
                            own.insert(free);
                            port["nodePort"] = free.into();
                        }
                        None => errors.invalid(
                            &path.index(i).child("nodePort"),
                            0,
                            "failed to allocate a nodePort: range is full",
                        ),
                    }
                }
                continue;
            }
            // TCP and UDP of one Service may share a number.
            if had.contains(&asked) || own.contains(&asked) {
                own.insert(asked);
                continue;
            }
            if !self.ports.contains(&asked) {
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    self.ports.start(),
                    self.ports.end()
                );
                errors.invalid(&path.index(i).child("nodePort"), asked, &why);
            } else if is_taken(taken, Claim::Port(asked)) {
                errors.invalid(&path.index(i).child("nodePort"), asked, "provided port is already allocated");
            } else {
                own.insert(asked);
            }
        }
    }
}

fn delete(claim: Claim, expect: Expect) -> Op {
    Op::Delete { table: claim.table().into(), key: claim.key(), value: None, expect }
}

fn is_taken(table: &Snapshot, claim: Claim) -> bool {
    table.records.contains_key(&*claim.key())
}
