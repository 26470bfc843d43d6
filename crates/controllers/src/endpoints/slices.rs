//! What slices there should be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::addresses::Backend;
use super::{MANAGED_BY, MANAGER, SERVICE_NAME, owner};
use crate::metrics::{Sizes, endpoints_changed, slices_changed, slices_of, traffic_distribution};

const HEADLESS: &str = "service.kubernetes.io/headless";

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    /// Names.
    pub(super) delete: Vec<String>,
}

/// One address family and one list of ports: what a slice has in common.
type Group = (String, String);

/// What turns the slices that exist into those that should. Endpoints stay in the slice they are in, so that one
/// pod's change rewrites one slice. No slice gets more than `most`.
pub(super) fn plan(
    service: &Service,
    found: &[Backend],
    existing: &[Arc<EndpointSlice>],
    most: usize,
) -> Plan {
    let mut plan = Plan::default();
    let (mut groups, ports) = group(service, found);
    let labels = labels(service);
    for slice in existing {
        let group = (slice.address_type.clone(), ports_key(slice.ports.as_deref().unwrap_or_default()));
        let wanted = groups.get_mut(&group);
        let mut kept = Vec::new();
        if let Some(wanted) = wanted {
            // What a smaller slice has no room for finds another one.
            for endpoint in slice.endpoints.iter().flatten() {
                if kept.len() < most {
                    kept.extend(wanted.remove(&identity(endpoint)));
                }
            }
        }
        if kept.is_empty() {
            plan.delete.push(slice.metadata.name.clone().unwrap_or_default());
            continue;
        }
        let mut new = (**slice).clone();
        new.endpoints = Some(kept);
        new.metadata.labels = Some(labels.clone());
        new.metadata.owner_references = Some(vec![owner(service)]);
        plan.update.push(new);
    }
    // New endpoints go where there is room, and then into new slices.
    for slice in &mut plan.update {
        let group = (slice.address_type.clone(), ports_key(slice.ports.as_deref().unwrap_or_default()));
        let (Some(wanted), Some(endpoints)) = (groups.get_mut(&group), &mut slice.endpoints) else {
            continue;
        };
        while endpoints.len() < most
            && let Some((_, endpoint)) = wanted.pop_first()
        {
            endpoints.push(endpoint);
        }
    }
    for ((family, key), wanted) in groups {
        let wanted: Vec<Endpoint> = wanted.into_values().collect();
        for endpoints in wanted.chunks(most) {
            plan.create.push(slice(service, &family, ports.get(&key), endpoints.to_vec(), &labels));
        }
    }
    // An empty Service still has one slice, so that its readers see that it is empty. An emptied one is used again.
    if plan.create.is_empty() && plan.update.is_empty() {
        let family = families(service).remove(0);
        match existing.iter().find(|s| s.address_type == family) {
            Some(spare) => {
                let empty = slice(service, &family, None, Vec::new(), &labels);
                let metadata = ObjectMeta { labels: Some(labels), ..spare.metadata.clone() };
                plan.delete.retain(|name| Some(name) != spare.metadata.name.as_ref());
                plan.update.push(EndpointSlice { metadata, ..empty });
            }
            None => plan.create.push(slice(service, &family, None, Vec::new(), &labels)),
        }
    }
    plan.update.retain(|new| existing.iter().all(|old| !says_the_same(old, new)));
    plan
}

/// Counts what a plan changes, and what there is after it.
pub(super) fn count(service: &Service, plan: &Plan, existing: &[Arc<EndpointSlice>], most: usize) {
    let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
    let key = Key::of(service);
    traffic_distribution(key.as_str(), distribution);
    let changed = plan.create.len() + plan.update.len() + plan.delete.len();
    slices_changed(distribution.unwrap_or_default(), changed);
    let all = |slices: &mut dyn Iterator<Item = &EndpointSlice>| -> HashSet<String> {
        slices
            .flat_map(|s| s.endpoints.iter().flatten().map(|e| format!("{} {}", s.address_type, identity(e))))
            .collect()
    };
    let is_kept = |old: &&Arc<EndpointSlice>| {
        let name = old.metadata.name.as_deref().unwrap_or_default();
        !plan.delete.iter().any(|gone| gone == name)
            && plan.update.iter().all(|new| new.metadata.name.as_deref() != Some(name))
    };
    let kept: Vec<&EndpointSlice> = existing.iter().filter(is_kept).map(|slice| &**slice).collect();
    let after = || kept.iter().copied().chain(&plan.update).chain(&plan.create);
    let (before, now) = (all(&mut existing.iter().map(|slice| &**slice)), all(&mut after()));
    endpoints_changed(now.difference(&before).count(), before.difference(&now).count());
    let mut groups: HashMap<(String, String), usize> = HashMap::new();
    for slice in after() {
        let ports = ports_key(slice.ports.as_deref().unwrap_or_default());
        let endpoints = slice.endpoints.as_ref().map_or(0, Vec::len);
        *groups.entry((slice.address_type.clone(), ports)).or_default() += endpoints;
    }
    let needed = groups.values().map(|endpoints| endpoints.div_ceil(most).max(1)).sum();
    let sizes = Sizes { endpoints: now.len(), slices: after().count(), needed };
    slices_of(key.as_str(), Some(sizes));
}

pub(super) fn says_the_same(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    old.metadata.name == new.metadata.name
        && old.metadata.labels == new.metadata.labels
        && old.metadata.owner_references == new.metadata.owner_references
        && old.endpoints.as_deref().unwrap_or_default() == new.endpoints.as_deref().unwrap_or_default()
        && old.ports.as_deref().unwrap_or_default() == new.ports.as_deref().unwrap_or_default()
}

/// The pod's UID, or the address where there is no pod.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.clone());
    uid.or_else(|| endpoint.addresses.first().cloned()).unwrap_or_default()
}

pub(super) fn ports_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<String> =
        ports.iter().map(|p| format!("{:?}", (&p.name, p.port, &p.protocol, &p.app_protocol))).collect();
    keys.sort();
    keys.join(";")
}

fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".into()] } else { families }
}

type Groups = BTreeMap<Group, BTreeMap<String, Endpoint>>;

fn group(service: &Service, found: &[Backend]) -> (Groups, HashMap<String, Vec<EndpointPort>>) {
    let (mut groups, mut ports) = (Groups::new(), HashMap::new());
    for family in families(service) {
        for backend in found {
            let address = backend.addresses.iter().find(|a| a.contains(':') == (family == "IPv6"));
            let Some(address) = address else { continue };
            let key = ports_key(&backend.ports);
            ports.entry(key.clone()).or_insert_with(|| backend.ports.clone());
            let endpoint = Endpoint { hints: hints(service, backend), ..endpoint(backend, address) };
            groups.entry((family.clone(), key)).or_default().insert(identity(&endpoint), endpoint);
        }
    }
    (groups, ports)
}

/// From where an endpoint is best used, if the Service wants its traffic to stay near (upstream: `trafficdist`,
/// `preferCloseHeuristic`).
fn hints(service: &Service, backend: &Backend) -> Option<EndpointHints> {
    let wish = service.spec.as_ref()?.traffic_distribution.as_deref().filter(|_| backend.ready)?;
    let on_node = match wish {
        "PreferSameNode" => true,
        "PreferSameZone" | "PreferClose" => false,
        _ => return None,
    };
    let for_zones = backend.zone.clone().map(|name| vec![ForZone { name }]);
    let for_nodes = backend.node.clone().filter(|_| on_node).map(|name| vec![ForNode { name }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

fn endpoint(backend: &Backend, address: &str) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        zone: backend.zone.clone(),
        target_ref: Some(backend.pod.clone()),
        ..Default::default()
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    let headless = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn slice(
    service: &Service,
    family: &str,
    ports: Option<&Vec<EndpointPort>>,
    endpoints: Vec<Endpoint>,
    labels: &BTreeMap<String, String>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner(service)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.cloned().unwrap_or_default()),
    }
}
