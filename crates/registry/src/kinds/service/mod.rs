//! Services (kubernetes/kubernetes, `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`,
//! `ValidateService`, `pkg/registry/core/service/strategy.go`). Addresses and node ports are given out by the API
//! server's allocator.

mod addresses;
mod validation;
mod warnings;

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns1035_label, ensure_object, set_default};

use super::check::*;
use super::pod_spec::{default_text, each};
use crate::strategy::Strategy;
use crate::table::{self, Column};
pub(super) use validation::host_name;
use validation::validate;
pub(super) use warnings::odd_address;
use warnings::warnings;

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct Service;

/// Whether a service has a port of the node for checks of its health.
fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn reached_from_outside(spec: &Value) -> bool {
    matches!(text(spec, "type"), "LoadBalancer" | "NodePort")
        || (text(spec, "type") == "ClusterIP" && count(spec, "externalIPs") > 0)
}

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        default_text(spec, "sessionAffinity", "None");
        default_text(spec, "type", "ClusterIP");
        match spec["sessionAffinity"].as_str() {
            Some("ClientIP") => {
                let config = ensure_object(ensure_object(spec, "sessionAffinityConfig"), "clientIP");
                set_default(config, "timeoutSeconds", 10800);
            }
            Some("None") => drop(types::object(spec).remove("sessionAffinityConfig")),
            _ => {}
        }
        for port in each(spec, "ports") {
            default_text(port, "protocol", "TCP");
            let number = port["port"].clone();
            if port["targetPort"] == 0 || port["targetPort"] == "" {
                port["targetPort"] = Value::Null;
            }
            set_default(port, "targetPort", number);
        }
        let kind = spec["type"].clone();
        if matches!(kind.as_str(), Some("ClusterIP" | "NodePort" | "LoadBalancer")) {
            set_default(spec, "internalTrafficPolicy", "Cluster");
        }
        if reached_from_outside(spec) {
            default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
        // One address may be given in either of two ways.
        addresses::align(spec);
        for ingress in types::at_mut(object, &["status", "loadBalancer"])
            .map(|balancer| each(balancer, "ingress"))
            .into_iter()
            .flatten()
        {
            if !text(ingress, "ip").is_empty() {
                set_default(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        drop_dependent(new, old);
        // What the server gave out stays, unless the user says otherwise (`patchAllocatedValues`).
        if new["spec"]["type"] == "ExternalName" || old["spec"]["type"] == "ExternalName" {
            return;
        }
        addresses::keep(ensure_object(new, "spec"), &old["spec"]);
        if needs_health_check(&new["spec"]) && needs_health_check(&old["spec"]) {
            let number = old["spec"]["healthCheckNodePort"].clone();
            if int(&new["spec"], "healthCheckNodePort") == 0 && !number.is_null() {
                new["spec"]["healthCheckNodePort"] = number;
            }
        }
        if new["spec"]["type"] == "ClusterIP" {
            if old["spec"]["type"] != "ClusterIP" {
                each(&mut new["spec"], "ports").filter_map(Value::as_object_mut).for_each(|port| {
                    port.remove("nodePort");
                });
            }
            return;
        }
        let before: Vec<Value> = list(&old["spec"], "ports").cloned().collect();
        for port in each(&mut new["spec"], "ports").filter(|p| int(p, "nodePort") == 0) {
            let protocol = |p: &Value| match text(p, "protocol") {
                "" => "TCP".to_owned(),
                other => other.to_owned(),
            };
            let same =
                before.iter().find(|p| int(p, "port") == int(port, "port") && protocol(p) == protocol(port));
            if let Some(number) = same.and_then(|p| get(p, "nodePort")) {
                port["nodePort"] = number.clone();
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let (spec, before) = (&new["spec"], &old["spec"]);
        addresses::validate_update(spec, before, errors);
        let balanced = |s: &Value| text(s, "type") == "LoadBalancer";
        if balanced(spec)
            && balanced(before)
            && spec.get("loadBalancerClass") != before.get("loadBalancerClass")
        {
            errors.invalid(
                &SPEC.child("loadBalancerClass"),
                spec["loadBalancerClass"].clone(),
                "may not change once set",
            );
        }
        if needs_health_check(before)
            && needs_health_check(spec)
            && int(before, "healthCheckNodePort") != int(spec, "healthCheckNodePort")
        {
            errors.forbidden(&SPEC.child("healthCheckNodePort"), IMMUTABLE);
        }
        validate(new, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        let root = Path::new("status");
        let path = root.child("loadBalancer");
        let path = path.child("ingress");
        let balancer = &new["status"]["loadBalancer"];
        if text(&new["spec"], "type") != "LoadBalancer" && count(balancer, "ingress") > 0 {
            return errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        for (i, ingress) in list(balancer, "ingress").enumerate() {
            let path = path.index(i);
            let (address, mode) = (text(ingress, "ip"), get(ingress, "ipMode"));
            if !address.is_empty() {
                ip(address, &path.child("ip"), errors);
            }
            // A mode that is not there is what it was by default.
            if mode.is_some() && address.is_empty() {
                errors.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set");
            } else {
                one_of(ingress, "ipMode", &path, &["Proxy", "VIP"], errors);
            }
            host_name(text(ingress, "hostname"), &path.child("hostname"), errors);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings(object)
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

/// A service of another type loses what went with the old one, unless the user changes it too
/// (`dropTypeDependentFields`).
fn drop_dependent(new: &mut Value, old: &Value) {
    let kind = |o: &Value| match text(&o["spec"], "type") {
        "" => "ClusterIP".to_owned(),
        other => other.to_owned(),
    };
    let (now, was) = (kind(new), kind(old));
    let kept = |new: &Value, field: &str| same_field(&new["spec"], &old["spec"], field);
    let mut gone = Vec::new();
    let addressed = |k: &str| matches!(k, "ClusterIP" | "NodePort" | "LoadBalancer");
    if addressed(&was) && !addressed(&now) && kept(new, "clusterIP") && kept(new, "clusterIPs") {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
        gone.extend(["internalTrafficPolicy"].iter().filter(|f| kept(new, f)));
    }
    let balanced = |k: &str| k == "LoadBalancer";
    if balanced(&was) && !balanced(&now) {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].iter().filter(|f| kept(new, f)));
    }
    if needs_health_check(&old["spec"])
        && !needs_health_check(&new["spec"])
        && kept(new, "healthCheckNodePort")
    {
        gone.push("healthCheckNodePort");
    }
    if reached_from_outside(&old["spec"])
        && !reached_from_outside(&new["spec"])
        && kept(new, "externalTrafficPolicy")
    {
        gone.push("externalTrafficPolicy");
    }
    if was == "ExternalName" && now != "ExternalName" && kept(new, "externalName") {
        gone.push("externalName");
    }
    let spec = types::object(ensure_object(new, "spec"));
    for field in gone {
        spec.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        Service.default(&mut object);
        let mut errors = FieldErrors::new();
        Service.validate_create(&object, &mut errors);
        errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    #[test]
    fn refusals() {
        let port = json!([{"port": 80}]);
        for (spec, want) in [
            (json!({"ports": port}), vec![]),
            (json!({"clusterIP": "None"}), vec![]),
            (json!({}), vec!["spec.ports: Required value"]),
            (
                json!({"ports": port, "type": "Odd"}),
                vec![
                    "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                json!({"ports": [{"port": 80}, {"port": 80}]}),
                vec![
                    "spec.ports[0].name: Required value",
                    "spec.ports[1].name: Required value",
                    "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
                ],
            ),
            (
                json!({"ports": [{"port": 0}]}),
                vec![
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"ports": port, "type": "NodePort", "clusterIP": "None"}),
                vec![
                    "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
                ],
            ),
            (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
            (
                json!({"type": "ExternalName", "externalName": "a_b"}),
                vec![
                    "spec.externalName: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            (
                json!({"ports": port, "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}}}),
                vec![
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less than 86400",
                ],
            ),
            (
                json!({"ports": port, "externalTrafficPolicy": "Local"}),
                vec![
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                json!({"ports": port, "loadBalancerClass": "a/b"}),
                vec!["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"],
            ),
            (
                json!({"ports": port, "externalIPs": ["127.0.0.1"]}),
                vec![
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"ports": port, "clusterIP": "1.2.3.4", "clusterIPs": ["1.2.3.5"]}),
                vec!["spec.clusterIPs: Invalid value: [\"1.2.3.5\"]: first value must match `clusterIP`"],
            ),
            (
                json!({"ports": port, "ipFamilies": ["IPv4", "IPv4"]}),
                vec!["spec.ipFamilies[1]: Duplicate value: \"IPv4\""],
            ),
            (
                json!({"ports": [{"port": 1, "nodePort": 30000}]}),
                vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
        ] {
            assert_eq!(refused(spec.clone()), want, "{spec}");
        }
    }

    #[test]
    fn addresses_stay() {
        let made = |ip: &str| {
            let mut s = json!({"spec": {"ports": [{"port": 1}], "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}});
            Service.default(&mut s);
            s
        };
        let (old, new) = (made("10.0.0.1"), made("10.0.0.2"));
        let mut errors = FieldErrors::new();
        Service.validate_update(&new, &old, &mut errors);
        assert_eq!(
            errors.to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
        );
        let mut bare = json!({"spec": {"ports": [{"port": 1}]}});
        Service.prepare_update(&mut bare, &old);
        Service.default(&mut bare);
        assert_eq!(bare["spec"]["clusterIP"], "10.0.0.1");
        let mut errors = FieldErrors::new();
        Service.validate_update(&bare, &old, &mut errors);
        assert!(errors.is_empty(), "{errors}");
    }
}
