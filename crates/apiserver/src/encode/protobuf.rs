//! Objects in `application/vnd.kubernetes.protobuf`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use registry::Registry;
use serde_json::Value;
use store::Record;
use types::Status;
use types::protobuf::{ProtobufError, envelope};

use super::{Form, partial};
use crate::object;
use crate::request::ResourceRequest;

const PARTIAL: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";

/// The message's type, if there is one.
pub(super) fn type_of<'a>(r: &'a ResourceRequest, form: &Form) -> Option<&'a str> {
    match form {
        Form::Table(_) => None,
        Form::Partial => Some(PARTIAL),
        Form::Object if r.def.custom.is_some() => None,
        Form::Object => {
            let name = &*r.registry.definitions().get(r.def.schema?).name;
            r.registry.protobuf().has(name).then_some(name)
        }
    }
}

/// The version and kind that the envelope names.
fn kind_of(r: &ResourceRequest, form: &Form) -> (String, String) {
    match form {
        Form::Partial => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata".to_owned()),
        _ => (r.def.api_version(), r.def.gvk.kind.to_string()),
    }
}

/// One object, from its JSON in the given form. If it has fields without a number, that is an error if it shall be `whole`;
/// otherwise they are left out.
pub(crate) fn object(r: &ResourceRequest, form: &Form, json: &[u8], whole: bool) -> Result<Bytes, Status> {
    let name = type_of(r, form).ok_or_else(Status::no_such_resource)?;
    let (version, kind) = kind_of(r, form);
    let bytes = envelope(&version, &kind, |out| {
        out.reserve(json.len());
        r.registry.protobuf().encode(name, json, whole, out)
    });
    bytes.map(Bytes::from).map_err(|e: ProtobufError| Status::internal(e))
}

/// A list of objects; `whole` as for one.
pub(super) fn list(
    r: &ResourceRequest,
    form: &Form,
    meta: &Value,
    records: &[Arc<Record>],
    whole: bool,
) -> Result<Bytes, Status> {
    let name = type_of(r, form).ok_or_else(Status::no_such_resource)?;
    let (version, kind) = kind_of(r, form);
    let mut items: Vec<Cow<'_, [u8]>> = Vec::with_capacity(records.len());
    for record in records {
        items.push(match (form, &r.def.convert) {
            (Form::Object, None) => Cow::Borrowed(&record.value),
            (Form::Object, Some(_)) => Cow::Owned(object::bytes_of(&r.def, record)?.to_vec()),
            _ => Cow::Owned(partial::record(&r.def, record)?.to_vec()),
        });
    }
    let size: usize = items.iter().map(|item| item.len()).sum();
    let bytes = envelope(&version, &format!("{kind}List"), |out| {
        out.reserve(size);
        r.registry.protobuf().encode_list(name, meta.to_string().as_bytes(), items.into_iter(), whole, out)
    });
    bytes.map(Bytes::from).map_err(|e: ProtobufError| Status::internal(e))
}

/// A `Status`, from its JSON.
pub(crate) fn status(registry: &Registry, json: &[u8]) -> Result<Bytes, Status> {
    const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
    let bytes = envelope("v1", "Status", |out| registry.protobuf().encode(STATUS, json, false, out));
    bytes.map(Bytes::from).map_err(|e: ProtobufError| Status::internal(e))
}
