use std::sync::Arc;
use std::time::Duration;

use http::Response;
use registry::{Custom, ResourceDef};
use store::{Record, Snapshot};
use types::Status;

use crate::encode::{self, Page};
use crate::object;
use crate::pipeline::Call;
use crate::request::ResourceRequest;
use crate::respond::Body;
use crate::state::Inner;

/// How long a list waits for a revision that is yet to come.
const PATIENCE: Duration = Duration::from_secs(3);

/// A collection, or a page of it, all as of one revision.
pub(crate) async fn list(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    check_fields(r)?;
    let (snapshot, from) = open(server, r).await?;
    let (after, before) = from.map_or((None, 0), |from| (Some(from.after), from.before));
    let everything = r.query.labels.is_everything() && r.query.fields.is_everything();
    let mut records: Vec<Arc<Record>> = Vec::new();
    let mut more: Option<Arc<Record>> = None;
    let mut remaining = 0;
    for record in select(&snapshot, r, after.as_deref()) {
        if r.query.limit == 0 || records.len() < r.query.limit {
            records.push(record.clone());
            continue;
        }
        more = records.last().cloned();
        // With a selector upstream does not count what remains either; without anything left out, arithmetic will do.
        if !everything {
            break;
        }
        if r.namespace.is_empty() {
            remaining = snapshot.records.len().saturating_sub(before + records.len());
            break;
        }
        remaining += 1;
    }
    let given = before + records.len();
    let page = Page {
        revision: snapshot.revision,
        continue_token: more.map(|last| token(snapshot.revision, given, &last.key)),
        remaining,
    };
    encode::list(server, r, call.http.headers(), records, &page).await
}

/// Refuses to select by fields that the kind cannot be selected by.
pub(crate) fn check_fields(r: &ResourceRequest) -> Result<(), Status> {
    for field in r.query.fields.fields() {
        let always = field == "metadata.name" || (field == "metadata.namespace" && r.def.namespaced);
        if !always && !r.def.strategy.is_selectable(field) {
            return Err(Status::bad_request(format!("field label not supported: {field}")));
        }
    }
    Ok(())
}

/// The records of a collection that the request's namespace, name and selectors pick.
pub(crate) fn select<'a>(
    snapshot: &'a Snapshot,
    r: &'a ResourceRequest,
    after: Option<&str>,
) -> impl Iterator<Item = &'a Arc<Record>> + use<'a> {
    let (single, few, all) = match narrow(r) {
        // One name in one namespace is a lookup, not a walk.
        Narrow::One(key) => (snapshot.records.get(&key), None, false),
        Narrow::Field(field, value) => {
            let few = snapshot.scan_field(field, value, prefix(r), after);
            let all = few.is_none();
            (None, few, all)
        }
        Narrow::No => (None, None, true),
    };
    let all = all.then(|| snapshot.scan(prefix(r), after));
    let found = single.into_iter().chain(few.into_iter().flatten()).chain(all.into_iter().flatten());
    found.filter(move |record| matches(&r.def, r, record))
}

/// How much of a collection has to be looked at.
pub(crate) enum Narrow<'a> {
    /// At the object with that key.
    One(Arc<str>),
    /// At those with a value in an indexed field.
    Field(&'a str, &'a str),
    /// At everything in the namespace.
    No,
}

/// What the request's name and field selector leave to be looked at.
pub(crate) fn narrow(r: &ResourceRequest) -> Narrow<'_> {
    let fields = &r.query.fields;
    let name = Some(r.name.as_str()).filter(|name| !name.is_empty());
    if let Some(name) = name.or_else(|| fields.required("metadata.name"))
        && (!r.def.namespaced || !namespace(r).is_empty())
    {
        return Narrow::One(object::key(if r.def.namespaced { namespace(r) } else { "" }, name));
    }
    let indexed = r.def.strategy.indexed().iter();
    let found = indexed.filter_map(|field| Some((*field, fields.required(field)?))).next();
    found.map_or(Narrow::No, |(field, value)| Narrow::Field(field, value))
}

/// The namespace that is looked at; none if it is all of them. A selector narrows what was asked for; it never leads
/// out of the namespace that the request was allowed in.
fn namespace(r: &ResourceRequest) -> &str {
    match r.query.fields.required("metadata.namespace") {
        Some(namespace) if r.namespace.is_empty() => namespace,
        _ => &r.namespace,
    }
}

/// What all keys of the namespace begin with.
fn prefix(r: &ResourceRequest) -> String {
    let namespace = namespace(r);
    if r.def.namespaced && !namespace.is_empty() { format!("{namespace}/") } else { String::new() }
}

/// Whether the selectors pick a record.
pub(crate) fn matches(def: &ResourceDef, r: &ResourceRequest, record: &Record) -> bool {
    if let Some(custom) = &def.custom
        && r.query.fields.fields().any(|name| !object::has_field(record, name))
    {
        return matches_slowly(custom, r, record);
    }
    r.query.labels.matches(|name| object::label(record, name))
        && r.query.fields.matches(|name| object::field(record, name))
}

/// The same for an object that was written before its kind became selectable by what the request names.
fn matches_slowly(custom: &Custom, r: &ResourceRequest, record: &Record) -> bool {
    let object: serde_json::Value = serde_json::from_slice(&record.value).unwrap_or_default();
    let values = custom.selectable_values(&object);
    let value = |name: &str| values.iter().find(|(field, _)| **field == *name).map(|(_, value)| &**value);
    r.query.labels.matches(|name| object::label(record, name))
        && r.query.fields.matches(|name| value(name).unwrap_or_else(|| object::field(record, name)))
}

/// The snapshot a list is answered from, and the key it begins after (kubernetes/kubernetes,
/// `apiserver/pkg/storage/interfaces.go` and the table of resourceVersion semantics for lists).
async fn open(server: &Inner, r: &ResourceRequest) -> Result<(Snapshot, Option<Place>), Status> {
    let q = &r.query;
    if let Some(text) = &q.continue_token {
        let (revision, from) =
            parse_token(text).ok_or_else(|| Status::bad_request("continue key is not valid"))?;
        if q.resource_version.as_deref().is_some_and(|v| v != "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let snapshot = server.store.snapshot_at(&r.def.table, revision).map_err(|_| {
            Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
            )
        })?;
        return Ok((snapshot, Some(from)));
    }
    let wanted = match q.resource_version.as_deref() {
        None => {
            if let Some(rule) = &q.resource_version_match {
                return Err(forbidden_match(
                    r,
                    rule,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            None
        }
        Some(text) => Some(parse_revision(text)?),
    };
    match (q.resource_version_match.as_deref(), wanted) {
        (Some("Exact"), Some(0)) => Err(forbidden_match(
            r,
            "Exact",
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some("Exact"), Some(revision)) => {
            wait_for(server, revision).await?;
            let snapshot = server.store.snapshot_at(&r.def.table, revision);
            Ok((snapshot.map_err(|e| Status::too_old(e.revision, e.oldest))?, None))
        }
        (None | Some("NotOlderThan"), wanted) => {
            if let Some(revision) = wanted {
                wait_for(server, revision).await?;
            }
            Ok((server.store.snapshot(&r.def.table), None))
        }
        (Some(other), _) => Err(forbidden_match(r, other, "supported values: \"Exact\", \"NotOlderThan\"")),
    }
}

fn forbidden_match(r: &ResourceRequest, value: &str, why: &str) -> Status {
    let mut errors = types::FieldErrors::new();
    errors.invalid(&types::Path::new("resourceVersionMatch"), value, why);
    Status::invalid("meta.k8s.io", "ListOptions", &r.name, &errors)
}

/// A resourceVersion as a number.
pub(crate) fn parse_revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let mut errors = types::FieldErrors::new();
        errors.invalid(&types::Path::new("resourceVersion"), text, "must be a number");
        Status::invalid("meta.k8s.io", "ListOptions", "", &errors)
    })
}

/// Waits a little for a revision that another server may have seen already.
pub(crate) async fn wait_for(server: &Inner, revision: u64) -> Result<(), Status> {
    if server.store.revision() >= revision {
        return Ok(());
    }
    let reached = tokio::time::timeout(PATIENCE, server.store.wait_for(revision)).await;
    reached.map_err(|_| Status::too_large_resource_version(revision, server.store.revision()))
}

/// Where a page begins.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The last key that was given.
    after: String,
    /// How many objects the pages before had. It is the client's word, good for the count of what remains only.
    before: usize,
}

/// A continue token: the list's revision, and what was given so far and last; opaque to clients.
fn token(revision: u64, given: usize, key: &str) -> String {
    let text = format!("{revision}:{given}:{key}");
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

fn parse_token(token: &str) -> Option<(u64, Place)> {
    if !token.is_ascii() || !token.len().is_multiple_of(2) {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        (0..token.len()).step_by(2).map(|i| u8::from_str_radix(&token[i..i + 2], 16).ok()).collect();
    let text = String::from_utf8(bytes?).ok()?;
    let (revision, rest) = text.split_once(':')?;
    let (before, key) = rest.split_once(':')?;
    // Nobody has given more than there is room for in memory.
    let before = before.parse::<u32>().ok()? as usize;
    Some((revision.parse().ok()?, Place { after: key.to_owned(), before }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_come_back(revision: u64, given: u32, key in "[a-z:./-]{0,40}") {
            let from = Place { after: key.clone(), before: given as usize };
            prop_assert_eq!(parse_token(&token(revision, given as usize, &key)), Some((revision, from)));
        }

        #[test]
        fn foreign_tokens_are_refused_quietly(text in "\\PC{0,40}") {
            let _ = parse_token(&text);
        }
    }
}
