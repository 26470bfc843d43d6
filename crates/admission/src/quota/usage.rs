use std::collections::BTreeMap;

use registry::{ResourceDef, pod_resources};
use serde_json::Value;
use types::{Quantity, at};

use crate::plugins::common::{amounts, entries, list, text};
use crate::request::{Operation, Request};

/// Resources and how much of them.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// What sort of object is counted, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Pod,
    Claim,
    Service,
    /// Only how many there are.
    Other,
}

const ONE: Quantity = Quantity::from_units(1);
/// Kinds that had names of their own before `count/…`.
const OLD_NAMES: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

impl Subject {
    /// How the objects of a kind count, if they do.
    pub(super) fn of_kind(def: &ResourceDef) -> Option<Self> {
        Some(match (&*def.gvk.group, &*def.resource) {
            ("", "pods") => Self::Pod,
            ("", "persistentvolumeclaims") => Self::Claim,
            ("", "services") => Self::Service,
            // Upstream: `pkg/quota/v1/install/registry.go`, `DefaultIgnoredResources`.
            ("" | "events.k8s.io", "events") => return None,
            _ => Self::Other,
        })
    }

    /// How a request counts, if it does.
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        let subject = Self::of_kind(request.def)?;
        let counts = match (request.operation, subject, request.subresource) {
            (Operation::Create, _, "") => true,
            (Operation::Update, Self::Pod, part) => part == "resize",
            (Operation::Update, Self::Claim | Self::Service, "") => true,
            _ => false,
        };
        counts.then_some(subject)
    }

    /// Whether a quota's resource is about such objects.
    pub(super) fn counts(self, resource: &str, def: &ResourceDef) -> bool {
        let count = match &*def.gvk.group {
            "" => format!("count/{}", def.resource),
            group => format!("count/{}.{group}", def.resource),
        };
        if resource == count
            || def.gvk.group.is_empty() && OLD_NAMES.contains(&resource) && *resource == *def.resource
        {
            return true;
        }
        match self {
            Self::Pod => {
                let bare = resource.trim_start_matches("requests.").trim_start_matches("limits.");
                resource == "pods"
                    || matches!(bare, "cpu" | "memory" | "ephemeral-storage")
                    || bare.starts_with("hugepages-")
                    || resource.starts_with("requests.") && bare.contains('/')
            }
            Self::Claim => {
                resource == "requests.storage" || resource.contains(".storageclass.storage.k8s.io/")
            }
            Self::Service => matches!(resource, "services.nodeports" | "services.loadbalancers"),
            Self::Other => false,
        }
    }

    /// Which containers do not say what a quota on processors and memory wants them to say.
    pub(super) fn lacks(self, relevant: &[&str], object: &Value) -> Option<String> {
        if self != Self::Pod {
            return None;
        }
        let wanted = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
        let mut missing = Vec::new();
        for resource in wanted.into_iter().filter(|w| relevant.contains(w)) {
            let (kind, name) = match resource.split_once('.') {
                Some(("limits", name)) => ("limits", name),
                Some((_, name)) => ("requests", name),
                None => ("requests", resource),
            };
            let mut names: Vec<&str> = ["containers", "initContainers"]
                .into_iter()
                .flat_map(|field| list(&object["spec"], &[field]))
                .filter(|c| at(c, &["resources", kind, name]).is_none())
                .map(|c| text(c, &["name"]))
                .collect();
            names.sort_unstable();
            if !names.is_empty() && at(object, &["spec", "resources", kind, name]).is_none() {
                missing.push(format!("{resource} for: {}", names.join(",")));
            }
        }
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    /// What an object uses.
    pub(super) fn usage(self, def: &ResourceDef, object: &Value) -> Amounts {
        let mut used = Amounts::new();
        let group = &*def.gvk.group;
        let count = if group.is_empty() {
            format!("count/{}", def.resource)
        } else {
            format!("count/{}.{group}", def.resource)
        };
        used.insert(count, ONE);
        if group.is_empty() && OLD_NAMES.contains(&&*def.resource) {
            used.insert(def.resource.to_string(), ONE);
        }
        match self {
            Self::Pod if is_over(object) => {}
            Self::Pod => {
                used.insert("pods".into(), ONE);
                for (name, amount) in pod_resources(&object["spec"], "requests") {
                    let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
                    if plain || name.starts_with("hugepages-") {
                        used.insert(name.clone(), amount);
                    }
                    used.insert(format!("requests.{name}"), amount);
                }
                for (name, amount) in pod_resources(&object["spec"], "limits") {
                    if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                        used.insert(format!("limits.{name}"), amount);
                    }
                }
            }
            Self::Claim => {
                let class = class(object);
                let of_class = |what: &str| format!("{class}.storageclass.storage.k8s.io/{what}");
                if !class.is_empty() {
                    used.insert(of_class("persistentvolumeclaims"), ONE);
                }
                if let Some(size) = storage(object) {
                    used.insert("requests.storage".into(), size);
                    if !class.is_empty() {
                        used.insert(of_class("requests.storage"), size);
                    }
                }
            }
            Self::Service => {
                let ports = i64::try_from(list(object, &["spec", "ports"]).count()).unwrap_or(i64::MAX);
                let without = object["spec"]["allocateLoadBalancerNodePorts"] == false;
                let given =
                    list(object, &["spec", "ports"]).filter(|p| p["nodePort"].as_i64().unwrap_or(0) > 0);
                let given = i64::try_from(given.count()).unwrap_or(i64::MAX);
                let (balancers, node_ports) = match text(object, &["spec", "type"]) {
                    "NodePort" => (0, ports),
                    "LoadBalancer" if without => (1, given),
                    "LoadBalancer" => (1, ports),
                    _ => (0, 0),
                };
                used.insert("services.loadbalancers".into(), Quantity::from_units(balancers));
                used.insert("services.nodeports".into(), Quantity::from_units(node_ports));
            }
            Self::Other => {}
        }
        used
    }

    /// Whether an object is in a scope. Scopes other than pods' cover no other objects, except for claims'.
    pub(super) fn in_scope(self, scope: &str, operator: &str, values: &Value, object: &Value) -> bool {
        let any = |wanted: &str| values.as_array().into_iter().flatten().any(|v| v == wanted);
        let chosen = |value: &str| match operator {
            "Exists" => !value.is_empty(),
            "DoesNotExist" => value.is_empty(),
            "In" => !value.is_empty() && any(value),
            "NotIn" => value.is_empty() || !any(value),
            _ => false,
        };
        match (self, scope) {
            (Self::Pod, "Terminating") => is_terminating(object),
            (Self::Pod, "NotTerminating") => !is_terminating(object),
            (Self::Pod, "BestEffort") => is_best_effort(object),
            (Self::Pod, "NotBestEffort") => !is_best_effort(object),
            (Self::Pod, "PriorityClass") => chosen(text(object, &["spec", "priorityClassName"])),
            (Self::Pod, "CrossNamespacePodAffinity") => crosses_namespaces(object),
            (Self::Claim, "VolumeAttributesClass") => {
                let all = attributes_classes(object);
                if all.is_empty() { chosen("") } else { all.into_iter().any(chosen) }
            }
            _ => false,
        }
    }
}

/// The class of a claim's volume; the annotation is older than the field and counts more.
fn class(claim: &Value) -> &str {
    match text(claim, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        "" => text(claim, &["spec", "storageClassName"]),
        annotated => annotated,
    }
}

/// How much a claim asks for, in whole bytes. One that has asked for more, and was given it, uses that until it shrinks
/// (`getStorageUsage`).
fn storage(claim: &Value) -> Option<Quantity> {
    let of =
        |path: &[&'static str]| amounts(claim, path).find(|(name, _)| *name == "storage").map(|(_, n)| n);
    let asked = of(&["spec", "resources", "requests"])?;
    let given = of(&["status", "allocatedResources"]);
    let most = given.map_or(asked, |given| given.max(asked));
    Some(if most.is_whole() { most } else { Quantity::from_units(most.units()) })
}

/// The classes of attributes that a claim has, wants or is about to get (`getReferencedVolumeAttributesClassNames`).
fn attributes_classes(claim: &Value) -> Vec<&str> {
    let all = [
        text(claim, &["spec", "volumeAttributesClassName"]),
        text(claim, &["status", "currentVolumeAttributesClassName"]),
        text(claim, &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]),
    ];
    all.into_iter().filter(|name| !name.is_empty()).collect()
}

/// A pod that has ended uses nothing but a place in the store.
fn is_over(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|n| n >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    let asks = |of: &Value| {
        ["requests", "limits"].iter().any(|kind| {
            entries(of, &["resources", kind]).any(|(name, amount)| {
                matches!(name.as_str(), "cpu" | "memory") && !matches!(amount.as_str(), Some("0"))
            })
        })
    };
    let spec = &pod["spec"];
    !asks(spec) && !["containers", "initContainers"].iter().any(|f| list(spec, &[f]).any(asks))
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        list(term, &["namespaces"]).next().is_some() || at(term, &["namespaceSelector"]).is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let place = |field: &'static str| list(pod, &["spec", "affinity", kind, field]);
        place("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || place("preferredDuringSchedulingIgnoredDuringExecution")
                .any(|t| crosses(&t["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_counts_as_what_it_has_and_what_it_wants() {
        let size = |asked: &str, given: Value| {
            let claim = json!({"spec": {"resources": {"requests": {"storage": asked}}},
                "status": {"allocatedResources": given}});
            storage(&claim).unwrap().to_string()
        };
        assert_eq!(size("2Gi", Value::Null), "2Gi");
        assert_eq!(size("2Gi", json!({"storage": "5Gi"})), "5Gi", "it has grown, and wants less again");
        assert_eq!(size("7Gi", json!({"storage": "5Gi"})), "7Gi");
        assert_eq!(size("1500m", Value::Null), "2", "there are whole bytes only");
        let annotated = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
            "spec": {"storageClassName": "new"}});
        assert_eq!((class(&annotated), class(&json!({"spec": {"storageClassName": "new"}}))), ("old", "new"));
    }

    #[test]
    fn a_claim_is_of_every_class_of_attributes_that_it_names() {
        let within = |operator: &str, values: Value, claim: &Value| {
            Subject::Claim.in_scope("VolumeAttributesClass", operator, &values, claim)
        };
        let changing = json!({"spec": {"volumeAttributesClassName": "silver"},
            "status": {"currentVolumeAttributesClassName": "gold"}});
        for name in ["gold", "silver"] {
            assert!(within("In", json!([name]), &changing), "{name}");
        }
        assert!(!within("In", json!(["bronze"]), &changing) && within("Exists", Value::Null, &changing));
        let target = json!({"spec": {}, "status": {"modifyVolumeStatus": {"targetVolumeAttributesClassName": "gold"}}});
        assert!(within("In", json!(["gold"]), &target));
        let none = json!({"spec": {}});
        assert!(within("DoesNotExist", Value::Null, &none) && within("NotIn", json!(["gold"]), &none));
        assert!(!within("Exists", Value::Null, &none));
    }
}
