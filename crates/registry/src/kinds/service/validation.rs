//! What a Service may say (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`, `ValidateService`).

use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_label, dns_subdomain};

use super::super::check::*;
use super::{SPEC, addresses, needs_health_check, reached_from_outside};

const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// A name that is no address.
pub(in super::super) fn host_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return;
    }
    name_is(name, dns_subdomain, path, errors);
    if parse_ip(name).is_some() {
        errors.invalid(path, name, "must be a DNS name, not an IP address");
    }
}

pub(super) fn validate(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let kind = text(spec, "type");
    let meta = Path::new("metadata");
    let annotations = meta.child("annotations");
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    if let (Some(mode), Some(hints)) = (annotation(object, MODE), annotation(object, HINTS))
        && mode != hints
    {
        let why = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(&annotations.key(MODE), mode, &why);
    }
    let headless = addresses::is_headless(spec);
    if count(spec, "ports") == 0 && !headless && kind != "ExternalName" {
        errors.required(&SPEC.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&SPEC.child("clusterIPs").index(0), "None", &why);
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies"].iter().filter(|f| count(spec, f) > 0) {
                errors.forbidden(&SPEC.child(field), "may not be set for ExternalName services");
            }
            if has(spec, "ipFamilyPolicy") {
                errors.forbidden(&SPEC.child("ipFamilyPolicy"), "may not be set for ExternalName services");
            }
            let name = text(spec, "externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.required(&SPEC.child("externalName"), ""),
                name => name_is(name, dns_subdomain, &SPEC.child("externalName"), errors),
            }
        }
        _ => {}
    }
    for (i, port) in list(spec, "ports").enumerate() {
        validate_port(port, i, spec, &SPEC.child("ports").index(i), errors);
    }
    types::validate_labels(spec.get("selector"), &SPEC.child("selector"), errors);
    required_one_of(spec, "sessionAffinity", &SPEC, &["ClientIP", "None"], errors);
    affinity(spec, errors);
    addresses::validate(spec, errors);
    for (i, address) in texts(spec, "externalIPs").enumerate() {
        let path = SPEC.child("externalIPs");
        let path = path.index(i);
        if ip(address, &path, errors).is_some() {
            reachable_ip(address, &path, errors);
        }
    }
    required_one_of(spec, "type", &SPEC, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    repeated_ports(spec, errors);
    source_ranges(object, &annotations, errors);
    let balanced = kind == "LoadBalancer";
    const BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
    if has(spec, "allocateLoadBalancerNodePorts") && !balanced {
        errors.forbidden(&SPEC.child("allocateLoadBalancerNodePorts"), BALANCED);
    }
    match spec.get("loadBalancerClass").and_then(Value::as_str) {
        Some(class) if balanced => qualified(class, &SPEC.child("loadBalancerClass"), errors),
        Some(_) => errors.forbidden(&SPEC.child("loadBalancerClass"), BALANCED),
        None => {}
    }
    let policy = text(spec, "externalTrafficPolicy");
    if reached_from_outside(spec) {
        required_one_of(spec, "externalTrafficPolicy", &SPEC, &["Cluster", "Local"], errors);
    } else if !policy.is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.invalid(&SPEC.child("externalTrafficPolicy"), policy, why);
    }
    let health = int(spec, "healthCheckNodePort");
    if needs_health_check(spec) {
        // The allocator gives one that is not there yet.
        if health != 0 {
            port(health, &SPEC.child("healthCheckNodePort"), errors);
        }
    } else if health != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&SPEC.child("healthCheckNodePort"), health, why);
    }
    if !has(spec, "internalTrafficPolicy") && matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.required(&SPEC.child("internalTrafficPolicy"), "");
    }
    one_of(spec, "internalTrafficPolicy", &SPEC, &["Cluster", "Local"], errors);
    one_of(spec, "trafficDistribution", &SPEC, &["PreferClose", "PreferSameNode", "PreferSameZone"], errors);
}

fn validate_port(p: &Value, at: usize, spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let name = text(p, "name");
    if !name.is_empty() {
        name_is(name, dns_label, &path.child("name"), errors);
        if repeats(list(spec, "ports").take(at).map(|p| text(p, "name")), name) {
            errors.duplicate(&path.child("name"), name);
        }
    } else if count(spec, "ports") > 1 {
        errors.required(&path.child("name"), "");
    }
    port(int(p, "port"), &path.child("port"), errors);
    required_one_of(p, "protocol", path, PROTOCOLS, errors);
    port_or_name(p.get("targetPort"), &path.child("targetPort"), errors);
    optional_qualified(p, "appProtocol", path, errors);
}

fn repeated_ports(spec: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("ports");
    let of = |p: &Value, field: &str| (int(p, field), text(p, "protocol").to_owned());
    let ports: Vec<&Value> = list(spec, "ports").collect();
    if text(spec, "type") == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, p)| int(p, "nodePort") != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.forbidden(&path.index(i).child("nodePort"), why);
        }
    }
    for (i, p) in ports.iter().enumerate().filter(|(_, p)| int(p, "nodePort") != 0) {
        if ports[..i].iter().any(|q| of(q, "nodePort") == of(p, "nodePort")) {
            errors.duplicate(&path.index(i).child("nodePort"), int(p, "nodePort"));
        }
    }
    for (i, p) in ports.iter().enumerate() {
        if ports[..i].iter().any(|q| of(q, "port") == of(p, "port")) {
            let shown = json!({"port": int(p, "port"), "protocol": text(p, "protocol")});
            errors.duplicate(&path.index(i), shown);
        }
    }
}

fn affinity(spec: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("sessionAffinityConfig");
    let config = get(spec, "sessionAffinityConfig");
    match (text(spec, "sessionAffinity"), config) {
        ("None", Some(_)) => errors.forbidden(&path, "must not be set when session affinity is None"),
        ("ClientIP", config) => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let Some(config) = config else { return errors.required(&path, WHEN) };
            let path = path.child("clientIP");
            let Some(client) = get(config, "clientIP") else { return errors.required(&path, WHEN) };
            let path = path.child("timeoutSeconds");
            match client.get("timeoutSeconds").and_then(Value::as_i64) {
                None => errors.required(&path, WHEN),
                Some(n) if !(1..=86400).contains(&n) => {
                    errors.invalid(&path, n, "must be greater than 0 and less than 86400");
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

fn source_ranges(object: &Value, annotations: &Path<'_>, errors: &mut FieldErrors) {
    const BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
    let spec = &object["spec"];
    let balanced = text(spec, "type") == "LoadBalancer";
    if count(spec, "loadBalancerSourceRanges") > 0 {
        // Upstream's name for the field begins with a capital here.
        let path = SPEC.child("LoadBalancerSourceRanges");
        if !balanced {
            errors.forbidden(&path, BALANCED);
        }
        for (i, range) in texts(spec, "loadBalancerSourceRanges").enumerate() {
            cidr(range.trim(), &path.index(i), errors);
        }
    } else if let Some(ranges) = annotation(object, RANGES) {
        let path = annotations.key(RANGES);
        if !balanced {
            errors.forbidden(&path, BALANCED);
        }
        if !ranges.trim().is_empty() {
            for range in ranges.split(',') {
                cidr(range.trim(), &path, errors);
            }
        }
    }
}
