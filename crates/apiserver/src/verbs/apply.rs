use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use registry::Verb;
use serde_json::{Value, json};
use types::apply::{Applied, ApplyError, Managers, Operation};
use types::{Reason, Status, ensure_object, str_at};

use super::owners::ignored;
use super::patch::invalid_options;
use super::{Edited, Part, Write, create_object, rewrite};
use crate::pipeline::Call;
use crate::request::{FieldValidation, ResourceRequest};
use crate::respond::Body;
use crate::state::Inner;
use crate::{authorize, body, encode};

/// What `kubectl apply` leaves on objects it applied on the client's side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Server-side apply: makes an object what a configuration says of it, and keeps track of who says what. Creates the
/// object if it is not there (kubernetes/kubernetes, `apiserver/pkg/endpoints/handlers/patch.go`, `applyPatcher`).
pub(super) async fn apply(server: &Arc<Inner>, call: Call, part: Part) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    if r.query.field_manager.is_none() {
        return Err(no_field_manager());
    }
    let (headers, bytes) = body::read(http).await?;
    let config = parse(&r, &headers, &bytes)?;
    let write = Write::of(server, &user, &r, &headers);
    let force = r.query.force.unwrap_or(false);
    loop {
        let absent = server.store.get(&r.def.table, &r.key()).is_none();
        if absent && part == Part::Main {
            authorize::may(server, &user, Verb::Create, &r).await?;
            match create(&write, &config).await {
                // Somebody else was faster; it is there to be applied to now.
                Err(status) if status.reason == Some(Reason::AlreadyExists) => continue,
                Err(status) => return Err(status),
                Ok(written) => {
                    let mut response = encode::object(server, &r, &headers, &written.record).await?;
                    *response.status_mut() = StatusCode::CREATED;
                    encode::warn(&mut response, &written.warnings);
                    return Ok(response);
                }
            }
        }
        let edit = |old: &Value| edit(&write, old, &config, part, force);
        return match rewrite(&write, &r.name, part, edit).await {
            Err(status) if status.reason == Some(Reason::NotFound) && part == Part::Main && !absent => {
                continue;
            }
            Err(status) => Err(status),
            Ok(written) => {
                let mut response = encode::object(server, &r, &headers, &written.record).await?;
                encode::warn(&mut response, &written.warnings);
                Ok(response)
            }
        };
    }
}

/// Whether a patch is a configuration to apply.
pub(crate) fn is_apply(headers: &HeaderMap) -> bool {
    body::media_type(headers).starts_with("application/apply-patch")
}

/// What is said to those who apply without a name.
pub(crate) fn no_field_manager() -> Status {
    invalid_options(|errors| {
        errors.required(&types::Path::new("fieldManager"), "is required for apply patch");
    })
}

/// Reads the configuration, and makes sure that it fits its type.
fn parse(r: &ResourceRequest, headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Status> {
    if body::media_type(headers) != "application/apply-patch+yaml" {
        return Err(body::unsupported(body::media_type(headers), "application/apply-patch+yaml"));
    }
    let bad = |why: String| Status::bad_request(format!("error decoding YAML: {why}"));
    // JSON is YAML, and reading it as such is many times faster.
    let mut config: Value = match serde_json::from_slice(bytes) {
        Ok(config) => config,
        Err(_) => crate::yaml::parse(bytes).map_err(|e| bad(e.to_string()))?.0,
    };
    body::check_depth(&config)?;
    if !config.is_object() {
        return Err(bad("the configuration is no object".to_owned()));
    }
    for field in ["apiVersion", "kind"] {
        if str_at(&config, &[field]).is_none() {
            return Err(Status::bad_request(format!("{field} must be set in the configuration to apply")));
        }
    }
    body::check_kind(&mut config, &r.def.api_version(), &r.def.gvk.kind)?;
    if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    super::create::set_namespace(&mut config, &r.def, &r.namespace)?;
    match str_at(&config, &["metadata", "name"]) {
        Some(name) if name != r.name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                r.name
            )));
        }
        _ => ensure_object(&mut config, "metadata")["name"] = r.name.as_str().into(),
    }
    types::object(&mut config["metadata"]).remove("managedFields");
    let strict = r.query.field_validation == FieldValidation::Strict;
    let how = if strict { FieldValidation::Strict } else { FieldValidation::Warn };
    let unknown = body::conform(&r.registry, &r.def, &mut config, &[], how)?;
    if unknown.is_empty() {
        return Ok(config);
    }
    let name = |text: &String| text.trim_start_matches("unknown field ").trim_matches('"').to_owned();
    let faults: Vec<String> =
        unknown.iter().map(|text| format!(".{}: field not declared in schema", name(text))).collect();
    Err(Status::not_typed(&what(r.namespace.as_str(), &r.name, &r.def), &faults))
}

/// An object as messages name it.
fn what(namespace: &str, name: &str, def: &registry::ResourceDef) -> String {
    format!("{namespace}/{name}; {}, Kind={}", def.api_version(), def.gvk.kind)
}

async fn create(write: &Write<'_>, config: &Value) -> Result<super::Written, Status> {
    if let Some(uid) = str_at(config, &["metadata", "uid"]) {
        let name = str_at(config, &["metadata", "name"]).unwrap_or_default();
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Status::conflict(&write.def.gvk.group, &write.def.resource, name, &why));
    }
    let live = json!({});
    let Edited { object, managers, .. } = edit(write, &live, config, Part::Main, false)?;
    create_object(write, object, managers).await
}

/// What the configuration makes of an object.
pub(crate) fn edit(
    write: &Write<'_>,
    live: &Value,
    config: &Value,
    part: Part,
    force: bool,
) -> Result<Edited, Status> {
    let Some(shapes) = write.shapes() else {
        return Err(body::unsupported("application/apply-patch+yaml", "application/merge-patch+json"));
    };
    let mut live = live.clone();
    let managers = Managers::take(&mut live).unwrap_or_default();
    let ignored = ignored(write, part);
    let attempt = |force: bool| {
        let by = write.manager(Operation::Apply);
        managers.clone().apply(shapes, &live, config, by, &ignored, force)
    };
    // `kubectl` may take over what it applied itself before, on the client's side.
    let applied = match attempt(force) {
        Err(ApplyError::Conflicts(conflicts)) if write.manager == "kubectl" => match last_applied(&live) {
            Some(last) => {
                let own = shapes.unchanged_since(&last, &live);
                match Managers::remaining(&conflicts, &own) {
                    rest if rest.is_empty() => attempt(true),
                    rest => Err(ApplyError::Conflicts(rest)),
                }
            }
            None => Err(ApplyError::Conflicts(conflicts)),
        },
        outcome => outcome,
    };
    let name = str_at(config, &["metadata", "name"]).unwrap_or_default();
    let Applied { mut object, managers } =
        applied.map_err(|e| e.status(&what(write.namespace, name, write.def)))?;
    if config["metadata"].get("resourceVersion").is_none() {
        types::object(&mut object["metadata"]).remove("resourceVersion");
    }
    // So that going back to client-side apply finds what was applied last.
    if write.manager == "kubectl" && last_applied(&live).is_some() {
        object["metadata"]["annotations"][LAST_APPLIED] = format!("{config}\n").into();
    }
    Ok(Edited { object, managers: Some(managers), warnings: Vec::new() })
}

fn last_applied(object: &Value) -> Option<Value> {
    let text = object["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    serde_json::from_str(text).ok()
}
