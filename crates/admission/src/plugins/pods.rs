//! Plugins about pods that are on by request only.

use serde_json::{Value, json};
use types::{Status, at, at_mut, ensure_object};

use super::common::{
    CONTAINERS, covers, creates_pod, entries, list, list_mut, map_mut, merge_tolerations, text,
};
use crate::cluster::Cluster;
use crate::plugin::{Draft, Final, Plugin};
use crate::request::{Operation, Request};

/// Images are asked for anew each time, so that nobody uses what only others may pull (kubernetes/kubernetes,
/// `plugin/pkg/admission/alwayspullimages`).
pub(crate) struct AlwaysPullImages;

fn is_pod_write(request: &Request<'_>) -> bool {
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    written && (request.is("", "pods") || request.is_part("", "pods", "ephemeralcontainers"))
}

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn admit(&self, Draft { request, object: pod, old, .. }: Draft<'_>) -> Result<(), Status> {
        if !is_pod_write(request) {
            return Ok(());
        }
        let known = |name: &str| {
            old.is_some_and(|old| super::common::containers(&old["spec"]).any(|c| c["image"] == name))
        };
        for field in CONTAINERS {
            let containers = at_mut(pod, &["spec", field]).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                // An update that brings no new image leaves things as they are.
                if request.operation == Operation::Create || !known(text(container, &["image"])) {
                    container["imagePullPolicy"] = "Always".into();
                }
            }
        }
        Ok(())
    }

    fn validate(&self, Final { request, object, .. }: Final<'_>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| creates_pod(request)) else { return Ok(()) };
        for field in CONTAINERS {
            for (i, container) in list(&pod["spec"], &[field]).enumerate() {
                let policy = text(container, &["imagePullPolicy"]);
                if policy != "Always" {
                    let why = format!(
                        "spec.{field}[{i}].imagePullPolicy: Unsupported value: {policy:?}: supported values: \"Always\""
                    );
                    return Err(request.forbidden_of(Some(pod), &why));
                }
            }
        }
        Ok(())
    }
}

/// Pods keep each other away from nodes only (`plugin/pkg/admission/antiaffinity`).
pub(crate) struct LimitPodHardAntiAffinityTopology;

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn validate(&self, Final { request, object, .. }: Final<'_>) -> Result<(), Status> {
        const HOST: &str = "kubernetes.io/hostname";
        if !request.is("", "pods") {
            return Ok(());
        }
        let Some(pod) = object else { return Ok(()) };
        let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        for term in list(pod, &path) {
            let key = text(term, &["topologyKey"]);
            if key != HOST {
                let why = format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
                );
                return Err(request.forbidden_of(Some(pod), &why));
            }
        }
        Ok(())
    }
}

/// A pod that asks for an extended resource tolerates the taint that keeps others off its nodes
/// (`plugin/pkg/admission/extendedresourcetoleration`).
pub(crate) struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn admit(&self, Draft { request, object: pod, .. }: Draft<'_>) -> Result<(), Status> {
        if !is_pod_write(request) || !request.subresource.is_empty() {
            return Ok(());
        }
        let mut names: Vec<String> = Vec::new();
        for field in ["containers", "initContainers"] {
            for container in list(&pod["spec"], &[field]) {
                let asked = entries(container, &["resources", "requests"]).map(|(name, _)| name);
                names.extend(asked.filter(|name| is_extended(name)).cloned());
            }
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let Some(tolerations) = list_mut(ensure_object(pod, "spec"), "tolerations") else { return Ok(()) };
        for name in names {
            let toleration = json!({"key": name, "operator": "Exists"});
            let same = |t: &Value| {
                t["key"] == toleration["key"]
                    && t["operator"] == "Exists"
                    && text(t, &["effect"]).is_empty()
                    && t["tolerationSeconds"].is_null()
            };
            if !tolerations.iter().any(same) {
                tolerations.push(toleration);
            }
        }
        Ok(())
    }
}

fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.split('/').next().unwrap_or_default().ends_with("kubernetes.io")
        && !name.starts_with("requests.")
}

/// Pods of a namespace run where its annotation says (`plugin/pkg/admission/podnodeselector`).
pub(crate) struct PodNodeSelector {
    /// By namespace; `clusterDefaultNodeSelector` for those that say nothing.
    pub(crate) config: Value,
}

const SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";

/// `a=b,c=d` as a map.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    parts.map(|p| p.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))).collect()
}

impl PodNodeSelector {
    fn of(&self, request: &Request<'_>, cluster: &dyn Cluster) -> Result<Vec<(String, String)>, Status> {
        let Some(namespace) = cluster.get("namespaces", "", request.namespace) else {
            return Err(Status::not_found("", "namespaces", request.namespace));
        };
        let own = at(&namespace, &["metadata", "annotations", SELECTOR]).and_then(Value::as_str);
        let default = || self.config["clusterDefaultNodeSelector"].as_str().unwrap_or_default();
        let selector = own.unwrap_or_else(default);
        pairs(selector).ok_or_else(|| request.internal(format_args!("invalid selector {selector:?}")))
    }
}

impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn admit(&self, Draft { request, object: pod, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !creates_pod(request) {
            return Ok(());
        }
        for (key, value) in self.of(request, cluster)? {
            let own = text(pod, &["spec", "nodeSelector", &key]);
            if !own.is_empty() && own != value {
                let why = "pod node label selector conflicts with its namespace node label selector";
                return Err(request.forbidden_of(Some(pod), why));
            }
            map_mut(pod, &["spec", "nodeSelector"]).insert(key, value.into());
        }
        Ok(())
    }

    fn validate(&self, Final { request, object, .. }: Final<'_>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| creates_pod(request)) else { return Ok(()) };
        let Some(allowed) = self.config[request.namespace].as_str().and_then(pairs) else { return Ok(()) };
        let fits = entries(pod, &["spec", "nodeSelector"])
            .all(|(key, value)| allowed.iter().any(|(k, v)| k == key && value == v.as_str()));
        if fits {
            return Ok(());
        }
        let why = "pod node label selector labels conflict with its namespace whitelist";
        Err(request.forbidden_of(Some(pod), why))
    }
}

/// Tolerations that a namespace adds, and those it allows (`plugin/pkg/admission/podtolerationrestriction`).
pub(crate) struct PodTolerationRestriction;

fn tolerations(namespace: &Value, key: &str) -> Option<Vec<Value>> {
    let key = format!("scheduler.alpha.kubernetes.io/{key}");
    serde_json::from_str(text(namespace, &["metadata", "annotations", &key])).ok()
}

impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn admit(&self, Draft { request, object: pod, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !creates_pod(request) {
            return Ok(());
        }
        let Some(namespace) = cluster.get("namespaces", "", request.namespace) else { return Ok(()) };
        let defaults = tolerations(&namespace, "defaultTolerations").unwrap_or_default();
        if defaults.is_empty() {
            return Ok(());
        }
        let own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let clash = own.iter().any(|o| {
            defaults
                .iter()
                .any(|d| o["key"] == d["key"] && o["effect"] == d["effect"] && !covers(o, d) && !covers(d, o))
        });
        if clash {
            let why = "namespace tolerations and pod tolerations conflict";
            return Err(request.forbidden_of(Some(pod), why));
        }
        pod["spec"]["tolerations"] = merge_tolerations(&defaults, &own).into();
        Ok(())
    }

    fn validate(&self, Final { request, object, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| creates_pod(request)) else { return Ok(()) };
        let Some(namespace) = cluster.get("namespaces", "", request.namespace) else { return Ok(()) };
        let Some(allowed) = tolerations(&namespace, "tolerationsWhitelist").filter(|l| !l.is_empty()) else {
            return Ok(());
        };
        if list(pod, &["spec", "tolerations"]).all(|own| allowed.iter().any(|a| covers(a, own))) {
            return Ok(());
        }
        Err(request.forbidden_of(Some(pod), "pod tolerations conflict with its namespace whitelist"))
    }
}
