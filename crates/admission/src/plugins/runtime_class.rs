use std::collections::BTreeMap;

use serde_json::Value;
use types::{Quantity, Status, at, ensure_object};

use super::common::{amounts, creates_pod, entries, map_mut, merge_tolerations, text};
use crate::cluster::Cluster;
use crate::plugin::{Draft, Final, Plugin};
use crate::request::Request;

/// A pod costs and lands where its runtime class says (kubernetes/kubernetes,
/// `plugin/pkg/admission/runtimeclass/admission.go`).
pub(crate) struct RuntimeClass;

fn class(request: &Request<'_>, pod: &Value, cluster: &dyn Cluster) -> Result<Option<Value>, Status> {
    let name = text(pod, &["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(None);
    }
    let class = cluster.get("runtimeclasses.node.k8s.io", "", name);
    let missing =
        || request.forbidden_of(Some(pod), &format!("pod rejected: RuntimeClass {name:?} not found"));
    class.map(Some).ok_or_else(missing)
}

fn overhead(of: &Value, path: &[&str]) -> BTreeMap<String, Quantity> {
    amounts(of, path).map(|(n, q)| (n.to_owned(), q)).collect()
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn admit(&self, Draft { request, object: pod, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !creates_pod(request) {
            return Ok(());
        }
        let Some(class) = class(request, pod, cluster)? else { return Ok(()) };
        if let Some(fixed) = at(&class, &["overhead", "podFixed"]) {
            let own = at(pod, &["spec", "overhead"]).is_some();
            if own && overhead(pod, &["spec", "overhead"]) != overhead(&class, &["overhead", "podFixed"]) {
                return Err(request.forbidden_of(Some(pod), MISMATCH));
            }
            ensure_object(pod, "spec")["overhead"] = fixed.clone();
        }
        for (key, value) in entries(&class, &["scheduling", "nodeSelector"]) {
            if let Some(own) = at(pod, &["spec", "nodeSelector", key]).filter(|own| *own != value) {
                let shown = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    shown(value),
                    shown(own)
                );
                return Err(request.forbidden_of(Some(pod), &why));
            }
            map_mut(pod, &["spec", "nodeSelector"]).insert(key.clone(), value.clone());
        }
        if let Some(tolerations) = at(&class, &["scheduling", "tolerations"]).and_then(Value::as_array) {
            let own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            pod["spec"]["tolerations"] = merge_tolerations(&own, tolerations).into();
        }
        Ok(())
    }

    fn validate(&self, Final { request, object, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| creates_pod(request)) else { return Ok(()) };
        let own = at(pod, &["spec", "overhead"]).is_some();
        let class = class(request, pod, cluster)?;
        match class.as_ref().filter(|class| at(class, &["overhead"]).is_some()) {
            Some(class)
                if overhead(class, &["overhead", "podFixed"]) == overhead(pod, &["spec", "overhead"]) =>
            {
                Ok(())
            }
            Some(_) => Err(request.forbidden_of(Some(pod), MISMATCH)),
            None if own => {
                let why =
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(request.forbidden_of(Some(pod), why))
            }
            None => Ok(()),
        }
    }
}
