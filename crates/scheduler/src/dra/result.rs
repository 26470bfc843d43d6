use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
    ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::allocate::Picked;
use super::known::Devices;
use super::slice::Reach;
use super::wanted::Wanted;

/// What is written into a claim's status. Shares have no name yet.
pub(super) fn allocation(
    claim: &ResourceClaim,
    wanted: &Wanted,
    picked: &[Picked<'_>],
    node: &str,
    devices: &Devices,
) -> AllocationResult {
    let results = picked.iter().map(|picked| result(wanted, picked)).collect();
    let config = configuration(claim, wanted, picked, devices);
    AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult {
            config: Some(config).filter(|config| !config.is_empty()),
            results: Some(results),
        }),
        node_selector: node_selector(picked, node),
    }
}

fn result(wanted: &Wanted, picked: &Picked<'_>) -> DeviceRequestAllocationResult {
    let choice = &wanted.requests[picked.request].choices[picked.choice];
    let device = &picked.offer.device;
    let shown = |share: &BTreeMap<String, types::Quantity>| {
        let names = share.iter().filter_map(|(name, q)| Some((picked.offer.capacity.get(name)?, q)));
        names
            .map(|(capacity, q)| (capacity.name.clone(), Quantity(q.to_string())))
            .collect::<BTreeMap<_, _>>()
    };
    DeviceRequestAllocationResult {
        request: choice.name.clone(),
        driver: picked.slice.driver.to_string(),
        pool: picked.slice.pool.to_string(),
        device: device.name.clone(),
        admin_access: choice.admin.then_some(true),
        binding_conditions: device.binding_conditions.clone(),
        binding_failure_conditions: device.binding_failure_conditions.clone(),
        consumed_capacity: picked.share.as_ref().map(shown).filter(|shown| !shown.is_empty()),
        // A name is given when it is written.
        share_id: picked.share.as_ref().map(|_| String::new()),
        tolerations: Some(choice.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
    }
}

/// What the drivers are told: first what the classes say, then what the claim says of the requests that were granted.
fn configuration(
    claim: &ResourceClaim,
    wanted: &Wanted,
    picked: &[Picked<'_>],
    devices: &Devices,
) -> Vec<DeviceAllocationConfiguration> {
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut of_class: BTreeMap<&str, std::ops::Range<usize>> = BTreeMap::new();
    let chosen = |number: usize| {
        let choice = picked.iter().find(|p| p.request == number).map_or(0, |p| p.choice);
        wanted.requests[number].choices.get(choice)
    };
    for number in 0..wanted.requests.len() {
        let Some(choice) = chosen(number) else { continue };
        if let Some(range) = of_class.get(&*choice.class) {
            for config in &mut all[range.clone()] {
                config.requests.get_or_insert_default().push(choice.name.clone());
            }
            continue;
        }
        let begin = all.len();
        let class = devices.whole_class(&choice.class);
        let configs = class.iter().flat_map(|class| class.spec.config.iter().flatten());
        all.extend(configs.map(|config| DeviceAllocationConfiguration {
            source: "FromClass".to_owned(),
            requests: Some(vec![choice.name.clone()]),
            opaque: config.opaque.clone(),
        }));
        of_class.insert(&choice.class, begin..all.len());
    }
    for config in claim.spec.devices.iter().flat_map(|d| d.config.iter().flatten()) {
        let named = config.requests.as_deref().unwrap_or_default();
        let entry = || DeviceAllocationConfiguration {
            source: "FromClaim".to_owned(),
            requests: config.requests.clone(),
            opaque: config.opaque.clone(),
        };
        if named.is_empty() {
            all.push(entry());
            continue;
        }
        let means = |number: &usize| {
            let is = |name: &str| named.iter().any(|n| n == name);
            is(&wanted.requests[*number].name) || chosen(*number).is_some_and(|choice| is(&choice.name))
        };
        all.extend((0..wanted.requests.len()).filter(means).map(|_| entry()));
    }
    for config in &mut all {
        // What is for all requests need not name them.
        if config.requests.as_ref().is_some_and(|names| names.len() == wanted.requests.len()) {
            config.requests = None;
        }
    }
    all
}

/// From where the devices can be used together; anywhere, if nothing is said (`createNodeSelector`).
fn node_selector(picked: &[Picked<'_>], node: &str) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for picked in picked {
        let reach = match &picked.slice.reach {
            Reach::Device => &picked.offer.reach,
            reach => reach,
        };
        if matches!(reach, Reach::Node(_)) || picked.offer.device.binds_to_node == Some(true) {
            return Some(only(node));
        }
        if let Reach::Selected { selector, .. } = reach
            && let [only] = selector.node_selector_terms.as_slice()
        {
            merge(&mut term.match_fields, only.match_fields.as_deref());
            merge(&mut term.match_expressions, only.match_expressions.as_deref());
        }
    }
    let empty = term.match_fields.is_none() && term.match_expressions.is_none();
    (!empty).then(|| NodeSelector { node_selector_terms: vec![term] })
}

fn only(node: &str) -> NodeSelector {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
    NodeSelector { node_selector_terms: vec![term] }
}

fn merge(all: &mut Option<Vec<NodeSelectorRequirement>>, more: Option<&[NodeSelectorRequirement]>) {
    let values = |r: &NodeSelectorRequirement| r.values.iter().flatten().cloned().collect::<BTreeSet<_>>();
    for requirement in more.into_iter().flatten() {
        let same = |known: &NodeSelectorRequirement| {
            (&known.key, &known.operator) == (&requirement.key, &requirement.operator)
                && values(known) == values(requirement)
        };
        if !all.iter().flatten().any(same) {
            all.get_or_insert_default().push(requirement.clone());
        }
    }
}
