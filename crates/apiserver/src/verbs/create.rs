use std::sync::Arc;

use admission::Operation;
use http::{Response, StatusCode};
use registry::{ResourceDef, validate_meta};
use serde_json::{Value, json};
use store::{CommitError, Expect};
use types::apply::Managers;
use types::{FieldErrors, Status, ensure_object, str_at};

use super::{Part, Write, Written, owners};
use crate::pipeline::Call;
use crate::respond::Body;
use crate::state::Inner;
use crate::{admin_access, authorize, body, certificate_requests, encode, object, services};

/// How often a generated name may turn out to be taken (`apiserver/pkg/registry/generic/registry/store.go`,
/// `maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS: usize = 8;

/// Makes a new object.
pub(crate) async fn create(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let (headers, bytes) = body::read(http).await?;
    let body::Given { object: mut new, duplicates } = body::parse(&r.registry, &headers, &bytes)?;
    body::check_kind(&mut new, &r.def.api_version(), &r.def.gvk.kind)?;
    let mut warnings = body::conform(&r.registry, &r.def, &mut new, &duplicates, r.query.field_validation)?;
    let written = create_object(&Write::of(server, &user, &r, &headers), new, None).await?;
    warnings.extend(written.warnings);
    let mut response = encode::object(server, &r, &headers, &written.record).await?;
    *response.status_mut() = StatusCode::CREATED;
    encode::warn(&mut response, &warnings);
    Ok(response)
}

/// Makes a new object out of one that fits its schema: names it, fills it in, admits, validates and stores it.
///
/// Its fields belong to `managers`, or else to the writer.
pub(crate) async fn create_object(
    write: &Write<'_>,
    mut new: Value,
    managers: Option<Managers>,
) -> Result<Written, Status> {
    let Write { server, def, namespace, .. } = *write;
    if def.namespaced && namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    if str_at(&new, &["metadata", "resourceVersion"]).is_some() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    set_namespace(&mut new, def, namespace)?;
    begin_life(server, &mut new);
    let generate = str_at(&new, &["metadata", "name"]).is_none();
    let base = str_at(&new, &["metadata", "generateName"]).map(str::to_owned);
    let mut attempt = 1;
    // Only these may have to be tried again.
    let repeats = generate || services::takes_addresses(def);
    loop {
        let mut candidate = if repeats { new.clone() } else { std::mem::take(&mut new) };
        if let (true, Some(base)) = (generate, &base) {
            candidate["metadata"]["name"] = types::generated_name(base, &server.config.ids.suffix(5)).into();
        }
        match create_named(write, candidate, managers.clone()).await {
            Err(Failed::Taken(_)) if generate && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(Failed::Raced(_)) if repeats && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(Failed::Taken(status) | Failed::Raced(status) | Failed::Refused(status)) => {
                return Err(status);
            }
            Ok(written) => return Ok(written),
        }
    }
}

enum Failed {
    /// The name is another's.
    Taken(Status),
    /// Another Service was faster with what this one was given.
    Raced(Status),
    Refused(Status),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

async fn create_named(
    write: &Write<'_>,
    mut new: Value,
    managers: Option<Managers>,
) -> Result<Written, Failed> {
    let Write { server, def, namespace, dry_run, .. } = *write;
    let name = object::name(&new).to_owned();
    def.strategy.default(&mut new);
    owners::settle(write, &mut new, None, Part::Main, managers);
    // An update that creates is a creation.
    let write = &Write { subresource: "", ..*write };
    let request = write.admission(Operation::Create, &name);
    Box::pin(server.admit(&request, Some(&mut new), None)).await?;
    authorize::check_escalation(write, &new, None).await?;
    def.strategy.prepare_create(&mut new);
    certificate_requests::stamp(def, write.user, &mut new);
    if def.strategy.has_generation() && new.get("spec").is_some() {
        new["metadata"]["generation"] = json!(1);
    }
    let mut errors = FieldErrors::new();
    validate_meta(def, &new, &mut errors);
    def.strategy.validate_create(&new, &mut errors);
    server.services.allocate(server, def, &mut new, None, &mut errors);
    admin_access::check(server, def, namespace, &new, None, &mut errors);
    if !errors.is_empty() {
        return Err(Status::invalid(&def.gvk.group, &def.gvk.kind, &name, &errors).into());
    }
    server.validate(&request, Some(&new), None).await?;
    let warnings = def.strategy.warnings(&new);
    server.to_storage(def, &mut new).await?;
    if dry_run {
        if server.store.get(&def.table, &object::key(namespace, &name)).is_some() {
            return Err(Status::already_exists(&def.gvk.group, &def.resource, &name).into());
        }
        let record = encode::unwritten(def, namespace, &new);
        return Ok(Written { record, warnings });
    }
    match server.put(def, namespace, &new, Expect::Absent).await {
        Ok(record) => Ok(Written { record, warnings }),
        Err(error) if services::is_lost_race(def, &error) => {
            Err(Failed::Raced(object::unavailable(format!("others take the same addresses: {error}"))))
        }
        Err(error @ CommitError::Exists { .. }) => {
            Err(Failed::Taken(object::commit_error(def, &name, error)))
        }
        Err(error) => Err(object::commit_error(def, &name, error).into()),
    }
}

/// The URL's namespace is the object's.
pub(crate) fn set_namespace(object: &mut Value, def: &ResourceDef, namespace: &str) -> Result<(), Status> {
    if !def.namespaced {
        return Ok(());
    }
    match str_at(object, &["metadata", "namespace"]) {
        Some(own) if own != namespace => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        _ => {
            ensure_object(object, "metadata")["namespace"] = namespace.into();
            Ok(())
        }
    }
}

/// What only the server may set.
fn begin_life(server: &Inner, object: &mut Value) {
    let now = server.timestamp();
    let uid = server.config.ids.uid();
    let metadata = types::object(ensure_object(object, "metadata"));
    for field in [
        "selfLink",
        "managedFields",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), now.into());
}
