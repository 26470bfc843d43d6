//! Cluster addresses and node ports for Services (kubernetes/kubernetes,
//! `pkg/registry/core/service/storage/alloc.go`).

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use registry::ResourceDef;
use serde_json::{Value, json};
use store::Store;
use types::{FieldErrors, Path, str_at};

/// Addresses below this offset in the range are given only to those who ask for one by name: the API itself has
/// the first, DNS the tenth.
const RESERVED: u32 = 16;

#[derive(Default)]
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
    /// Where the search for a free address goes on; going round keeps freed addresses out of use for a while.
    next_address: u32,
    next_port: u16,
}

/// Knows what is taken. It is filled from the store at the start and kept up with every write to Services.
pub(crate) struct ServiceAllocator {
    range: Ipv4Net,
    ports: RangeInclusive<u16>,
    taken: Arc<Mutex<Taken>>,
}

/// What a write was given. Dropping it without [`Given::keep`] gives it back.
#[must_use]
pub(crate) struct Given {
    taken: Option<Arc<Mutex<Taken>>>,
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
    /// What the write lets go of if it succeeds.
    freed: (Vec<Ipv4Addr>, Vec<u16>),
}

impl Given {
    fn nothing() -> Self {
        Self { taken: None, addresses: Vec::new(), ports: Vec::new(), freed: Default::default() }
    }

    /// The write has happened.
    pub(crate) fn keep(&mut self) {
        if let Some(taken) = self.taken.take() {
            release(&taken, &self.freed.0, &self.freed.1);
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            release(taken, &self.addresses, &self.ports);
        }
    }
}

fn release(taken: &Mutex<Taken>, addresses: &[Ipv4Addr], ports: &[u16]) {
    let mut taken = taken.lock();
    for address in addresses {
        taken.addresses.remove(address);
    }
    for port in ports {
        taken.ports.remove(port);
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

impl ServiceAllocator {
    /// `None` if the range is too small.
    pub(crate) fn new(range: Ipv4Net, ports: RangeInclusive<u16>, store: &Store) -> Option<Self> {
        if range.prefix_len() > 28 {
            return None;
        }
        let mut taken = Taken { next_address: RESERVED, next_port: *ports.start(), ..Taken::default() };
        for record in store.snapshot("services").records.values() {
            let Ok(service) = serde_json::from_slice::<Value>(&record.value) else { continue };
            taken.addresses.extend(address_of(&service));
            taken.ports.extend(ports_of(&service));
        }
        Some(Self { range, ports, taken: Arc::new(Mutex::new(taken)) })
    }

    /// Gives a new or changed Service what it lacks, and refuses what others have.
    pub(crate) fn allocate(
        &self,
        def: &ResourceDef,
        new: &mut Value,
        old: Option<&Value>,
        errors: &mut FieldErrors,
    ) -> Given {
        if &*def.table != "services" || !errors.is_empty() {
            return Given::nothing();
        }
        let mut given = Given::nothing();
        given.taken = Some(self.taken.clone());
        let mut taken = self.taken.lock();
        self.allocate_address(new, old, &mut taken, &mut given, errors);
        self.allocate_ports(new, old, &mut taken, &mut given, errors);
        drop(taken);
        given
    }

    fn allocate_address(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        taken: &mut Taken,
        given: &mut Given,
        errors: &mut FieldErrors,
    ) {
        let had = old.and_then(address_of);
        let spec = &mut new["spec"];
        if spec["type"] == "ExternalName" {
            given.freed.0.extend(had);
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
                    Ok(address) if !self.range.contains(&address) => {
                        refuse(&format!(
                            "the provided network does not match the current range {}",
                            self.range
                        ));
                    }
                    Ok(address) if !taken.addresses.insert(address) => {
                        refuse("provided IP is already allocated")
                    }
                    Ok(address) => given.addresses.push(address),
                    Err(_) => refuse("must be a valid IPv4 address"),
                }
                text.to_owned()
            }
            None => match self.free_address(taken) {
                Some(address) => {
                    given.addresses.push(address);
                    address.to_string()
                }
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

    fn free_address(&self, taken: &mut Taken) -> Option<Ipv4Addr> {
        let base = u32::from(self.range.network());
        let size = u32::from(self.range.broadcast()) - base;
        for _ in RESERVED..size {
            let offset = taken.next_address.clamp(RESERVED, size - 1);
            taken.next_address = if offset + 1 >= size { RESERVED } else { offset + 1 };
            let address = Ipv4Addr::from(base + offset);
            if taken.addresses.insert(address) {
                return Some(address);
            }
        }
        None
    }

    fn allocate_ports(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        taken: &mut Taken,
        given: &mut Given,
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
                    match self.free_port(taken) {
                        Some(free) => {
                            given.ports.push(free);
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
            } else if !taken.ports.insert(asked) {
                errors.invalid(&path.index(i).child("nodePort"), asked, "provided port is already allocated");
            } else {
                given.ports.push(asked);
                own.insert(asked);
            }
        }
        given.freed.1.extend(had.into_iter().filter(|p| !own.contains(p)));
    }

    fn free_port(&self, taken: &mut Taken) -> Option<u16> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        for _ in first..=last {
            let port = taken.next_port.clamp(first, last);
            taken.next_port = if port == last { first } else { port + 1 };
            if taken.ports.insert(port) {
                return Some(port);
            }
        }
        None
    }

    /// Takes back what a deleted Service had.
    pub(crate) fn release_of(&self, def: &ResourceDef, service: &Value) {
        if &*def.table == "services" {
            let addresses: Vec<Ipv4Addr> = address_of(service).into_iter().collect();
            release(&self.taken, &addresses, &ports_of(service));
        }
    }
}
