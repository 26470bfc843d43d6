//! What is served: `/api`, `/apis` and below, in the old form and the aggregated one (kubernetes/kubernetes,
//! `apiserver/pkg/endpoints/discovery`, `kube-aggregator/pkg/apiserver/handler_{apis,discovery}.go`).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use registry::{Registry, ResourceDef, compare_versions};
use serde_json::{Value, json};
use types::Status;

use crate::aggregation::{self, Extension};
use crate::openapi;
use crate::respond::{self, Body};
use crate::state::Inner;

/// The forms of aggregated discovery.
const FORMS: [(&str, &str, &str); 2] = [
    ("v2", "apidiscovery.k8s.io/v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    (
        "v2beta1",
        "apidiscovery.k8s.io/v2beta1",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    ),
];

/// The form that a client would rather have than the old one.
fn wanted_form(headers: &HeaderMap) -> Option<usize> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    for entry in accept.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        if parts.contains(&"as=APIGroupDiscoveryList") && parts.contains(&"g=apidiscovery.k8s.io") {
            let version = parts.iter().find_map(|p| p.strip_prefix("v="));
            if media == respond::JSON
                && let Some(form) = FORMS.iter().position(|(v, ..)| version == Some(v))
            {
                return Some(form);
            }
        } else if matches!(media, respond::JSON | "*/*" | "application/*")
            && !parts.iter().any(|p| p.starts_with("as="))
        {
            return None;
        }
    }
    None
}

/// A group's name, and its versions, each with who serves it if that is another server.
struct Group {
    name: String,
    versions: Vec<(String, Option<Arc<Extension>>)>,
}

/// Every group that is served here or elsewhere, in the order of the APIServices' priorities, and within it the versions
/// (`kube-aggregator/pkg/apis/apiregistration/v1/helper`, `SortedByGroupAndVersion`).
fn merged(server: &Inner, registry: &Registry) -> Vec<Group> {
    struct Version {
        name: String,
        priority: i64,
        extension: Option<Arc<Extension>>,
    }
    let services = server.api_services();
    let mut groups: Vec<(String, i64, Vec<Version>)> = Vec::new();
    let mut add = |group: &str, version: &str, usual: (i64, i64), extension: Option<Arc<Extension>>| {
        let (of_group, priority) = services.priority(group, version).unwrap_or(usual);
        let version = Version { name: version.to_owned(), priority, extension };
        match groups.iter_mut().find(|(name, ..)| name == group) {
            Some((_, highest, versions)) => {
                *highest = of_group.max(*highest);
                versions.push(version);
            }
            None => groups.push((group.to_owned(), of_group, vec![version])),
        }
    };
    for (group, versions) in registry.groups() {
        for version in versions {
            if services.extension(group, version).is_none() {
                let defs = registry.of_version(group, version);
                let custom = defs.first().is_some_and(|def| def.custom.is_some());
                add(group, version, aggregation::priority_of(group, version, custom), None);
            }
        }
    }
    for extension in services.extensions() {
        add(&extension.group, &extension.version, (0, 0), Some(extension.clone()));
    }
    groups.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let group = |(name, _, mut versions): (String, i64, Vec<Version>)| {
        versions.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| compare_versions(&b.name, &a.name)));
        Group { name, versions: versions.into_iter().map(|v| (v.name, v.extension)).collect() }
    };
    groups.into_iter().map(group).collect()
}

/// `/`: the paths there are.
pub(crate) fn paths(server: &Inner) -> Response<Body> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for group in merged(server, &server.registry()).iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|(v, _)| format!("/apis/{}/{v}", group.name)));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned),
    );
    respond::json_value(&json!({"paths": paths}))
}

/// `/api`.
pub(crate) fn core_versions(server: &Inner, http: &Request<Body>) -> Response<Body> {
    if let Some(form) = wanted_form(http.headers()) {
        return aggregated(server, http, form, |group| group.is_empty());
    }
    let (ip, port) = server.config.advertise;
    respond::json_value(&json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": format!("{ip}:{port}")}],
    }))
}

/// `/apis`.
pub(crate) fn groups(server: &Inner, http: &Request<Body>) -> Response<Body> {
    if let Some(form) = wanted_form(http.headers()) {
        return aggregated(server, http, form, |group| !group.is_empty());
    }
    let groups = merged(server, &server.registry());
    let groups: Vec<Value> = groups.iter().filter(|g| !g.name.is_empty()).map(group_value).collect();
    respond::json_value(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

fn group_value(group: &Group) -> Value {
    let version = |v: &str| json!({"groupVersion": format!("{}/{v}", group.name), "version": v});
    json!({
        "name": group.name,
        "versions": group.versions.iter().map(|(v, _)| version(v)).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(|(v, _)| version(v)),
    })
}

/// `/apis/{group}`.
pub(crate) fn group(server: &Inner, name: &str) -> Result<Response<Body>, Status> {
    let groups = merged(server, &server.registry());
    let group =
        groups.iter().find(|g| g.name == name && !name.is_empty()).ok_or_else(Status::no_such_resource)?;
    let mut value = group_value(group);
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

fn aggregated(
    server: &Inner,
    http: &Request<Body>,
    form: usize,
    picks: impl Fn(&str) -> bool,
) -> Response<Body> {
    let registry = server.registry();
    let groups = merged(server, &registry).into_iter().filter(|g| picks(&g.name));
    let items: Vec<Value> = groups.map(|group| aggregated_group(server, &registry, &group)).collect();
    let (_, api_version, media) = FORMS[form];
    let list =
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items});
    let bytes = list.to_string();
    let etag = format!("\"{:016X}\"", openapi::sum(bytes.bytes()));
    let mut response =
        openapi::unchanged(http, &etag).unwrap_or_else(|| respond::with_type(StatusCode::OK, media, bytes));
    openapi::set_etag(&mut response, &etag);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregated_group(server: &Inner, registry: &Registry, group: &Group) -> Value {
    let version = |(version, extension): &(String, Option<Arc<Extension>>)| {
        let Some(extension) = extension else {
            let defs = registry.of_version(&group.name, version);
            let resources: Vec<Value> = defs.iter().map(|def| aggregated_resource(def)).collect();
            return json!({"version": version, "resources": resources, "freshness": "Current"});
        };
        // What a server said before it went away is better than nothing, if it is known for what it is.
        let learned = server.learned(extension);
        let current = learned.as_ref().is_some_and(|l| l.version.current);
        let mut value = json!({"version": version, "freshness": if current { "Current" } else { "Stale" }});
        if let Some(learned) = learned.filter(|l| !l.version.resources.is_empty()) {
            value["resources"] = learned.version.resources.clone().into();
        }
        value
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let mut item = json!({"metadata": {"creationTimestamp": null}, "versions": versions});
    if !group.name.is_empty() {
        item["metadata"]["name"] = group.name.clone().into();
    }
    item
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
