//! Pods (kubernetes/kubernetes, `pkg/registry/core/pod/strategy.go`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, Quantity, at, ensure_object, set_default, str_at};

use super::check::list;
use super::pod_spec::{self, default_pod, default_pod_spec, warnings};
use super::pod_update;
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(super) struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        default_pod_spec(spec);
        default_pod(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        let qos = qos_class(&object["spec"]);
        object["status"] = json!({"phase": "Pending", "qosClass": qos});
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        // The class follows from the spec and never changes.
        if let Some(qos) = at(old, &["status", "qosClass"]) {
            let qos = qos.clone();
            set_default(ensure_object(new, "status"), "qosClass", qos);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        pod_spec::validate_pod(object, errors);
        pod_spec::validate_new_pod(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        pod_update::validate(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        pod_update::validate_status(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::pod(object)
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    }

    /// What every node's agent asks by (`pkg/registry/core/pod/strategy.go`, `NodeNameIndexFunc`).
    fn indexed(&self) -> &'static [&'static str] {
        &["spec.nodeName"]
    }

    fn field(&self, object: &Value, name: &str) -> String {
        let path: Vec<&str> = name.split('.').collect();
        match at(object, &path) {
            Some(Value::String(s)) => s.clone(),
            Some(other) => other.to_string(),
            None if name == "spec.hostNetwork" => "false".into(),
            None => String::new(),
        }
    }

    fn grace(&self, object: &Value) -> Option<i64> {
        // A pod that no node has taken, or that is over, has nothing to wait for.
        let phase = str_at(object, &["status", "phase"]).unwrap_or_default();
        if str_at(object, &["spec", "nodeName"]).is_none() || matches!(phase, "Succeeded" | "Failed") {
            return Some(0);
        }
        Some(object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30))
    }

    fn columns(&self) -> &'static [Column] {
        table::POD
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::pod_cells(object, now)
    }
}

pub(super) struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        pod_spec::default_template(object);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        pod_spec::validate_template(
            &object["template"],
            pod_spec::Kind::default(),
            &Path::new("template"),
            errors,
        );
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(&object["template"], &Path::new("template"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        table::POD_TEMPLATE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::pod_template_cells(object, now)
    }
}

/// A pod's quality of service (`pkg/apis/core/v1/helper/qos/qos.go`, `ComputePodQOS`).
pub(super) fn qos_class(spec: &Value) -> &'static str {
    // What the pod as a whole asks for counts before what its containers do.
    let whole =
        at(spec, &["resources"]).filter(|r| at(r, &["requests"]).is_some() || at(r, &["limits"]).is_some());
    let mut requested = false;
    let mut guaranteed = true;
    let parts: Vec<&Value> = match whole {
        Some(_) => vec![spec],
        None => list(spec, "containers").chain(list(spec, "initContainers")).collect(),
    };
    for container in parts {
        for resource in ["cpu", "memory"] {
            let amount = |kind: &str| {
                let text = at(container, &["resources", kind, resource]).and_then(Value::as_str);
                text.and_then(|t| t.parse::<Quantity>().ok()).filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            requested |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (requested, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What a pod asks of a node, by resource: the containers' sum or the largest init container, whichever is more,
/// with sidecars added to both, plus overhead (`component-helpers/resource/helpers.go`, `PodRequests`).
pub fn pod_resources(spec: &Value, kind: &str) -> BTreeMap<String, Quantity> {
    let mut total = container_resources(spec, kind);
    // What the pod names for itself stands for what its containers name.
    let own = at(spec, &["resources", kind]).and_then(Value::as_object).into_iter().flatten();
    total.extend(own.filter_map(|(n, v)| Some((n.clone(), v.as_str()?.parse().ok()?))));
    if kind == "requests" {
        let overhead = at(spec, &["overhead"]).and_then(Value::as_object).into_iter().flatten();
        for (name, value) in overhead {
            if let Some(amount) = value.as_str().and_then(|v| v.parse().ok()) {
                let slot = total.entry(name.clone()).or_default();
                *slot = *slot + amount;
            }
        }
    }
    total
}

/// What a pod's containers ask for together.
pub(super) fn container_resources(spec: &Value, kind: &str) -> BTreeMap<String, Quantity> {
    let of = |container: &Value| -> BTreeMap<String, Quantity> {
        let amounts = at(container, &["resources", kind]).and_then(Value::as_object).into_iter().flatten();
        amounts.filter_map(|(n, v)| Some((n.clone(), v.as_str()?.parse().ok()?))).collect()
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, more: BTreeMap<String, Quantity>| {
        for (name, amount) in more {
            let slot = sum.entry(name).or_default();
            *slot = *slot + amount;
        }
    };
    let mut total = BTreeMap::new();
    list(spec, "containers").for_each(|c| add(&mut total, of(c)));
    let (mut sidecars, mut peak) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    for container in list(spec, "initContainers") {
        let mut during = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, during.clone());
            add(&mut sidecars, during);
            during = sidecars.clone();
        } else {
            add(&mut during, sidecars.clone());
        }
        for (name, amount) in during {
            let slot = peak.entry(name).or_default();
            *slot = (*slot).max(amount);
        }
    }
    for (name, amount) in peak {
        let slot = total.entry(name).or_default();
        *slot = (*slot).max(amount);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(pod: &Value) -> String {
        let mut pod = pod.clone();
        Pod.default(&mut pod);
        let pod = &pod;
        let mut errors = FieldErrors::new();
        Pod.validate_create(pod, &mut errors);
        errors.to_string()
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(errors_of(&json!({"spec": {"containers": []}})), "spec.containers: Required value");
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "i",
            "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}});
        let errors = errors_of(&pod);
        assert!(errors.contains("spec.containers[0].volumeMounts[0].name: Not found: \"v\""), "{errors}");
        assert!(
            errors.contains("spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"),
            "{errors}"
        );
    }

    #[test]
    fn classes_of_service() {
        let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
        assert_eq!(qos_class(&spec(json!({}))), "BestEffort");
        assert_eq!(qos_class(&spec(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let full =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(qos_class(&spec(full)), "Guaranteed");
    }

    #[test]
    fn requests_take_the_larger_of_init_and_main() {
        let spec = json!({
            "initContainers": [{"resources": {"requests": {"cpu": "3"}}}],
            "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "1"}}}]});
        assert_eq!(pod_resources(&spec, "requests")["cpu"].units(), 3);
    }
}
