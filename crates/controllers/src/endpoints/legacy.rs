//! The older form, Endpoints: one object for each Service.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::addresses::Backend;

/// Says that the slices are made from pods, not from this object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Addresses in one object at most.
const MOST: usize = 1000;
/// Says that there are more endpoints than the object names.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|l| l.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER)
}

pub(super) fn endpoints(service: &Service, found: &[Backend]) -> Endpoints {
    let spec = service.spec.clone().unwrap_or_default();
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    let mut all: Vec<&Backend> = found.iter().filter(|b| publish || !b.terminating).collect();
    let over = all.len() > MOST;
    if over {
        // Those that serve come first.
        all.sort_by_key(|backend| !backend.ready);
        all.truncate(MOST);
    }
    for backend in all {
        let ports: Vec<EndpointPort> = backend.ports.iter().map(port).collect();
        let place = subsets.iter().position(|s| s.ports.as_deref().unwrap_or_default() == ports);
        let place = place.unwrap_or_else(|| {
            let ports = (!ports.is_empty()).then_some(ports);
            subsets.push(EndpointSubset { ports, ..Default::default() });
            subsets.len() - 1
        });
        let address = address(backend);
        let subset = &mut subsets[place];
        let list = if backend.ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: over.then(|| BTreeMap::from([(OVER_CAPACITY.into(), "truncated".into())])),
            ..Default::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn port(port: &k8s_openapi::api::discovery::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port.unwrap_or(0),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn address(backend: &Backend) -> EndpointAddress {
    EndpointAddress {
        ip: backend.addresses.first().cloned().unwrap_or_default(),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.pod.clone()),
    }
}

pub(super) fn says_the_same(existing: &Endpoints, wanted: &Endpoints) -> bool {
    let none = BTreeMap::new();
    let has = existing.metadata.labels.as_ref().unwrap_or(&none);
    let labels = wanted.metadata.labels.as_ref().unwrap_or(&none);
    existing.subsets == wanted.subsets && has == labels && is_over(existing) == is_over(wanted)
}

fn is_over(endpoints: &Endpoints) -> bool {
    endpoints.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(OVER_CAPACITY))
}

/// What is there already, saying what is wanted. Other people's annotations stay.
pub(super) fn changed(existing: &Endpoints, wanted: Endpoints) -> Endpoints {
    let mut new = existing.clone();
    let annotations = new.metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    annotations.extend(wanted.metadata.annotations.into_iter().flatten());
    (new.metadata.labels, new.subsets) = (wanted.metadata.labels, wanted.subsets);
    new
}
