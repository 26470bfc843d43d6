use bytes::Bytes;
use registry::ResourceDef;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use store::Record;
use types::Status;

use crate::object;

/// An object's metadata alone.
pub(super) fn object(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// The same of a record, as text. What goes out as it is stored is cut out without being read.
pub(super) fn record(def: &ResourceDef, record: &Record) -> Result<Bytes, Status> {
    #[derive(Deserialize)]
    struct Parts<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    if def.convert.is_some() {
        return Ok(object(&object::decode(def, &record.value)?).to_string().into());
    }
    let Parts { metadata } = serde_json::from_slice(&record.value)
        .map_err(|e| Status::internal(format_args!("stored {} cannot be decoded: {e}", def.resource)))?;
    let head = r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":"#;
    Ok(format!("{head}{metadata}}}").into())
}
