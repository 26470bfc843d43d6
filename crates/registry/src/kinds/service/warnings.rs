//! What is strange in a Service, though it may be said (kubernetes/kubernetes,
//! `pkg/api/service/warnings.go`).

use serde_json::Value;

use super::super::check::*;
use super::addresses;

/// `pkg/api/service/warnings.go`, `GetWarningsForService`.
pub(super) fn warnings(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let mut found = Vec::new();
    for key in ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"] {
        if annotation(object, key).is_some() {
            found.push(format!(
                "metadata.annotations[{key}]: annotation is deprecated; use spec.trafficDistribution instead"
            ));
        }
    }
    if addresses::is_headless(spec) {
        if !text(spec, "loadBalancerIP").is_empty() {
            found.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if count(spec, "externalIPs") > 0 {
            found.push("spec.externalIPs is ignored for headless services".into());
        }
        if !matches!(text(spec, "sessionAffinity"), "" | "None") {
            found.push("spec.SessionAffinity is ignored for headless services".into());
        }
    }
    if text(spec, "type") == "ExternalName" && count(spec, "externalIPs") > 0 {
        found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if text(spec, "type") != "ExternalName" && !text(spec, "externalName").is_empty() {
        found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        found.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\" instead".into(),
        );
    }
    for field in ["clusterIPs", "externalIPs"] {
        for (i, address) in texts(spec, field).enumerate() {
            odd_address(address, &format!("spec.{field}[{i}]"), &mut found);
        }
    }
    odd_address(text(spec, "loadBalancerIP"), "spec.loadBalancerIP", &mut found);
    found
}

/// Addresses that others read differently, or that are not in their canonical form.
pub(in super::super) fn odd_address(address: &str, path: &str, found: &mut Vec<String>) {
    let Some(ip) = parse_ip(address) else { return };
    if address.parse::<std::net::IpAddr>().is_err() {
        found.push(format!(
            "{path}: non-standard IP address {address:?} will be considered invalid in a future Kubernetes release: use \"{ip}\""
        ));
    } else if ip.is_ipv6() && ip.to_string() != address {
        found.push(format!(
            "{path}: IPv6 address {address:?} should be in RFC 5952 canonical format (\"{ip}\")"
        ));
    }
}
