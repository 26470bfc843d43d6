use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Attribute, Device as SeenDevice};
use client::{Labels, NodeTerm};
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, ResourceSlice};
use types::Quantity;

use super::amounts::{Amounts, Capacity, amount, full_name};

/// A slice, made ready for many looks.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(super) driver: Arc<str>,
    pub(super) pool: Arc<str>,
    pub(super) generation: i64,
    /// How many slices its pool has.
    pub(super) count: i64,
    pub(super) reach: Reach,
    pub(super) offers: Vec<Offer>,
    /// What devices of its pool may use up together, by the set's name.
    pub(super) counters: BTreeMap<String, Amounts>,
}

/// A device.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Driver, pool and name.
    pub(super) id: Arc<str>,
    pub(super) device: Device,
    /// By names with their domains.
    pub(super) capacity: BTreeMap<String, Capacity>,
    /// What it uses up, by set.
    pub(super) consumes: Vec<(String, Amounts)>,
    /// Where it can be used, if its slice leaves that to the device.
    pub(super) reach: Reach,
}

/// From which nodes devices can be used.
#[derive(Debug)]
pub(super) enum Reach {
    Node(String),
    Anywhere,
    Selected {
        terms: Vec<NodeTerm>,
        selector: NodeSelector,
    },
    /// Each device says so itself.
    Device,
    Nowhere,
}

impl Reach {
    fn of(node: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>) -> Self {
        match (node.filter(|name| !name.is_empty()), all, selector) {
            (Some(name), ..) => Self::Node(name.clone()),
            (None, Some(true), _) => Self::Anywhere,
            (None, _, Some(selector)) => {
                let terms = selector.node_selector_terms.iter().map(NodeTerm::of).collect();
                Self::Selected { terms, selector: selector.clone() }
            }
            (None, _, None) => Self::Nowhere,
        }
    }

    /// Whether it is a node from which the devices can be used.
    pub(super) fn includes(&self, node: &str, labels: &Labels) -> bool {
        match self {
            Self::Node(name) => name == node,
            Self::Anywhere => true,
            Self::Selected { terms, .. } => terms.iter().any(|term| term.holds(node, labels)),
            Self::Device | Self::Nowhere => false,
        }
    }
}

impl Slice {
    pub(super) fn of(slice: &ResourceSlice) -> Self {
        let spec = &slice.spec;
        let (driver, pool): (Arc<str>, Arc<str>) =
            (spec.driver.as_str().into(), spec.pool.name.as_str().into());
        let reach = match spec.per_device_node_selection {
            Some(true) => Reach::Device,
            _ => Reach::of(spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref()),
        };
        let sets = spec.shared_counters.iter().flatten().map(|set| {
            let counters = set.counters.iter().map(|(name, counter)| (name.clone(), amount(&counter.value)));
            (set.name.clone(), counters.collect())
        });
        Self {
            generation: spec.pool.generation,
            count: spec.pool.resource_slice_count,
            offers: spec.devices.iter().flatten().map(|device| Offer::of(device, &driver, &pool)).collect(),
            counters: sets.collect(),
            reach,
            driver,
            pool,
        }
    }

    /// Whether a node can use some of it.
    pub(super) fn serves(&self, node: &str, labels: &Labels) -> bool {
        match &self.reach {
            Reach::Device => self.offers.iter().any(|offer| offer.reach.includes(node, labels)),
            reach => reach.includes(node, labels),
        }
    }
}

impl Offer {
    fn of(device: &Device, driver: &str, pool: &str) -> Self {
        let capacity = device.capacity.iter().flatten();
        let consumes = device.consumes_counters.iter().flatten().map(|used| {
            let counters = used.counters.iter().map(|(name, counter)| (name.clone(), amount(&counter.value)));
            (used.counter_set.clone(), counters.collect())
        });
        Self {
            id: format!("{driver}/{pool}/{}", device.name).into(),
            capacity: capacity.map(|(name, c)| (full_name(name, driver), Capacity::of(name, c))).collect(),
            consumes: consumes.collect(),
            reach: Reach::of(device.node_name.as_ref(), device.all_nodes, device.node_selector.as_ref()),
            device: device.clone(),
        }
    }

    /// Whether it can be given to several at once.
    pub(super) fn is_shared(&self) -> bool {
        self.device.allow_multiple_allocations == Some(true)
    }

    /// An attribute by its name with a domain (`lookupAttribute`).
    pub(super) fn attribute(&self, name: &str, driver: &str) -> Option<&DeviceAttribute> {
        let attributes = self.device.attributes.as_ref()?;
        let own = || attributes.get(name.strip_prefix(driver)?.strip_prefix('/')?);
        attributes.get(name).or_else(own)
    }

    /// As expressions see it.
    pub(super) fn seen<'a>(&'a self, driver: &'a str) -> SeenDevice<'a> {
        let attributes = self.device.attributes.iter().flatten();
        let capacity = self.device.capacity.iter().flatten();
        SeenDevice {
            driver,
            allow_multiple_allocations: self.is_shared(),
            attributes: attributes.map(|(name, value)| (name.as_str(), seen(value))).collect(),
            capacity: capacity
                .map(|(name, c)| (name.as_str(), amount(&c.value)))
                .collect::<Vec<(&str, Quantity)>>(),
        }
    }
}

fn seen(value: &DeviceAttribute) -> Attribute<'_> {
    match value {
        DeviceAttribute { int: Some(n), .. } => Attribute::Int(*n),
        DeviceAttribute { bool: Some(is), .. } => Attribute::Bool(*is),
        DeviceAttribute { string: Some(text), .. } => Attribute::Text(text),
        DeviceAttribute { version: Some(text), .. } => Attribute::Version(text),
        _ => Attribute::Unknown,
    }
}
