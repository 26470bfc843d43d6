//! Names that a pod has and knows (`validatePodDNSConfig`, `ValidateHostAliases`).

use serde_json::Value;
use types::{FieldErrors, Path, dns_subdomain, dns_subdomain_with_underscore};

use super::super::check::*;

pub(super) fn policy(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    required_one_of(spec, "dnsPolicy", path, POLICIES, errors);
}

pub(super) fn config(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("dnsConfig");
    let config = get(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        match config {
            None => return errors.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if count(config, "nameservers") == 0 => {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return errors.required(&path.child("nameservers"), why);
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let servers = path.child("nameservers");
    if count(config, "nameservers") > 3 {
        errors.invalid(&servers, config["nameservers"].clone(), "must not have more than 3 nameservers");
    }
    for (i, server) in texts(config, "nameservers").enumerate() {
        ip(server, &servers.index(i), errors);
    }
    let searches = path.child("searches");
    if count(config, "searches") > 32 {
        errors.invalid(&searches, config["searches"].clone(), "must not have more than 32 search paths");
    }
    let length = texts(config, "searches").map(|s| s.len() + 1).sum::<usize>().saturating_sub(1);
    if length > 2048 {
        let why = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&searches, config["searches"].clone(), why);
    }
    for (i, search) in texts(config, "searches").enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        name_is(search, dns_subdomain_with_underscore, &searches.index(i), errors);
    }
    let options = path.child("options");
    for (i, option) in list(config, "options").enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&options.index(i), "must not be empty");
        }
    }
}

pub(super) fn host_aliases(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("hostAliases");
    for (i, alias) in list(spec, "hostAliases").enumerate() {
        let path = path.index(i);
        ip(text(alias, "ip"), &path.child("ip"), errors);
        let names = path.child("hostnames");
        for (i, name) in texts(alias, "hostnames").enumerate() {
            name_is(name, dns_subdomain, &names.index(i), errors);
        }
    }
}

pub(super) fn hostname_override(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(name) = spec.get("hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.child("hostnameOverride");
    if name.is_empty() {
        return;
    }
    if flag(spec, "setHostnameAsFQDN") {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if flag(spec, "hostNetwork") {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        errors.too_long(&path, 64);
    }
    name_is(name, dns_subdomain, &path, errors);
}
