//! Ingresses, their classes, IPAddresses and ServiceCIDRs (kubernetes/kubernetes,
//! `pkg/apis/networking/validation/validation.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{
    FieldErrors, Path, dns_label, dns_subdomain, dns1035_label, path_segment, port_name,
    validate_domain_prefixed_path, wildcard_subdomain,
};

use super::check::*;
use super::service::host_name;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const CLASS: &str = "kubernetes.io/ingress.class";

pub(super) struct Ingress;

fn validate(object: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    if count(spec, "rules") == 0 && !has(spec, "defaultBackend") {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&SPEC, spec.get("rules").cloned().unwrap_or(json!([])), why);
    }
    if let Some(given) = get(spec, "defaultBackend") {
        backend(given, &SPEC.child("defaultBackend"), errors);
    }
    let path = SPEC.child("rules");
    for (i, rule) in list(spec, "rules").enumerate() {
        let path = path.index(i);
        let host = text(rule, "host");
        if !host.is_empty() {
            if parse_ip(host).is_some() {
                errors.invalid(&path.child("host"), host, "must be a DNS name, not an IP address");
            }
            let kind = if host.contains('*') { wildcard_subdomain } else { dns_subdomain };
            name_is(host, kind, &path.child("host"), errors);
        }
        if let Some(http) = get(rule, "http") {
            let path = path.child("http");
            let path = path.child("paths");
            if count(http, "paths") == 0 {
                errors.required(&path, "");
            }
            for (i, entry) in list(http, "paths").enumerate() {
                http_path(entry, &path.index(i), errors);
            }
        }
    }
    let path = SPEC.child("tls");
    for (i, tls) in list(spec, "tls").enumerate() {
        let path = path.index(i);
        let hosts = path.child("hosts");
        for (i, host) in texts(tls, "hosts").enumerate() {
            let kind = if host.contains('*') { wildcard_subdomain } else { dns_subdomain };
            name_is(host, kind, &hosts.index(i), errors);
        }
        let known = old
            .is_some_and(|o| list(&o["spec"], "tls").any(|t| t.get("secretName") == tls.get("secretName")));
        if !known {
            optional_name(tls, "secretName", dns_subdomain, &path, errors);
        }
    }
    if let Some(class) = spec.get("ingressClassName").and_then(Value::as_str) {
        name_is(class, dns_subdomain, &SPEC.child("ingressClassName"), errors);
    }
}

fn http_path(entry: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let place = text(entry, "path");
    let here = path.child("path");
    match entry.get("pathType").and_then(Value::as_str) {
        None => {
            return errors.required(&path.child("pathType"), "pathType must be specified");
        }
        Some("Exact" | "Prefix") => {
            if !place.starts_with('/') {
                errors.invalid(&here, place, "must be an absolute path");
            }
            for odd in ["//", "/./", "/../", "%2f", "%2F"] {
                if place.contains(odd) {
                    errors.invalid(&here, place, &format!("must not contain '{odd}'"));
                }
            }
            for odd in ["/..", "/."] {
                if place.ends_with(odd) {
                    errors.invalid(&here, place, &format!("cannot end with '{odd}'"));
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !place.is_empty() && !place.starts_with('/') {
                errors.invalid(&here, place, "must be an absolute path");
            }
        }
        Some(other) => errors.not_supported(
            &path.child("pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
    let empty = json!({});
    backend(get(entry, "backend").unwrap_or(&empty), &path.child("backend"), errors);
}

fn backend(given: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match (get(given, "resource"), get(given, "service")) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (Some(resource), None) => reference(resource, &path.child("resource"), errors),
        (None, Some(service)) => {
            required_name(service, "name", dns1035_label, &path.child("service"), errors);
            let port = &service["port"];
            let (name, number) = (text(port, "name"), int(port, "number"));
            let below = path.child("service");
            let below = below.child("port");
            match (name.is_empty(), number == 0) {
                (false, false) => {
                    errors.invalid(path, "", "cannot set both port name & port number");
                }
                (false, true) => faults(port_name(name), name, &below.child("name"), errors),
                (true, false) => super::check::port(number, &below.child("number"), errors),
                (true, true) => errors.required(path, "port name or number is required"),
            }
        }
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
    }
}

fn reference(given: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(group) = given.get("apiGroup").and_then(Value::as_str) {
        name_is(group, dns_subdomain, &path.child("apiGroup"), errors);
    }
    for field in ["kind", "name"] {
        match text(given, field) {
            "" => errors.required(&path.child(field), &format!("{field} is required")),
            name => name_is(name, path_segment, &path.child(field), errors),
        }
    }
}

impl Strategy for Ingress {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate(object, None, errors);
        if let (Some(class), Some(name)) =
            (annotation(object, CLASS), object["spec"].get("ingressClassName").and_then(Value::as_str))
            && class != name
        {
            let why = "must match `ingressClassName` when both are specified";
            errors.invalid(&Path::new("annotations").child(CLASS), class, why);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        validate(new, Some(old), errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        let status = Path::new("status");
        let path = status.child("loadBalancer");
        let path = path.child("ingress");
        for (i, ingress) in list(&new["status"]["loadBalancer"], "ingress").enumerate() {
            let path = path.index(i);
            if !text(ingress, "ip").is_empty() {
                ip(text(ingress, "ip"), &path.child("ip"), errors);
            }
            host_name(text(ingress, "hostname"), &path.child("hostname"), errors);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let class = annotation(object, CLASS);
        class
            .map(|_| {
                format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")
            })
            .into_iter()
            .collect()
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
    fn default(&self, object: &mut Value) {
        if let Some(parameters) = types::at_mut(object, &["spec", "parameters"]) {
            types::set_default(parameters, "scope", "Cluster");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let controller = text(spec, "controller");
        if controller.len() > 250 {
            errors.too_long(&SPEC.child("controller"), 250);
        }
        validate_domain_prefixed_path(controller, &SPEC.child("controller"), errors);
        let Some(parameters) = get(spec, "parameters") else { return };
        let path = SPEC.child("parameters");
        reference(parameters, &path, errors);
        let namespace = parameters.get("namespace").and_then(Value::as_str);
        let below = path.child("namespace");
        match (parameters.get("scope").and_then(Value::as_str), namespace) {
            (None, _) => errors.required(&path.child("scope"), ""),
            (Some("Namespace"), None) => {
                errors.required(&below, "`parameters.scope` is set to 'Namespace'");
            }
            (Some("Namespace"), Some(name)) => name_is(name, dns_label, &below, errors),
            (Some("Cluster"), Some(_)) => {
                errors.forbidden(&below, "`parameters.scope` is set to 'Cluster'");
            }
            (Some("Cluster"), None) => {}
            (Some(other), _) => {
                errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        immutable(&new["spec"], &old["spec"], "controller", &SPEC, errors);
        self.validate_create(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::INGRESS_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::ingress_class_cells(object, now)
    }
}

pub(super) struct IpAddress;

impl Strategy for IpAddress {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = SPEC.child("parentRef");
        let Some(parent) = get(&object["spec"], "parentRef") else { return errors.required(&path, "") };
        optional_name(parent, "group", dns_subdomain, &path, errors);
        required_name(parent, "resource", path_segment, &path, errors);
        required_name(parent, "name", path_segment, &path, errors);
        optional_name(parent, "namespace", path_segment, &path, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        immutable(&new["spec"], &old["spec"], "parentRef", &SPEC, errors);
    }

    /// Its name is the address, in canonical form.
    fn validate_name(&self, name: &str) -> Option<String> {
        match name.parse::<std::net::IpAddr>() {
            Err(_) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()),
            Ok(ip) if ip.to_string() != name => Some(format!("must be in canonical form (\"{ip}\")")),
            Ok(_) => None,
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["metadata.name"]
    }

    fn columns(&self) -> &'static [Column] {
        table::IP_ADDRESS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::ip_address_cells(object, now)
    }
}

pub(super) struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let path = SPEC.child("cidrs");
        match count(spec, "cidrs") {
            0 => return errors.required(&path, "at least one CIDR required"),
            1 => {}
            2 => {
                let ips: Vec<_> = texts(spec, "cidrs").filter_map(parse_cidr).map(|(ip, _)| ip).collect();
                if ips.len() == 2 && !is_dual_stack(&ips) {
                    let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                    return errors.invalid(&path, spec.clone(), why);
                }
            }
            _ => return errors.invalid(&path, spec.clone(), "may only hold up to 2 values"),
        }
        for (i, range) in texts(spec, "cidrs").enumerate() {
            cidr(range, &path.index(i), errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        immutable(&new["spec"], &old["spec"], "cidrs", &SPEC, errors);
    }

    fn columns(&self) -> &'static [Column] {
        table::SERVICE_CIDR
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::service_cidr_cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let path = |more: Value| {
            let mut path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"number": 1}}}});
            for (k, v) in more.as_object().into_iter().flatten() {
                path[k] = v.clone();
            }
            json!({"rules": [{"http": {"paths": [path]}}]})
        };
        for (spec, want) in [
            (path(json!({})), vec![]),
            (
                json!({}),
                vec!["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
            ),
            (
                path(json!({"pathType": null})),
                vec!["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
            ),
            (
                path(json!({"path": "/a//b"})),
                vec!["spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"],
            ),
            (
                path(json!({"backend": {"service": {"name": "a"}}})),
                vec!["spec.rules[0].http.paths[0].backend: Required value: port name or number is required"],
            ),
            (
                path(json!({"backend": {}})),
                vec![
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                ],
            ),
            (
                json!({"rules": [{"host": "1.2.3.4"}]}),
                vec!["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
            ),
        ] {
            let mut errors = FieldErrors::new();
            Ingress.validate_create(&json!({"spec": spec}), &mut errors);
            let found: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
            assert_eq!(found, want, "{spec}");
        }
    }
}
