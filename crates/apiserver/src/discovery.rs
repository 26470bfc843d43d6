//! What is served: `/api`, `/apis` and below, in the old form and the aggregated one (kubernetes/kubernetes,
//! `apiserver/pkg/endpoints/discovery`).

use http::{HeaderMap, Response, StatusCode, header};
use registry::ResourceDef;
use serde_json::{Value, json};
use types::Status;

use crate::respond::{self, Body};
use crate::state::Inner;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|entry| {
        entry.trim().starts_with("application/json")
            && entry.contains("as=APIGroupDiscoveryList")
            && entry.contains("v=v2")
            && !entry.contains("v=v2beta1")
    })
}

/// `/`: the paths there are.
pub(crate) fn paths(server: &Inner) -> Response<Body> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in server.registry().groups().iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned),
    );
    respond::json_value(&json!({"paths": paths}))
}

/// `/api`.
pub(crate) fn core_versions(server: &Inner, headers: &HeaderMap) -> Response<Body> {
    if wants_aggregated(headers) {
        return aggregated(server, |group| group.is_empty());
    }
    let (ip, port) = server.config.advertise;
    respond::json_value(&json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": format!("{ip}:{port}")}],
    }))
}

/// `/apis`.
pub(crate) fn groups(server: &Inner, headers: &HeaderMap) -> Response<Body> {
    if wants_aggregated(headers) {
        return aggregated(server, |group| !group.is_empty());
    }
    let registry = server.registry();
    let groups = registry.groups();
    let groups: Vec<Value> =
        groups.iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group_value(g, v)).collect();
    respond::json_value(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let version = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    json!({
        "name": group,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/apis/{group}`.
pub(crate) fn group(server: &Inner, name: &str) -> Result<Response<Body>, Status> {
    let registry = server.registry();
    let groups = registry.groups();
    let (group, versions) =
        groups.iter().find(|(g, _)| *g == name && !g.is_empty()).ok_or_else(Status::no_such_resource)?;
    let mut value = group_value(group, versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(respond::json_value(&value))
}

/// `/api/v1` and `/apis/{group}/{version}`.
pub(crate) fn resources(server: &Inner, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let mut rows = Vec::new();
    for def in server.registry().of_version(group, version) {
        let mut row = json!({
            "name": &*def.resource, "singularName": &*def.singular, "namespaced": def.namespaced,
            "kind": &*def.gvk.kind, "verbs": def.verbs.names().collect::<Vec<_>>(),
        });
        if !def.short_names.is_empty() {
            row["shortNames"] = json!(def.short_names);
        }
        if !def.categories.is_empty() {
            row["categories"] = json!(def.categories);
        }
        rows.push(row);
        for (name, sub) in &def.subresources {
            let mut row = json!({
                "name": format!("{}/{name}", def.resource), "singularName": "", "namespaced": def.namespaced,
                "kind": &*sub.kind.kind, "verbs": wire_verbs(sub),
            });
            if sub.kind.group != def.gvk.group || sub.kind.version != def.gvk.version {
                row["group"] = (&*sub.kind.group).into();
                row["version"] = (&*sub.kind.version).into();
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Err(Status::no_such_resource());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(respond::json_value(
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": rows}),
    ))
}

/// `connect` is told as the methods it answers to.
fn wire_verbs(sub: &registry::SubresourceDef) -> Vec<&'static str> {
    if sub.verbs.has(registry::Verb::Connect) { vec!["create", "get"] } else { sub.verbs.names().collect() }
}

fn aggregated(server: &Inner, picks: impl Fn(&str) -> bool) -> Response<Body> {
    let registry = server.registry();
    let groups = registry.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(g, _)| picks(g))
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = registry
                        .of_version(group, version)
                        .iter()
                        .map(|def| aggregated_resource(def))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut item = json!({"metadata": {"creationTimestamp": null}, "versions": versions});
            if !group.is_empty() {
                item["metadata"]["name"] = (*group).into();
            }
            item
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    respond::with_type(StatusCode::OK, AGGREGATED, list.to_string())
}

fn aggregated_resource(def: &ResourceDef) -> Value {
    let kind =
        |gvk: &registry::Gvk| json!({"group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind});
    let subresources: Vec<Value> = def
        .subresources
        .iter()
        .map(|(name, sub)| json!({"subresource": &**name, "responseKind": kind(&sub.kind), "verbs": wire_verbs(sub)}))
        .collect();
    let mut value = json!({
        "resource": &*def.resource, "responseKind": kind(&def.gvk),
        "scope": if def.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": &*def.singular, "verbs": def.verbs.names().collect::<Vec<_>>(),
    });
    if !def.short_names.is_empty() {
        value["shortNames"] = json!(def.short_names);
    }
    if !def.categories.is_empty() {
        value["categories"] = json!(def.categories);
    }
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}
