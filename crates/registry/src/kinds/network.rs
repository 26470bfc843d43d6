//! Endpoints, EndpointSlices, Ingresses and NetworkPolicies.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, ensure_object, set_default};

use super::check::{list, one_of};
use super::pod_spec::each;
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(super) struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in each(object, "subsets") {
            each(subset, "ports").for_each(|port| set_default(port, "protocol", "TCP"));
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::ENDPOINTS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::endpoints_cells(object, now)
    }
}

pub(super) struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in each(object, "ports") {
            set_default(port, "name", "");
            set_default(port, "protocol", "TCP");
        }
        if object["endpoints"].is_null() {
            object["endpoints"] = json!([]);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        if at(object, &["addressType"]).is_none() {
            errors.required(&Path::new("addressType"), "");
        }
        if list(object, "endpoints").count() > 1000 {
            errors.invalid(
                &Path::new("endpoints"),
                list(object, "endpoints").count(),
                "must have at most 1000 items",
            );
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if new["addressType"] != old["addressType"] {
            errors.immutable(&Path::new("addressType"), &new["addressType"]);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::ENDPOINT_SLICE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::endpoint_slice_cells(object, now)
    }
}

pub(super) struct Ingress;

impl Strategy for Ingress {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = Path::new("spec");
        if list(&object["spec"], "rules").next().is_none()
            && at(object, &["spec", "defaultBackend"]).is_none()
        {
            errors.invalid(
                &spec,
                object["spec"].clone(),
                "either `defaultBackend` or `rules` must be specified",
            );
        }
        let path = spec.child("rules");
        for (i, rule) in list(&object["spec"], "rules").enumerate() {
            let path = path.index(i);
            let http = path.child("http");
            let path = http.child("paths");
            for (i, entry) in list(&rule["http"], "paths").enumerate() {
                let path = path.index(i);
                if at(entry, &["pathType"]).is_none() {
                    errors.required(&path.child("pathType"), "pathType must be specified");
                }
                one_of(entry, "pathType", &path, &["Exact", "ImplementationSpecific", "Prefix"], errors);
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::INGRESS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::ingress_cells(object, now)
    }
}

pub(super) struct IngressClass;

impl Strategy for IngressClass {
    fn columns(&self) -> &'static [Column] {
        table::INGRESS_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::ingress_class_cells(object, now)
    }
}

pub(super) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        if at(spec, &["policyTypes"]).is_none() {
            let mut kinds = vec!["Ingress"];
            if list(spec, "egress").next().is_some() {
                kinds.push("Egress");
            }
            spec["policyTypes"] = json!(kinds);
        }
        for direction in ["ingress", "egress"] {
            for rule in each(spec, direction) {
                each(rule, "ports").for_each(|port| set_default(port, "protocol", "TCP"));
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::NETWORK_POLICY
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::network_policy_cells(object, now)
    }
}
