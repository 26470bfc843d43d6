//! Objects between JSON values and the store's records.

use std::sync::Arc;

use bytes::Bytes;
use registry::ResourceDef;
use serde_json::Value;
use store::{CommitError, Record, Template, Terms};
use types::{Status, str_at};

/// The store's key: `namespace/name`, or `name` for cluster-wide kinds.
pub(crate) fn key(namespace: &str, name: &str) -> Arc<str> {
    if namespace.is_empty() { name.into() } else { format!("{namespace}/{name}").into() }
}

/// The two halves of a key.
pub(crate) fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// An object's final bytes with a hole where the revision goes.
pub(crate) fn template(object: &Value) -> Template {
    let mut bytes = Vec::with_capacity(1024);
    let mut at = 0;
    bytes.push(b'{');
    for (i, (key, value)) in object.as_object().into_iter().flatten().enumerate() {
        if i > 0 {
            bytes.push(b',');
        }
        write_json(&mut bytes, key);
        bytes.push(b':');
        if key == "metadata" {
            at = write_metadata(&mut bytes, value);
        } else {
            write_json(&mut bytes, value);
        }
    }
    bytes.push(b'}');
    Template { bytes, at }
}

/// Writes metadata with an open `resourceVersion`, and tells where the opening is.
fn write_metadata(bytes: &mut Vec<u8>, metadata: &Value) -> usize {
    bytes.extend_from_slice(b"{\"resourceVersion\":\"");
    let at = bytes.len();
    bytes.push(b'"');
    for (key, value) in metadata.as_object().into_iter().flatten().filter(|(k, _)| *k != "resourceVersion") {
        bytes.push(b',');
        write_json(bytes, key);
        bytes.push(b':');
        write_json(bytes, value);
    }
    bytes.push(b'}');
    at
}

fn write_json(bytes: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing JSON values into memory cannot fail.
    let _ = serde_json::to_writer(bytes, value);
}

/// What an object can be found by.
pub(crate) fn terms(def: &ResourceDef, object: &Value) -> Terms {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let mut fields = def.strategy.selectable_values(object);
    fields.sort();
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let mut owners: Vec<Box<str>> = owners.filter_map(|o| o["uid"].as_str()).map(Into::into).collect();
    owners.sort();
    // JSON maps are in key order already.
    let labels = labels.map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect();
    Terms { labels, fields, owners }
}

/// Decodes a record, in the version of `def`.
pub(crate) fn decode(def: &ResourceDef, bytes: &[u8]) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(bytes)
        .map_err(|e| Status::internal(format_args!("stored {} cannot be decoded: {e}", def.resource)))?;
    if def.custom.is_some() {
        // Shown already ([`crate::state::Inner::shown`]); only a last state in a table's history may not be.
        return Ok(object);
    }
    if let Some(convert) = &def.convert {
        convert.show(&mut object);
        set_gvk(&mut object, &def.api_version(), &def.gvk.kind);
    }
    Ok(object)
}

/// An object as it is stored, from the version of `def`.
pub(crate) fn to_storage(def: &ResourceDef, object: &mut Value) {
    if let Some(convert) = &def.convert {
        convert.store(object);
        set_gvk(object, &def.storage.api_version(), &def.storage.kind);
    }
}

/// A record's bytes in the version of `def`: as they are, unless versions differ.
pub(crate) fn bytes_of(def: &ResourceDef, record: &Record) -> Result<Bytes, Status> {
    match &def.convert {
        None => Ok(record.value.clone()),
        Some(_) => Ok(decode(def, &record.value)?.to_string().into()),
    }
}

pub(crate) fn set_gvk(object: &mut Value, api_version: &str, kind: &str) {
    if let Value::Object(map) = object {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
    }
}

/// A record's value under one of its labels.
pub(crate) fn label<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    find(&record.terms.labels, name)
}

/// Whether a record says what its value of a selectable field is.
pub(crate) fn has_field(record: &Record, name: &str) -> bool {
    name.starts_with("metadata.") || find(&record.terms.fields, name).is_some()
}

/// The value of a record's selectable field; the empty text where there is none.
pub(crate) fn field<'a>(record: &'a Record, name: &str) -> &'a str {
    match name {
        "metadata.name" => split_key(&record.key).1,
        "metadata.namespace" => split_key(&record.key).0,
        _ => find(&record.terms.fields, name).unwrap_or_default(),
    }
}

fn find<'a>(pairs: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    pairs.binary_search_by(|(k, _)| k.as_ref().cmp(name)).ok().map(|i| &*pairs[i].1)
}

/// The object's UID.
pub(crate) fn uid(object: &Value) -> &str {
    str_at(object, &["metadata", "uid"]).unwrap_or_default()
}

/// The object's name.
pub(crate) fn name(object: &Value) -> &str {
    str_at(object, &["metadata", "name"]).unwrap_or_default()
}

/// What a failed commit means to the client.
pub(crate) fn commit_error(def: &ResourceDef, name: &str, error: CommitError) -> Status {
    let (group, resource) = (&def.gvk.group, &def.resource);
    match error {
        CommitError::Exists { .. } => Status::already_exists(group, resource, name),
        CommitError::NotFound { .. } => Status::not_found(group, resource, name),
        CommitError::Conflict { .. } => Status::modified(group, resource, name),
        CommitError::Invalid { .. } => Status::internal(error),
        CommitError::Sealing(_) => Status::internal(error),
        // As upstream after etcd's silence: whoever asks must look before trying again.
        CommitError::Unknown { .. } => {
            Status::new(types::Reason::Timeout, format!("the store is slow: {error}"))
        }
        CommitError::Full { .. }
        | CommitError::Io(_)
        | CommitError::Failed(_)
        | CommitError::Unavailable { .. }
        | CommitError::Closed => unavailable(format!("the store cannot take writes: {error}")),
    }
}

/// A store that does not answer now, and may do so soon.
pub(crate) fn unavailable(why: String) -> Status {
    let mut status = Status::new(types::Reason::ServiceUnavailable, why);
    status.details.get_or_insert_default().retry_after_seconds = 1;
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hole_is_in_the_objects_own_metadata() {
        let object = json!({"data": {"metadata": {"resourceVersion": ""}}, "kind": "X",
            "metadata": {"name": "a", "resourceVersion": "7"}, "z": "\"resourceVersion\":\"\""});
        let Template { mut bytes, at } = template(&object);
        bytes.splice(at..at, *b"42");
        let back: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(back["metadata"], json!({"name": "a", "resourceVersion": "42"}));
        assert_eq!(back["data"], object["data"]);
    }
}
