//! Services (kubernetes/kubernetes, `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`,
//! `ValidateService`). Addresses and node ports are given out by the API server's allocator.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, dns_label, dns1035_label, ensure_object, set_default, str_at};

use super::check::{list, one_of};
use super::pod_spec::each;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct Service;

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "sessionAffinity", "None");
        set_default(spec, "type", "ClusterIP");
        if spec["sessionAffinity"] == "ClientIP" {
            set_default(
                ensure_object(ensure_object(spec, "sessionAffinityConfig"), "clientIP"),
                "timeoutSeconds",
                10800,
            );
        } else if let Value::Object(map) = spec {
            map.remove("sessionAffinityConfig");
        }
        for port in each(spec, "ports") {
            set_default(port, "protocol", "TCP");
            let number = port["port"].clone();
            if port["targetPort"] == 0 || port["targetPort"] == "" {
                port["targetPort"] = Value::Null;
            }
            set_default(port, "targetPort", number);
        }
        let kind = spec["type"].clone();
        if kind != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "NodePort" || kind == "LoadBalancer" {
            set_default(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // What the server gave out stays, unless the user says otherwise (`pkg/registry/core/service/strategy.go`,
        // `patchAllocatedValues`).
        if new["spec"]["type"] == "ExternalName" || old["spec"]["type"] == "ExternalName" {
            return;
        }
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
            if let Some(value) = at(&old["spec"], &[field]).cloned()
                && !(field == "healthCheckNodePort" && new["spec"]["externalTrafficPolicy"] != "Local")
            {
                set_default(ensure_object(new, "spec"), field, value);
            }
        }
        if new["spec"]["type"] == "ClusterIP" {
            each(&mut new["spec"], "ports").filter_map(Value::as_object_mut).for_each(|port| {
                port.remove("nodePort");
            });
            return;
        }
        let before: Vec<Value> = list(&old["spec"], "ports").cloned().collect();
        for port in each(&mut new["spec"], "ports") {
            let same = before.iter().find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"]);
            if let Some(number) = same
                .and_then(|p| at(p, &["nodePort"]))
                .filter(|_| port["nodePort"].as_i64().unwrap_or(0) == 0)
            {
                port["nodePort"] = number.clone();
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        one_of(spec, "type", &SPEC, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
        one_of(spec, "sessionAffinity", &SPEC, &["ClientIP", "None"], errors);
        one_of(spec, "internalTrafficPolicy", &SPEC, &["Cluster", "Local"], errors);
        one_of(spec, "externalTrafficPolicy", &SPEC, &["Cluster", "Local"], errors);
        let headless = spec["clusterIP"] == "None";
        let external_name = spec["type"] == "ExternalName";
        if external_name && str_at(spec, &["externalName"]).is_none() {
            errors.required(&SPEC.child("externalName"), "");
        }
        if list(spec, "ports").next().is_none() && !headless && !external_name {
            errors.required(&SPEC.child("ports"), "");
        }
        if headless && matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
            errors.invalid(
                &SPEC.child("clusterIPs").index(0),
                "None",
                &format!(
                    "may not be set to 'None' for {} services",
                    spec["type"].as_str().unwrap_or_default()
                ),
            );
        }
        let path = SPEC.child("ports");
        let many = list(spec, "ports").count() > 1;
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for (i, port) in list(spec, "ports").enumerate() {
            let path = path.index(i);
            match str_at(port, &["name"]) {
                None if many => errors.required(&path.child("name"), ""),
                None => {}
                Some(name) => {
                    if let Some(fault) = dns_label(name) {
                        errors.invalid(&path.child("name"), name, &fault);
                    }
                    if !names.insert(name) {
                        errors.duplicate(&path.child("name"), name);
                    }
                }
            }
            super::check::port(port["port"].as_i64().unwrap_or(0), &path.child("port"), errors);
            one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
            if let Value::String(target) = &port["targetPort"] {
                for fault in types::port_name(target) {
                    errors.invalid(&path.child("targetPort"), target.as_str(), &fault);
                }
            } else {
                super::check::port(port["targetPort"].as_i64().unwrap_or(0), &path.child("targetPort"), errors);
            }
            if spec["type"] == "ClusterIP" && port["nodePort"].as_i64().is_some_and(|n| n != 0) {
                errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
            let key = (port["protocol"].as_str().unwrap_or("TCP"), port["port"].as_i64().unwrap_or_default());
            if !numbers.insert(key) {
                errors.duplicate(&path, json!({"port": key.1, "protocol": key.0}));
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        let fixed = old["spec"]["type"] != "ExternalName" && new["spec"]["type"] != "ExternalName";
        if fixed
            && at(old, &["spec", "clusterIP"]).is_some()
            && new["spec"]["clusterIP"] != old["spec"]["clusterIP"]
        {
            errors.invalid(
                &SPEC.child("clusterIPs").index(0),
                new["spec"]["clusterIP"].clone(),
                "may not change once set",
            );
        }
    }

    fn validate_name(&self, name: &str) -> Option<String> {
        dns1035_label(name)
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &'static [Column] {
        table::SERVICE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::service_cells(object, now)
    }
}
