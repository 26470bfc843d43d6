//! Endpoints, EndpointSlices and NetworkPolicies (kubernetes/kubernetes,
//! `pkg/apis/core/validation/validation.go`, `pkg/apis/discovery/validation/validation.go`,
//! `pkg/apis/networking/validation/validation.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_label, dns_subdomain, ensure_object, label_value, set_default};

use super::check::*;
use super::pod_spec::{default_text, each};
use super::service::odd_address;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in each(object, "subsets") {
            each(subset, "ports").for_each(|port| default_text(port, "protocol", "TCP"));
        }
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("subsets");
        for (i, subset) in list(object, "subsets").enumerate() {
            let path = path.index(i);
            if count(subset, "addresses") + count(subset, "notReadyAddresses") == 0 {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for field in ["addresses", "notReadyAddresses"] {
                let path = path.child(field);
                for (i, address) in list(subset, field).enumerate() {
                    let path = path.index(i);
                    ip(text(address, "ip"), &path.child("ip"), errors);
                    optional_name(address, "hostname", dns_label, &path, errors);
                    if let Some(node) = address.get("nodeName").and_then(Value::as_str) {
                        name_is(node, dns_subdomain, &path.child("nodeName"), errors);
                    }
                    if !is_own_address(object, text(address, "ip")) {
                        reachable_ip(text(address, "ip"), &path.child("ip"), errors);
                    }
                }
            }
            let path = path.child("ports");
            for (i, p) in list(subset, "ports").enumerate() {
                let path = path.index(i);
                match text(p, "name") {
                    "" if count(subset, "ports") > 1 => errors.required(&path.child("name"), ""),
                    "" => {}
                    name => name_is(name, dns_label, &path.child("name"), errors),
                }
                port(int(p, "port"), &path.child("port"), errors);
                required_one_of(p, "protocol", &path, PROTOCOLS, errors);
                optional_qualified(p, "appProtocol", &path, errors);
            }
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

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        required_one_of_root(object, "addressType", &["FQDN", "IPv4", "IPv6"], errors);
        slice_endpoints(object, errors);
        let path = Path::new("ports");
        if count(object, "ports") > 20_000 {
            return errors.too_many(&path, count(object, "ports"), 20_000);
        }
        for (i, p) in list(object, "ports").enumerate() {
            let path = path.index(i);
            optional_name(p, "name", dns_label, &path, errors);
            if repeats(list(object, "ports").take(i).map(|p| text(p, "name")), text(p, "name")) {
                errors.duplicate(&path.child("name"), text(p, "name"));
            }
            required_one_of(p, "protocol", &path, PROTOCOLS, errors);
            if let Some(number) = p.get("port").and_then(Value::as_i64) {
                port(number, &path.child("port"), errors);
            }
            optional_qualified(p, "appProtocol", &path, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if new["addressType"] != old["addressType"] {
            errors.immutable(&Path::new("addressType"), &new["addressType"]);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut found = Vec::new();
        if text(object, "addressType") == "FQDN" {
            found.push("addressType: FQDN endpoints are deprecated".into());
        }
        for (i, endpoint) in list(object, "endpoints").enumerate() {
            for (j, address) in texts(endpoint, "addresses").enumerate() {
                odd_address(address, &format!("endpoints[{i}].addresses[{j}]"), &mut found);
            }
        }
        found
    }

    fn columns(&self) -> &'static [Column] {
        table::ENDPOINT_SLICE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::endpoint_slice_cells(object, now)
    }
}

/// Whether this is where the server itself listens: on a cluster of one machine that may well be loopback, which
/// upstream refuses even to start with.
fn is_own_address(object: &Value, address: &str) -> bool {
    let metadata = &object["metadata"];
    text(metadata, "name") == "kubernetes"
        && text(metadata, "namespace") == "default"
        && parse_ip(address).is_some_and(|ip| ip.is_loopback())
}

fn required_one_of_root(object: &Value, field: &str, allowed: &[&str], errors: &mut FieldErrors) {
    match text(object, field) {
        "" => errors.required(&Path::new(field), ""),
        other if !allowed.contains(&other) => errors.not_supported(&Path::new(field), other, allowed),
        _ => {}
    }
}

fn slice_endpoints(object: &Value, errors: &mut FieldErrors) {
    let path = Path::new("endpoints");
    if count(object, "endpoints") > 1000 {
        return errors.too_many(&path, count(object, "endpoints"), 1000);
    }
    let kind = text(object, "addressType");
    for (i, endpoint) in list(object, "endpoints").enumerate() {
        let path = path.index(i);
        let addresses = path.child("addresses");
        match count(endpoint, "addresses") {
            0 => errors.required(&addresses, "must contain at least 1 address"),
            n if n > 100 => errors.too_many(&addresses, n, 100),
            _ => {}
        }
        for (i, address) in texts(endpoint, "addresses").enumerate() {
            let path = addresses.index(i);
            match kind {
                "IPv4" if !parse_ip(address).is_some_and(|ip| ip.is_ipv4()) => {
                    errors.invalid(&path, address, "must be a valid IPv4 address");
                }
                "IPv6" if !parse_ip(address).is_some_and(|ip| ip.is_ipv6()) => {
                    errors.invalid(&path, address, "must be a valid IPv6 address");
                }
                "IPv4" | "IPv6" if is_own_address(object, address) => {}
                "IPv4" | "IPv6" => reachable_ip(address, &path, errors),
                "FQDN" => full_domain_name(address, &path, errors),
                _ => {}
            }
        }
        if let Some(node) = endpoint.get("nodeName").and_then(Value::as_str) {
            name_is(node, dns_subdomain, &path.child("nodeName"), errors);
        }
        let topology = path.child("deprecatedTopology");
        if count(endpoint, "deprecatedTopology") > 16 {
            errors.too_many(&topology, count(endpoint, "deprecatedTopology"), 16);
        }
        types::validate_labels(endpoint.get("deprecatedTopology"), &topology, errors);
        if let Some(name) = endpoint.get("hostname").and_then(Value::as_str) {
            name_is(name, dns_label, &path.child("hostname"), errors);
        }
        if let Some(hints) = get(endpoint, "hints") {
            let path = path.child("hints");
            for field in ["forZones", "forNodes"] {
                let path = path.child(field);
                if count(hints, field) > 8 {
                    errors.too_many(&path, count(hints, field), 8);
                    continue;
                }
                for (i, hint) in list(hints, field).enumerate() {
                    let path = path.index(i);
                    let path = path.child("name");
                    let name = text(hint, "name");
                    if repeats(list(hints, field).take(i).map(|h| text(h, "name")), name) {
                        errors.duplicate(&path, name);
                    }
                    if field == "forZones" {
                        faults(label_value(name), name, &path, errors);
                    } else {
                        name_is(name, dns_subdomain, &path, errors);
                    }
                }
            }
        }
    }
}

fn full_domain_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if let Some(fault) = dns_subdomain(name) {
        return errors.invalid(path, name, &fault);
    }
    if !name.contains('.') {
        return errors.invalid(path, name, "should be a domain with at least two segments separated by dots");
    }
    for label in name.split('.') {
        name_is(label, dns_label, path, errors);
    }
}

pub(super) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        ensure_object(spec, "podSelector");
        if count(spec, "policyTypes") == 0 {
            let mut kinds = vec!["Ingress"];
            if count(spec, "egress") > 0 {
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

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        label_selector(get(spec, "podSelector"), &SPEC.child("podSelector"), errors);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let path = SPEC.child(direction);
            for (i, rule) in list(spec, direction).enumerate() {
                let path = path.index(i);
                for (i, p) in list(rule, "ports").enumerate() {
                    policy_port(p, &path.child("ports").index(i), errors);
                }
                for (i, peer) in list(rule, peers).enumerate() {
                    policy_peer(peer, &path.child(peers).index(i), errors);
                }
            }
        }
        let path = SPEC.child("policyTypes");
        if count(spec, "policyTypes") > 2 {
            let why = "may not specify more than two policyTypes";
            return errors.invalid(&path, spec["policyTypes"].clone(), why);
        }
        for (i, kind) in texts(spec, "policyTypes").enumerate() {
            if !["Ingress", "Egress"].contains(&kind) {
                errors.not_supported(&path.index(i), kind, &["Ingress", "Egress"]);
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

fn policy_port(p: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    one_of(p, "protocol", path, &["TCP", "UDP", "SCTP"], errors);
    let end = p.get("endPort").and_then(Value::as_i64);
    let end_path = path.child("endPort");
    match get(p, "port") {
        None => {
            if let Some(end) = end {
                errors.invalid(&end_path, end, "may not be specified when `port` is not specified");
            }
        }
        Some(Value::String(name)) => {
            if let Some(end) = end {
                errors.invalid(&end_path, end, "may not be specified when `port` is non-numeric");
            }
            faults(types::port_name(name), name, &path.child("port"), errors);
        }
        Some(number) => {
            let first = number.as_i64().unwrap_or_default();
            port(first, &path.child("port"), errors);
            if let Some(end) = end {
                if end < first {
                    errors.invalid(&end_path, first, "must be greater than or equal to `port`");
                }
                port(end, &end_path, errors);
            }
        }
    }
}

fn policy_peer(peer: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut kinds = 0;
    for field in ["podSelector", "namespaceSelector"] {
        kinds += usize::from(has(peer, field));
        label_selector(get(peer, field), &path.child(field), errors);
    }
    let block = get(peer, "ipBlock");
    if let Some(block) = block {
        ip_block(block, &path.child("ipBlock"), errors);
    }
    match (kinds, block) {
        (0, None) => errors.required(path, "must specify a peer"),
        (1.., Some(_)) => errors.forbidden(path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(block: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let range = text(block, "cidr");
    if range.is_empty() {
        return errors.required(&path.child("cidr"), "");
    }
    let Some((network, bits)) = cidr(range, &path.child("cidr"), errors) else { return };
    let path = path.child("except");
    for (i, except) in texts(block, "except").enumerate() {
        let Some((inner, inner_bits)) = cidr(except, &path.index(i), errors) else { continue };
        if inner_bits <= bits || !contains(network, bits, inner) {
            errors.invalid(&path.index(i), except, "must be a strict subset of `cidr`");
        }
    }
}

/// Whether an address lies in a range.
fn contains(network: std::net::IpAddr, bits: u8, ip: std::net::IpAddr) -> bool {
    use std::net::IpAddr::{V4, V6};
    match (network, ip) {
        (V4(a), V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(a) & mask == u32::from(b) & mask
        }
        (V6(a), V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(a) & mask == u128::from(b) & mask
        }
        _ => false,
    }
}
