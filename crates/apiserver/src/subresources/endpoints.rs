use admission::Objects;
use serde_json::Value;

use crate::object;
use crate::state::Inner;

const SLICES: &str = "endpointslices.discovery.k8s.io";
const SERVICE: &str = "kubernetes.io/service-name";

/// Why a service is answered nowhere: what there is none of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nowhere {
    /// There is no such service.
    Service,
    /// It has no such port.
    Port,
    /// Nobody stands behind it who is ready.
    Endpoints,
}

/// Where a service is answered now: the addresses with port of all its endpoints that are ready. The port is a number, a
/// name, or empty for the first one.
pub(crate) fn service_addresses(
    server: &Inner,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<Vec<String>, Nowhere> {
    let service = server.get("services", namespace, name).ok_or(Nowhere::Service)?;
    let spec = &service["spec"];
    let number: Option<u64> = port.parse().ok();
    if spec["type"] == "ExternalName" {
        let host = spec["externalName"].as_str().ok_or(Nowhere::Endpoints)?;
        return Ok(vec![format!("{host}:{}", number.unwrap_or(443))]);
    }
    let mut ports = spec["ports"].as_array().into_iter().flatten();
    let wanted =
        ports.find(|p| port.is_empty() || p["name"] == port || number.is_some_and(|n| p["port"] == n));
    // A name that only the endpoints have will do.
    let port_name = match wanted {
        Some(wanted) => wanted["name"].as_str().unwrap_or_default(),
        None if number.is_some() => return Err(Nowhere::Port),
        None => port,
    };
    let mut addresses = Vec::new();
    for slice in slices(server, namespace, name) {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let mut ports = ports.filter(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let Some(number) = ports.find_map(|p| p["port"].as_u64()) else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let ready = endpoints.filter(|e| e["conditions"]["ready"] != false);
        addresses.extend(ready.filter_map(|e| e["addresses"][0].as_str()).map(|ip| join(ip, number)));
    }
    if addresses.is_empty() { Err(Nowhere::Endpoints) } else { Ok(addresses) }
}

/// Whether anything is said about who stands behind a service.
pub(crate) fn has_slices(server: &Inner, namespace: &str, name: &str) -> bool {
    slices(server, namespace, name).next().is_some()
}

/// One place where a service is answered now.
pub(crate) fn service_address(server: &Inner, namespace: &str, name: &str, port: &str) -> Option<String> {
    service_addresses(server, namespace, name, port).ok()?.into_iter().next()
}

/// An address and a port.
pub(super) fn join(ip: &str, port: impl std::fmt::Display) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn slices(server: &Inner, namespace: &str, name: &str) -> impl Iterator<Item = Value> {
    let snapshot = server.store.snapshot(SLICES);
    let prefix = format!("{namespace}/");
    let of_service: Vec<_> =
        snapshot.scan(&prefix, None).filter(|r| object::label(r, SERVICE) == Some(name)).cloned().collect();
    of_service.into_iter().filter_map(|record| serde_json::from_slice(&record.value).ok())
}
