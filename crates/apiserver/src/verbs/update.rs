use std::sync::Arc;

use admission::Operation;
use http::{Response, StatusCode};
use registry::{ResourceDef, validate_conditions, validate_meta_update};
use serde_json::{Value, json};
use store::{CommitError, Expect, Record};
use types::apply::Managers;
use types::{FieldErrors, Status, ensure_object, str_at};

use super::{Write, Written, owners};
use crate::pipeline::Call;
use crate::respond::Body;
use crate::state::Inner;
use crate::{admin_access, authorize, body, certificate_requests, crds, encode, object, services};

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but `status`.
    Main,
    /// `status`.
    Status,
}

/// Without a resourceVersion from the user, a write that loses a race is simply done again.
const RACE_ATTEMPTS: usize = 16;

/// Replaces an object.
pub(crate) async fn update(server: &Arc<Inner>, call: Call, part: Part) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let (headers, bytes) = body::read(http).await?;
    let body::Given { object: mut new, duplicates } = body::parse(&r.registry, &headers, &bytes)?;
    body::check_kind(&mut new, &r.def.api_version(), &r.def.gvk.kind)?;
    let mut warnings = body::conform(&r.registry, &r.def, &mut new, &duplicates, r.query.field_validation)?;
    super::create::set_namespace(&mut new, &r.def, &r.namespace)?;
    match str_at(&new, &["metadata", "name"]) {
        Some(name) if name != r.name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                r.name
            )));
        }
        _ => ensure_object(&mut new, "metadata")["name"] = r.name.as_str().into(),
    }
    let absent = server.store.get(&r.def.table, &r.key()).is_none();
    if absent && part == Part::Main && r.def.strategy.create_on_update() {
        types::object(&mut new["metadata"]).remove("resourceVersion");
        let written = super::create_object(&Write::of(server, &user, &r, &headers), new, None).await?;
        let mut response = encode::object(server, &r, &headers, &written.record).await?;
        *response.status_mut() = StatusCode::CREATED;
        return Ok(response);
    }
    if !absent && r.def.custom.is_some() && str_at(&new, &["metadata", "resourceVersion"]).is_none() {
        let mut errors = FieldErrors::new();
        let why = "Invalid value: 0x0: must be specified for an update";
        errors.add("FieldValueInvalid", "metadata.resourceVersion", why);
        return Err(Status::invalid(&r.def.gvk.group, &r.def.gvk.kind, &r.name, &errors));
    }
    let write = Write::of(server, &user, &r, &headers);
    let written = rewrite(&write, &r.name, part, |_old| Ok(new.clone().into())).await?;
    let mut response = encode::object(server, &r, &headers, &written.record).await?;
    warnings.extend(written.warnings);
    encode::warn(&mut response, &warnings);
    Ok(response)
}

/// An object as it shall be.
pub(crate) struct Edited {
    pub(crate) object: Value,
    /// Who owns what of it, if that is decided already; else the writer owns what changed.
    pub(crate) managers: Option<Managers>,
    /// Things the user should know.
    pub(crate) warnings: Vec<String>,
}

impl From<Value> for Edited {
    fn from(object: Value) -> Self {
        Self { object, managers: None, warnings: Vec::new() }
    }
}

/// Changes an object through `edit`, which sees it as it is and gives it as it shall be, both in the version of
/// the resource. Every update, patch and most subresources' writes come through here.
pub(crate) async fn rewrite(
    write: &Write<'_>,
    name: &str,
    part: Part,
    edit: impl Fn(&Value) -> Result<Edited, Status>,
) -> Result<Written, Status> {
    let Write { server, def, namespace, dry_run, .. } = *write;
    for _ in 0..RACE_ATTEMPTS {
        let record = server
            .store
            .get(&def.table, &object::key(namespace, name))
            .ok_or_else(|| Status::not_found(&def.gvk.group, &def.resource, name))?;
        let old = object::decode(def, &server.shown(def, &record).await?.value)?;
        let Edited { object: mut new, managers, mut warnings } = edit(&old)?;
        let pinned = check_preconditions(def, &new, &old, name, &record)?;
        // First of all, so that leaving out what would be filled in is no change.
        if part == Part::Main {
            def.strategy.default(&mut new);
        }
        prepare(def, &mut new, &old, part);
        let now = server.config.clock.now();
        certificate_requests::settle(def, write.subresource, &mut new, &old, now);
        owners::settle(write, &mut new, Some(&old), part, managers);
        let request = write.admission(Operation::Update, name);
        if !write.passed && Box::pin(server.admit(&request, Some(&mut new), Some(&old))).await? {
            prepare(def, &mut new, &old, part);
            certificate_requests::settle(def, write.subresource, &mut new, &old, now);
            if part == Part::Main {
                def.strategy.default(&mut new);
            }
        }
        authorize::check_escalation(write, &new, Some(&old)).await?;
        let mut errors = FieldErrors::new();
        validate_meta_update(&new, &old, &mut errors);
        match part {
            Part::Main => def.strategy.validate_update(&new, &old, &mut errors),
            Part::Status => {
                def.strategy.validate_status_update(&new, &old, &mut errors);
                validate_conditions(def.definitions(&server.registry()), def, &new, &mut errors);
            }
        }
        server.services.allocate(server, def, &mut new, Some(&old), &mut errors);
        admin_access::check(server, def, namespace, &new, Some(&old), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&def.gvk.group, &def.gvk.kind, name, &errors));
        }
        if !write.passed {
            server.validate(&request, Some(&new), Some(&old)).await?;
        }
        owners::ignore_times(&mut new, &old);
        // What would be stored differently today is written though nothing has changed.
        let is_current = crds::is_current(def, &record) && !server.store.is_stale(&def.table, &record.key);
        if new == old && is_current {
            return Ok(Written { record, warnings });
        }
        if part == Part::Main {
            warnings.extend(def.strategy.warnings(&new));
        }
        server.to_storage(def, &mut new).await?;
        if dry_run {
            return Ok(Written { record: encode::unwritten(def, namespace, &new), warnings });
        }
        let expect = Expect::Revision(record.revision);
        let written = if is_finished(def, &new) {
            server.remove(def, namespace, &new, expect).await
        } else {
            server.put(def, namespace, &new, expect).await
        };
        match written {
            Ok(record) => return Ok(Written { record, warnings }),
            Err(error) if services::is_lost_race(def, &error) => {}
            Err(CommitError::Conflict { .. }) if !pinned => {}
            Err(error) => return Err(object::commit_error(def, name, error)),
        }
    }
    Err(Status::modified(&def.gvk.group, &def.resource, name))
}

/// An object that is being deleted goes when nothing holds it any longer.
fn is_finished(def: &ResourceDef, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let namespace_done = &*def.table != "namespaces" || empty(&object["spec"]["finalizers"]);
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && empty(&metadata["finalizers"])
        && namespace_done
}

/// Holds the user to the UID and resourceVersion they name. Tells whether a resourceVersion was named.
fn check_preconditions(
    def: &ResourceDef,
    new: &Value,
    old: &Value,
    name: &str,
    record: &Record,
) -> Result<bool, Status> {
    let (group, resource) = (&def.gvk.group, &def.resource);
    if let Some(uid) = str_at(new, &["metadata", "uid"])
        && old["metadata"]["uid"] != uid
    {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old["metadata"]["uid"].as_str().unwrap_or_default()
        );
        return Err(Status::conflict(group, resource, name, &why));
    }
    match str_at(new, &["metadata", "resourceVersion"]) {
        None | Some("0") => Ok(false),
        Some(text) => match text.parse::<u64>() {
            Ok(revision) if revision == record.revision => Ok(true),
            Ok(_) => Err(Status::modified(group, resource, name)),
            Err(_) => {
                let mut errors = FieldErrors::new();
                let metadata = types::Path::new("metadata");
                errors.invalid(&metadata.child("resourceVersion"), text, "must be a number");
                Err(Status::invalid(group, &def.gvk.kind, name, &errors))
            }
        },
    }
}

/// Brings the server's own fields over, and everything that this write is not about.
fn prepare(def: &ResourceDef, new: &mut Value, old: &Value, part: Part) {
    keep(ensure_object(new, "metadata"), &old["metadata"]);
    let has_status = def.has_subresource("status");
    match part {
        Part::Main => {
            if has_status {
                replace(new, old, "status");
            }
            def.strategy.prepare_update(new, old);
            if def.strategy.has_generation() && changed_beyond_status(new, old) {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                new["metadata"]["generation"] = json!(generation);
            }
        }
        Part::Status => {
            let status = new.get("status").cloned();
            let metadata = new["metadata"].clone();
            *new = old.clone();
            new["metadata"] = metadata;
            if let (Some(status), Value::Object(map)) = (status, &mut *new) {
                map.insert("status".into(), status);
            }
            def.strategy.prepare_status_update(new, old);
        }
    }
}

/// The fields of metadata that no user changes.
fn keep(new: &mut Value, old: &Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
    ] {
        replace(new, old, field);
    }
    types::object(new).remove("selfLink");
}

fn replace(new: &mut Value, old: &Value, field: &str) {
    let map = types::object(new);
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

fn changed_beyond_status(new: &Value, old: &Value) -> bool {
    let relevant = |o: &Value| -> Vec<(String, Value)> {
        let fields = o.as_object().into_iter().flatten();
        fields
            .filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    old["metadata"]["generation"].is_i64() && relevant(new) != relevant(old)
}
