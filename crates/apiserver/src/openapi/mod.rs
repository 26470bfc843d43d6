//! OpenAPI out of the schema facts: what `kubectl explain` and client-side checks read (kubernetes/kubernetes,
//! `kube-openapi/pkg/handler3`).
//!
//! Documents are made when somebody asks; only their tags are kept.

mod documentation;
mod extensions;
mod paths;
mod version_2;

use std::collections::{BTreeMap, HashMap};

use documentation::{Documentation, References};
use http::{HeaderValue, Request, Response, StatusCode, header};
use registry::{Gvk, Registry, ResourceDef};
use serde_json::{Map, Value, json};
use types::Status;

use crate::crds;
use crate::respond::{self, Body};
use crate::state::Inner;

/// `/openapi/v3`: where each group and version is described.
pub(crate) fn index(server: &Inner) -> Response<Body> {
    let mut paths = Map::new();
    let registry = server.registry();
    for (group, versions) in registry.groups() {
        for version in versions {
            let path = paths::prefix(group, version);
            let tag = tag(server, &registry, group, version);
            paths
                .insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={tag}")}));
        }
    }
    extensions::index(server, &mut paths);
    respond::json_value(&json!({"paths": paths}))
}

/// The facts never change with the program's version, so that and the path are tag enough; custom kinds have their own.
fn tag(server: &Inner, registry: &Registry, group: &str, version: &str) -> String {
    let defs = registry.of_version(group, version).iter().map(std::sync::Arc::as_ref);
    if let Some(tag) = crds::tag(defs) {
        return format!("{tag:016X}");
    }
    let path = paths::prefix(group, version);
    let mut tags = server.openapi_tags.lock();
    let make = || {
        format!(
            "{:016X}",
            sum(env!("CARGO_PKG_VERSION")
                .bytes()
                .chain(registry::KUBERNETES_VERSION.bytes())
                .chain(path.bytes()))
        )
    };
    tags.entry(path.clone()).or_insert_with(make).clone()
}

/// FNV-1a.
pub(crate) fn sum(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// `/openapi/v2`: everything in one document, for clients from before version 3.
pub(crate) fn version_2(server: &Inner, http: &Request<Body>) -> Result<Response<Body>, Status> {
    // The type that is asked for has an `@`, which the answer's type must not have.
    const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let registry = server.registry();
    let mut tags = String::new();
    for (group, versions) in registry.groups() {
        versions.iter().for_each(|version| tags += &tag(server, &registry, group, version));
    }
    let extensions = extensions::parts(server);
    extensions.iter().for_each(|part| tags += &format!("{:016X}", part.tag));
    let accept = http.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let in_protobuf = accept.contains(ASKED);
    let etag = format!("\"{:016X}{}\"", sum(tags.bytes()), if in_protobuf { "P" } else { "" });
    if let Some(same) = unchanged(http, &etag) {
        return Ok(same);
    }
    let services = server.api_services();
    let here = |def: &&ResourceDef| services.extension(&def.gvk.group, &def.gvk.version).is_none();
    let resources: Vec<&ResourceDef> =
        registry.resources().map(std::sync::Arc::as_ref).filter(here).collect();
    let parts = Parts::of(&registry, &resources, References::Plain);
    let mut definitions = Value::Object(parts.schemas);
    let mut paths = Value::Object(version_2::paths(parts.paths));
    point(&mut definitions, "#/definitions/");
    point(&mut paths, "#/definitions/");
    for part in &extensions {
        extensions::merge(types::object(&mut paths), types::object(&mut definitions), part);
    }
    let mut response = match definitions {
        Value::Object(definitions) if in_protobuf => respond::with_type(
            StatusCode::OK,
            PROTOBUF,
            version_2::protobuf(registry::KUBERNETES_VERSION, &definitions),
        ),
        definitions => respond::json_value(&json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": registry::KUBERNETES_VERSION},
            "paths": paths,
            "definitions": definitions,
        })),
    };
    set_etag(&mut response, &etag);
    Ok(response)
}

/// The description of one group and version.
pub(crate) fn document(
    server: &Inner,
    group: &str,
    version: &str,
    http: &Request<Body>,
) -> Result<Response<Body>, Status> {
    let registry = server.registry();
    let resources: Vec<&ResourceDef> =
        registry.of_version(group, version).iter().map(std::sync::Arc::as_ref).collect();
    if resources.is_empty() {
        return Err(Status::no_such_resource());
    }
    let etag = format!("\"{}\"", tag(server, &registry, group, version));
    if let Some(same) = unchanged(http, &etag) {
        return Ok(same);
    }
    let parts = Parts::of(&registry, &resources, References::Wrapped);
    let mut schemas = Value::Object(parts.schemas);
    point(&mut schemas, SCHEMAS);
    let title = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut response = respond::json_value(&json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": registry::KUBERNETES_VERSION, "description": title},
        "paths": parts.paths,
        "components": {"schemas": schemas},
    }));
    set_etag(&mut response, &etag);
    Ok(response)
}

/// "Not modified", if that is what the client has.
pub(crate) fn unchanged(http: &Request<Body>, etag: &str) -> Option<Response<Body>> {
    let known = http.headers().get(header::IF_NONE_MATCH)?;
    (known.as_bytes() == etag.as_bytes()).then(|| {
        let mut response = Response::new(respond::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    })
}

pub(crate) fn set_etag(response: &mut Response<Body>, etag: &str) {
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
}

/// The parts of a document in version 3; references in the schemas are bare names.
struct Parts {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Parts {
    fn of(registry: &Registry, resources: &[&ResourceDef], references: References) -> Self {
        let facts = registry::facts();
        let definitions = &facts["definitions"];
        let by_kind = by_kind(definitions);
        let type_of = |gvk: &Gvk| {
            let key = [&*gvk.group, &*gvk.version, &*gvk.kind].map(str::to_owned);
            by_kind.get(&key).map(|name| (*name).to_owned())
        };
        let mut paths = Map::new();
        let mut queue: Vec<String> = ["DeleteOptions", "Status", "Patch", "WatchEvent", "APIResourceList"]
            .map(|name| format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"))
            .into();
        let readers = match references {
            References::Wrapped => crds::Readers::Newer,
            References::Plain => crds::Readers::Older,
        };
        let mut custom = BTreeMap::new();
        for def in resources {
            let name = match (&def.custom, def.schema) {
                (Some(custom), _) => &*custom.type_name,
                (None, Some(schema)) => &*registry.definitions().get(schema).name,
                (None, None) => continue,
            };
            queue.extend([name.to_owned(), format!("{name}List")]);
            queue.extend(def.subresources.values().filter_map(|sub| type_of(&sub.kind)));
            custom.extend(crds::schemas(def, name, readers));
            paths::add(&mut paths, def, name, &type_of);
        }
        let documentation = Documentation::unpack();
        let mut schemas = Map::new();
        while let Some(name) = queue.pop() {
            if schemas.contains_key(&name) {
                continue;
            }
            let schema = match custom.remove(&name) {
                Some(schema) => schema,
                None => {
                    // Anything may be patched with, though the facts do not say so.
                    let anything = json!({"type": "object"});
                    let known = definitions.get(&name);
                    if known.is_none() && !name.ends_with(".Patch") {
                        continue;
                    }
                    let mut schema = known.unwrap_or(&anything).clone();
                    documentation.describe(&name, &mut schema, references);
                    schema
                }
            };
            note_references(&schema, &mut queue);
            schemas.insert(name, schema);
        }
        Self { paths, schemas }
    }
}

/// The names of types by group, version and kind.
fn by_kind(definitions: &Value) -> HashMap<[String; 3], &str> {
    let mut names = HashMap::new();
    for (name, schema) in definitions.as_object().into_iter().flatten() {
        for gvk in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |key: &str| gvk[key].as_str().unwrap_or_default().to_owned();
            names.entry([text("group"), text("version"), text("kind")]).or_insert(name.as_str());
        }
    }
    names
}

const SCHEMAS: &str = "#/components/schemas/";

/// Notes what a schema refers to.
pub(crate) fn note_references(schema: &Value, queue: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("$ref") {
                queue.push(name.rsplit('/').next().unwrap_or(name).to_owned());
            }
            map.values().for_each(|v| note_references(v, queue));
        }
        Value::Array(items) => items.iter().for_each(|v| note_references(v, queue)),
        _ => {}
    }
}

/// Makes every reference point below `base`.
fn point(value: &mut Value, base: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get_mut("$ref") {
                *name = format!("{base}{}", name.rsplit('/').next().unwrap_or(name));
            }
            map.values_mut().for_each(|v| point(v, base));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| point(v, base)),
        _ => {}
    }
}
