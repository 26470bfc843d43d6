//! Extended resources that nodes have as devices: a class stands for each (kubernetes/kubernetes,
//! `pkg/scheduler/framework/plugins/dynamicresources/extendeddynamicresources.go`).

use std::collections::HashMap;

use client::{ContainerView, is_sidecar};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::allocate::Memo;
use super::known::Devices;
use super::wanted::Wanted;
use crate::pod::PodInfo;

/// Every class stands for the resource of this name and its own.
const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/";

/// What a pod asks of a node that has some of its extended resources as devices.
#[derive(Debug)]
pub(super) struct Extended {
    pub(super) key: String,
    /// As it is to be made.
    pub(super) claim: ResourceClaim,
    pub(super) wanted: Wanted,
    /// Which container's resource is which request.
    pub(super) mappings: Value,
    pub(super) memo: Memo,
}

/// The classes that stand for resources. Of several for the same one, the youngest counts.
pub(super) fn classes<'a>(all: impl Iterator<Item = &'a DeviceClass>) -> HashMap<String, String> {
    let mut named: HashMap<&str, &DeviceClass> = HashMap::new();
    let mut found = HashMap::new();
    for class in all {
        found.insert(format!("{IMPLICIT}{}", class.name_any()), class.name_any());
        let Some(resource) = class.spec.extended_resource_name.as_deref().filter(|n| !n.is_empty()) else {
            continue;
        };
        let born = |class: &DeviceClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        match named.get(resource) {
            // They come by name.
            Some(known) if born(known) >= born(class) => {}
            _ => drop(named.insert(resource, class)),
        }
    }
    found.extend(named.into_iter().map(|(resource, class)| (resource.to_owned(), class.name_any())));
    found
}

/// The resources that a pod asks for and that a class stands for.
pub(super) fn names<'a>(pod: &'a PodInfo, devices: &Devices) -> Vec<&'a str> {
    if devices.extended.is_empty() {
        return Vec::new();
    }
    let asked = pod.wants().requests.others.iter().filter(|(_, amount)| **amount > 0);
    asked.map(|(name, _)| name.as_str()).filter(|name| devices.extended.contains_key(*name)).collect()
}

impl Extended {
    pub(super) fn of(pod: &PodInfo, names: &[&str], devices: &Devices) -> Self {
        let (requests, mappings) = requests(pod, names, devices);
        let (namespace, name) = (pod.key.namespace(), pod.key.name());
        let claim = ResourceClaim {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                generate_name: Some(format!("{name}-extended-resources-")),
                annotations: Some([(client::devices::EXTENDED.to_owned(), "true".to_owned())].into()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Pod".to_owned(),
                    name: name.to_owned(),
                    uid: pod.uid.to_string(),
                    controller: Some(true),
                    block_owner_deletion: None,
                }]),
                ..ObjectMeta::default()
            },
            spec: ResourceClaimSpec {
                devices: Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() }),
            },
            status: None,
        };
        let wanted = Wanted::of(&claim);
        let key = format!("{namespace}/<extended-resources>");
        Self { key, claim, wanted, mappings: Value::Array(mappings), memo: Memo::default() }
    }
}

/// One request for each container and resource. Containers that run before others use the devices of those, and, of one
/// request more, as much as the greediest of them needs (`createRequestsAndMappings`).
fn requests(pod: &PodInfo, names: &[&str], devices: &Devices) -> (Vec<DeviceRequest>, Vec<Value>) {
    let spec = pod.wants().spec();
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let containers: Vec<&ContainerView> = inits.iter().chain(&spec.containers).collect();
    let is_brief = |place: usize| place < inits.len() && !is_sidecar(containers[place]);
    let (mut all, mut mappings) = (Vec::new(), Vec::new());
    let mut names = names.to_vec();
    names.sort_unstable();
    for resource in names {
        let Some(class) = devices.extended.get(resource) else { continue };
        let mut lasting: Vec<Option<(String, i64)>> = vec![None; containers.len()];
        for (place, container) in containers.iter().enumerate().filter(|(place, _)| !is_brief(*place)) {
            if let Some((count, name)) = asked(container, place, resource) {
                mappings.push(mapping(container, resource, &name));
                lasting[place] = Some((name, count));
            }
        }
        let mut largest: Option<(String, i64)> = None;
        let mut brief: Vec<(usize, String)> = Vec::new();
        let mut reused: Vec<Value> = Vec::new();
        for (place, container) in containers.iter().enumerate().filter(|(place, _)| is_brief(*place)) {
            let Some((count, name)) = asked(container, place, resource) else { continue };
            let mut left = count;
            for (other, has) in lasting[place..].iter().flatten() {
                if left <= 0 {
                    break;
                }
                reused.push(mapping(container, resource, other));
                left -= has;
            }
            if left > 0 {
                if largest.as_ref().is_none_or(|(_, most)| *most < left) {
                    largest = Some((name.clone(), left));
                }
                brief.push((place, name));
            }
        }
        mappings.append(&mut reused);
        if let Some((name, _)) = &largest {
            mappings.extend(brief.iter().map(|(place, _)| mapping(containers[*place], resource, name)));
        }
        for (name, count) in largest.into_iter().chain(lasting.into_iter().flatten()) {
            let exactly = ExactDeviceRequest {
                device_class_name: class.clone(),
                allocation_mode: Some("ExactCount".to_owned()),
                count: Some(count),
                ..ExactDeviceRequest::default()
            };
            all.push(DeviceRequest { name, exactly: Some(exactly), first_available: None });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    (all, mappings)
}

/// How many a container asks for, and the name of its request: by the container's place and the resource's among all
/// that it asks for.
fn asked(container: &ContainerView, place: usize, resource: &str) -> Option<(i64, String)> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    let count = super::amounts::amount(requests.get(resource)?).units();
    let number = requests.keys().position(|name| name == resource)?;
    (count > 0).then(|| (count, format!("container-{place}-request-{number}")))
}

fn mapping(container: &ContainerView, resource: &str, request: &str) -> Value {
    json!({"containerName": container.name.as_deref(), "resourceName": resource, "requestName": request})
}
