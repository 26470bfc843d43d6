use std::sync::Arc;

use admission::{Operation, Options, Request as Admission};
use auth::User;
use http::Response;
use registry::{Registry, ResourceDef, set_condition};
use serde_json::{Value, json};
use store::{CommitError, Expect, Record};
use types::{Status, at, ensure_object, str_at};

use crate::pipeline::Call;
use crate::request::Query;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::{body, encode, object};

/// How an object shall go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub(crate) grace_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`; `Background` where nothing is said.
    pub(crate) propagation: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
    /// The options as they came.
    pub(crate) options: Value,
    /// Whether admission is not asked: what asks has been.
    pub(crate) passed: bool,
    /// What a pod's condition `DisruptionTarget` shall say, reason and message.
    pub(crate) disruption: Option<(&'static str, &'static str)>,
}

impl Deletion {
    /// From the body's `DeleteOptions`, else from the query.
    pub(crate) fn read(options: &Value, query: &Query) -> Result<Self, Status> {
        let text = |path: &[&str]| str_at(options, path).map(str::to_owned);
        let mut propagation = text(&["propagationPolicy"]).or(query.propagation.clone());
        if let Some(orphan) = at(options, &["orphanDependents"]).and_then(Value::as_bool) {
            propagation = Some(if orphan { "Orphan" } else { "Background" }.into());
        }
        if let Some(policy) =
            propagation.as_deref().filter(|p| !matches!(*p, "Background" | "Foreground" | "Orphan"))
        {
            return Err(Status::bad_request(format!(
                "invalid DeleteOptions: propagationPolicy: Unsupported value: {policy:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            )));
        }
        let dry_run = options["dryRun"].as_array().is_some_and(|d| d.iter().any(|v| v == "All"));
        Ok(Self {
            grace_seconds: at(options, &["gracePeriodSeconds"])
                .and_then(Value::as_i64)
                .or(query.grace_seconds),
            propagation,
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            dry_run: dry_run || query.dry_run,
            options: options.clone(),
            passed: false,
            disruption: None,
        })
    }
}

/// What became of an object.
pub(crate) enum Outcome {
    /// It is gone; this was its last state.
    Gone(Value),
    /// It is marked and goes when its time or its finalizers are over.
    Going(Arc<Record>),
}

async fn read_options(
    registry: &Registry,
    http: http::Request<Body>,
    query: &Query,
) -> Result<Deletion, Status> {
    let (headers, bytes) = body::read(http).await?;
    let options =
        if bytes.is_empty() { Value::Null } else { body::parse(registry, &headers, &bytes)?.object };
    Deletion::read(&options, query)
}

/// Deletes one object.
pub(crate) async fn delete(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let headers = http.headers().clone();
    let deletion = read_options(&r.registry, http, &r.query).await?;
    match delete_object(server, &r.def, &user, &r.namespace, &r.name, &deletion).await? {
        Outcome::Going(record) => encode::object(server, &r, &headers, &record).await,
        Outcome::Gone(last) => {
            let uid = last["metadata"]["uid"].as_str().unwrap_or_default();
            Ok(respond::status(&Status::success(&r.def.gvk.group, &r.def.resource, &r.name, uid)))
        }
    }
}

/// Deletes every object that the selectors pick.
pub(crate) async fn delete_collection(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    super::list::check_fields(&r)?;
    let deletion = read_options(&r.registry, http, &r.query).await?;
    let snapshot = server.store.snapshot(&r.def.table);
    let mut items = Vec::new();
    let keys: Vec<Arc<str>> =
        super::list::select(&snapshot, &r, None).map(|record| record.key.clone()).collect();
    for key in keys {
        let (namespace, name) = object::split_key(&key);
        match delete_object(server, &r.def, &user, namespace, name, &deletion).await {
            Ok(Outcome::Gone(last)) => {
                let record = encode::unwritten(&r.def, namespace, &last);
                items.push(object::decode(&r.def, &server.shown(&r.def, &record).await?.value)?);
            }
            Ok(Outcome::Going(record)) => {
                items.push(object::decode(&r.def, &server.shown(&r.def, &record).await?.value)?);
            }
            // Somebody else was faster.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let list = json!({"kind": r.def.list_kind(), "apiVersion": r.def.api_version(),
        "metadata": {"resourceVersion": server.store.revision().to_string()}, "items": items});
    Ok(respond::json_value(&list))
}

/// Deletes an object, or marks it for deletion where time or finalizers hold it (kubernetes/kubernetes,
/// `apiserver/pkg/registry/generic/registry/store.go`, `Delete`; `apiserver/pkg/registry/rest/delete.go`,
/// `BeforeDelete`).
pub(crate) async fn delete_object(
    server: &Inner,
    def: &ResourceDef,
    user: &User,
    namespace: &str,
    name: &str,
    deletion: &Deletion,
) -> Result<Outcome, Status> {
    let registry = server.registry();
    let options = Options { given: Some(&deletion.options), ..Options::default() };
    let request = Admission::new(&registry, def, Operation::Delete, user).object(namespace, name);
    let request = Admission { dry_run: deletion.dry_run, options, ..request };
    let mut passed = deletion.passed;
    loop {
        let record = server
            .store
            .get(&def.table, &object::key(namespace, name))
            .ok_or_else(|| Status::not_found(&def.gvk.group, &def.resource, name))?;
        let old: Value = serde_json::from_slice(&record.value).map_err(Status::internal)?;
        check(def, name, deletion, &old, &record)?;
        if !passed {
            let shown = object::decode(def, &server.shown(def, &record).await?.value)?;
            server.pass(&request, None, Some(&shown)).await?;
            passed = true;
        }
        let mut new = old.clone();
        def.strategy.prepare_delete(&mut new, &server.timestamp());
        if let Some((reason, message)) = deletion.disruption {
            set_condition(&mut new, "DisruptionTarget", true, reason, message, &server.timestamp());
            let generation = new["metadata"]["generation"].clone();
            let conditions = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
            let mut why = conditions.into_iter().flatten().filter(|c| c["type"] == "DisruptionTarget");
            if let Some(why) = why.next().filter(|_| !generation.is_null()) {
                why["observedGeneration"] = generation;
            }
        }
        let grace = mark(server, def, deletion, &mut new);
        let held = is_held(def, &new);
        if deletion.dry_run {
            return Ok(if held || grace > 0 { Outcome::Going(record) } else { Outcome::Gone(old) });
        }
        let expect = Expect::Revision(record.revision);
        let outcome = if grace == 0 && !held {
            server.remove(def, namespace, &new, expect).await.map(|_| Outcome::Gone(new))
        } else if new == old {
            return Ok(Outcome::Going(record));
        } else {
            server.put(def, namespace, &new, expect).await.map(Outcome::Going)
        };
        match outcome {
            Ok(outcome) => return Ok(outcome),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(object::commit_error(def, name, error)),
        }
    }
}

fn check(
    def: &ResourceDef,
    name: &str,
    deletion: &Deletion,
    old: &Value,
    record: &Record,
) -> Result<(), Status> {
    let conflict = |what: &str, wanted: &str, is: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}");
        Status::conflict(&def.gvk.group, &def.resource, name, &why)
    };
    let uid = old["metadata"]["uid"].as_str().unwrap_or_default();
    if let Some(wanted) = deletion.uid.as_deref().filter(|w| *w != uid) {
        return Err(conflict("UID", wanted, uid));
    }
    let revision = record.revision.to_string();
    if let Some(wanted) = deletion.resource_version.as_deref().filter(|w| *w != revision) {
        return Err(conflict("ResourceVersion", wanted, &revision));
    }
    Ok(())
}

/// Writes into the object that it is going, and gives the seconds it still has.
fn mark(server: &Inner, def: &ResourceDef, deletion: &Deletion, object: &mut Value) -> i64 {
    if server.config.garbage_collection {
        add_finalizer(object, deletion.propagation.as_deref());
    }
    let now = server.config.clock.now();
    let grace = match def.strategy.grace(object) {
        None | Some(0) => 0,
        Some(default) => deletion.grace_seconds.unwrap_or(default).max(0),
    };
    let metadata = ensure_object(object, "metadata");
    let already = metadata["deletionGracePeriodSeconds"].as_i64();
    // A second delete can only hurry the object up.
    let grace = already.map_or(grace, |already| already.min(grace));
    if already != Some(grace) || metadata["deletionTimestamp"].is_null() {
        let began = str_at(metadata, &["deletionTimestamp"]).and_then(|t| t.parse::<base::Timestamp>().ok());
        let start = match (began, already) {
            (Some(end), Some(already)) => end.as_second() - already,
            _ => now.as_second(),
        };
        let end = base::Timestamp::from_second((start + grace).max(now.as_second().min(start + grace)))
            .unwrap_or(now);
        metadata["deletionTimestamp"] = end.to_string().into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
        if metadata["generation"].is_i64() {
            metadata["generation"] = (metadata["generation"].as_i64().unwrap_or(0) + 1).into();
        }
    }
    if &*def.table == "namespaces" {
        ensure_object(object, "status")["phase"] = "Terminating".into();
    }
    grace
}

/// The garbage collector's finalizers stand for what shall become of the object's dependents.
fn add_finalizer(object: &mut Value, propagation: Option<&str>) {
    let wanted = match propagation {
        Some("Foreground") => Some("foregroundDeletion"),
        Some("Orphan") => Some("orphan"),
        Some(_) => None,
        None => return,
    };
    let metadata = ensure_object(object, "metadata");
    let mut list: Vec<Value> = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    list.retain(|f| f != "foregroundDeletion" && f != "orphan");
    list.extend(wanted.map(Value::from));
    if list.is_empty() {
        types::object(metadata).remove("finalizers");
    } else {
        metadata["finalizers"] = list.into();
    }
}

/// Whether finalizers keep an object whose time is over.
fn is_held(def: &ResourceDef, object: &Value) -> bool {
    let some = |list: &Value| list.as_array().is_some_and(|l| !l.is_empty());
    some(&object["metadata"]["finalizers"])
        || (&*def.table == "namespaces" && some(&object["spec"]["finalizers"]))
}
