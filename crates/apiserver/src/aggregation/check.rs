//! Whether an extension server is there (kubernetes/kubernetes,
//! `kube-aggregator/pkg/controllers/status/remote/remote_available_controller.go`), and what it serves.

use std::sync::Arc;
use std::time::Duration;

use admission::Objects;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use super::connections::Trust;
use super::forward::{ask, place_at};
use super::learned::{self, Learned, OpenApiPart, VersionPart};
use super::services::Extension;
use crate::state::Inner;
use crate::subresources::{Nowhere, has_slices, service_addresses};

/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// Documents are longer.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(20);
/// How many of a service's servers are asked until one answers.
const ATTEMPTS: usize = 5;

/// The condition `Available`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    fn missing(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    pub(super) fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// Looks at what an APIService names, and asks the server.
pub(super) async fn check(server: &Arc<Inner>, extension: &Extension) -> Condition {
    let found = match &extension.local {
        Some(local) => Ok(vec![local.name()]),
        None => addresses(server, extension),
    };
    let addresses = match found {
        Ok(addresses) => addresses,
        Err(condition) => {
            forget(server, extension);
            return condition;
        }
    };
    let path = extension.path();
    let mut answer = Err(String::new());
    for address in addresses.iter().take(ATTEMPTS) {
        answer = discover(server, extension, address, &path).await;
        if answer.is_ok() {
            break;
        }
    }
    match answer {
        Ok(list) => {
            match list.and_then(|list| learned::resources(&list, &extension.group, &extension.version)) {
                Some(resources) => learn(server, extension, &addresses, resources).await,
                None => forget(server, extension),
            }
            Condition { status: "True", reason: "Passed", message: "all checks passed".into() }
        }
        Err(why) => {
            forget(server, extension);
            Condition::missing("FailedDiscoveryCheck", why)
        }
    }
}

fn addresses(server: &Inner, extension: &Extension) -> Result<Vec<String>, Condition> {
    let (namespace, name, port) = (&*extension.namespace, &*extension.service, extension.port);
    let shown = format!("service/{name} in {namespace:?}");
    let found = service_addresses(server, namespace, name, &port.to_string());
    found.map_err(|why| match why {
        Nowhere::Service => Condition::missing("ServiceNotFound", format!("{shown} is not present")),
        Nowhere::Port => {
            Condition::missing("ServicePortError", format!("{shown} is not listening on port {port}"))
        }
        Nowhere::Endpoints if !has_slices(server, namespace, name) => {
            Condition::missing("EndpointsNotFound", format!("cannot find endpointslices for {shown}"))
        }
        Nowhere::Endpoints => {
            let service = server.get("services", namespace, name).unwrap_or_default();
            let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
            let port_name =
                ports.find(|p| p["port"] == port).and_then(|p| p["name"].as_str()).unwrap_or_default();
            Condition::missing(
                "MissingEndpoints",
                format!("endpointslices for {shown} have no addresses with port name {port_name:?}"),
            )
        }
    })
}

/// The list of what one server serves. A server whose certificate is not believed is there all the same, as upstream
/// sees it; only what it says is not.
async fn discover(
    server: &Arc<Inner>,
    extension: &Extension,
    address: &str,
    path: &str,
) -> Result<Option<Value>, String> {
    let url = format!("https://{address}{path}");
    let accept = [(header::ACCEPT, "application/json, */*")];
    let place = place_at(extension, address.to_owned(), extension.trust.clone());
    let mut answer = ask(server, extension, &place, path, &accept, PATIENCE).await;
    let mut believed = true;
    if answer.as_ref().is_err_and(|why| is_distrust(why)) && extension.trust != Trust::Anything {
        believed = false;
        let place = place_at(extension, address.to_owned(), Trust::Anything);
        answer = ask(server, extension, &place, path, &accept, PATIENCE).await;
    }
    let failed = |why: String| format!("failing or missing response from {url}: {why}");
    let answer = answer.map_err(|why| failed(format!("Get {url:?}: {why}")))?;
    if !answer.status().is_success() {
        return Err(failed(format!("bad status from {url}: {}", answer.status().as_u16())));
    }
    Ok(json(&answer).filter(|_| believed))
}

/// Whether it was the certificate that a connection failed for.
fn is_distrust(why: &str) -> bool {
    why.contains("failed to verify certificate") || why.contains("unable to load root certificates")
}

fn json(answer: &Response<Bytes>) -> Option<Value> {
    serde_json::from_slice(answer.body()).ok()
}

/// Notes what a server serves, and how it describes it.
async fn learn(server: &Arc<Inner>, extension: &Extension, addresses: &[String], resources: Vec<Value>) {
    let before = server.learned(extension);
    let fresh = Arc::new(VersionPart { resources, current: true });
    // What is served is shown before it is described: descriptions take their time.
    let openapi = before.as_ref().map(|b| b.openapi.clone()).unwrap_or_default();
    note(server, extension, fresh.clone(), openapi);
    let Some(address) = addresses.first() else { return };
    let described = describe(server, extension, address, before.as_ref().map(|b| &*b.openapi)).await;
    if let Some(openapi) = described {
        note(server, extension, fresh, Arc::new(openapi));
    }
}

fn note(server: &Inner, extension: &Extension, version: Arc<VersionPart>, openapi: Arc<OpenApiPart>) {
    let learned = Learned { uid: extension.uid.clone(), version, openapi };
    server.aggregation.learned.lock().insert(extension.name.clone(), Arc::new(learned));
}

/// What was learned before is shown on, as what it is: stale.
fn forget(server: &Inner, extension: &Extension) {
    let Some(before) = server.learned(extension) else { return };
    if before.version.current {
        let version = VersionPart { resources: before.version.resources.clone(), current: false };
        note(server, extension, Arc::new(version), before.openapi.clone());
    }
}

/// A server's own documents; nothing if they are as before.
async fn describe(
    server: &Arc<Inner>,
    extension: &Extension,
    address: &str,
    before: Option<&OpenApiPart>,
) -> Option<OpenApiPart> {
    let place = place_at(extension, address.to_owned(), extension.trust.clone());
    let accept = (header::ACCEPT, "application/json");
    let index =
        ask(server, extension, &place, "/openapi/v3", std::slice::from_ref(&accept), DOCUMENT_PATIENCE).await;
    let version_3 = index.ok().filter(|i| i.status().is_success()).and_then(|index| {
        let path = extension.path();
        let entry = &json(&index)?["paths"][path.trim_start_matches('/')];
        entry["serverRelativeURL"].as_str().map(str::to_owned)
    });
    let known = before.and_then(|b| b.etag.as_deref());
    let mut headers = vec![accept];
    headers.extend(known.map(|etag| (header::IF_NONE_MATCH, etag)));
    let document = ask(server, extension, &place, "/openapi/v2", &headers, DOCUMENT_PATIENCE).await;
    let mut part = match (document, before) {
        (Ok(document), Some(before)) if document.status() == StatusCode::NOT_MODIFIED => {
            if before.version_3 == version_3 {
                return None;
            }
            let (paths, definitions) = (before.paths.clone(), before.definitions.clone());
            OpenApiPart { version_3: None, paths, definitions, tag: before.tag, etag: before.etag.clone() }
        }
        (Ok(document), _) if document.status().is_success() => {
            let etag = document.headers().get(header::ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
            json(&document).map(|d| OpenApiPart::read(&d, &extension.path(), etag)).unwrap_or_default()
        }
        _ => OpenApiPart::default(),
    };
    part.version_3 = version_3;
    Some(part)
}
