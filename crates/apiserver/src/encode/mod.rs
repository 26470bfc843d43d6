//! The forms in which objects go out: as they are, as metadata alone, as tables.

mod partial;
mod table;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use registry::ResourceDef;
use serde_json::{Value, json};
use store::Record;
use types::{Reason, Status};

use crate::object;
use crate::request::{Query, ResourceRequest};
use crate::respond::{self, Body};
use crate::state::Inner;

/// What the client asked to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Object,
    /// `PartialObjectMetadata`.
    Partial,
    /// `Table`.
    Table(RowObject),
}

/// What each row of a table brings along of its object (apimachinery, `pkg/apis/meta/v1/types.go`,
/// `IncludeObjectPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RowObject {
    Nothing,
    #[default]
    Metadata,
    Whole,
}

impl RowObject {
    fn of(query: &Query) -> Result<Self, Status> {
        match query.get("includeObject") {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::Nothing),
            Some("Object") => Ok(Self::Whole),
            Some(other) => Err(Status::bad_request(format!(
                "Invalid value for query parameter includeObject: {other:?}: supported values: \"None\", \"Metadata\", \"Object\""
            ))),
        }
    }
}

/// A page of a list.
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: usize,
}

/// Reads the Accept header: the first entry that we can serve wins (upstream:
/// `apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`).
pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Form, Status> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    for entry in accept.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, "" | "*/*" | "application/*" | "application/json" | "application/yaml") {
            continue;
        }
        let (mut kind, mut group, mut version) = (None, None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = Some(value),
                Some(("g", value)) => group = Some(value),
                Some(("v", value)) => version = Some(value),
                _ => {}
            }
        }
        match (kind, group, version) {
            (None, ..) => return Ok(Form::Object),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => {
                return Ok(Form::Table(RowObject::of(query)?));
            }
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1"),
            ) => {
                return Ok(Form::Partial);
            }
            _ => {}
        }
    }
    Err(Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml",
    ))
}

/// Whether the client wants YAML first.
fn wants_yaml(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.trim_start().starts_with("application/yaml")
}

/// One object as a response.
pub(crate) async fn object(
    server: &Inner,
    request: &ResourceRequest,
    headers: &HeaderMap,
    record: &Arc<Record>,
) -> Result<Response<Body>, Status> {
    let def = &request.def;
    let record = &server.shown(def, record).await?;
    let bytes = match negotiate(headers, &request.query)? {
        Form::Object => object::bytes_of(def, record)?,
        Form::Partial => partial::object(&object::decode(def, &record.value)?).to_string().into(),
        Form::Table(row) => {
            let meta = json!({"resourceVersion": record.revision.to_string()});
            let object = object::decode(def, &record.value)?;
            table::table(server, def, vec![object], row, meta, true).to_string().into()
        }
    };
    finish(headers, bytes)
}

fn finish(headers: &HeaderMap, bytes: Bytes) -> Result<Response<Body>, Status> {
    if !wants_yaml(headers) {
        return Ok(respond::json(StatusCode::OK, bytes));
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
    let yaml = serde_norway::to_string(&value).map_err(Status::internal)?;
    Ok(respond::with_type(StatusCode::OK, "application/yaml", yaml))
}

/// A list as a response: the stored bytes one after the other.
pub(crate) async fn list(
    server: &Inner,
    request: &ResourceRequest,
    headers: &HeaderMap,
    records: Vec<Arc<Record>>,
    page: &Page,
) -> Result<Response<Body>, Status> {
    let def = &request.def;
    let records = server.all_shown(def, records).await?;
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some(token) = &page.continue_token {
        meta["continue"] = token.as_str().into();
        if page.remaining > 0 {
            meta["remainingItemCount"] = page.remaining.into();
        }
    }
    let decoded =
        || records.iter().map(|r| object::decode(def, &r.value)).collect::<Result<Vec<Value>, Status>>();
    let bytes: Bytes = match negotiate(headers, &request.query)? {
        Form::Object => {
            let head = format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
                def.list_kind(),
                def.api_version()
            );
            let size: usize = records.iter().map(|r| r.value.len() + 1).sum();
            let mut out = BytesMut::with_capacity(head.len() + size + 2);
            out.extend_from_slice(head.as_bytes());
            for (i, record) in records.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b",");
                }
                match &def.convert {
                    None => out.extend_from_slice(&record.value),
                    Some(_) => out.extend_from_slice(&object::bytes_of(def, record)?),
                }
            }
            out.extend_from_slice(b"]}");
            out.freeze()
        }
        Form::Partial => partial::list(&decoded()?, meta).to_string().into(),
        Form::Table(row) => table::table(server, def, decoded()?, row, meta, true).to_string().into(),
    };
    finish(headers, bytes)
}

/// An object inside a watch event.
pub(crate) async fn event_object(
    server: &Inner,
    def: &ResourceDef,
    form: &Form,
    record: &Arc<Record>,
    with_columns: bool,
) -> Result<Bytes, Status> {
    let record = &server.shown(def, record).await?;
    match form {
        Form::Object => object::bytes_of(def, record),
        Form::Partial => Ok(partial::object(&object::decode(def, &record.value)?).to_string().into()),
        Form::Table(row) => {
            let meta = json!({"resourceVersion": record.revision.to_string()});
            let object = object::decode(def, &record.value)?;
            Ok(table::table(server, def, vec![object], *row, meta, with_columns).to_string().into())
        }
    }
}

/// A record that was never written: a dry run's.
pub(crate) fn unwritten(def: &ResourceDef, namespace: &str, object: &Value) -> Arc<Record> {
    let key = object::key(namespace, object::name(object));
    Arc::new(Record::unstored(key, object.to_string().into(), object::terms(def, object)))
}

/// Adds warnings for the user.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form_for(accept: &'static str, query: &str) -> Result<Form, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        negotiate(&headers, &Query::parse(query).unwrap())
    }

    fn form(accept: &'static str) -> Result<Form, Status> {
        form_for(accept, "")
    }

    #[test]
    fn rows_bring_along_what_is_asked_for() {
        let table = |query| form_for("application/json;as=Table;v=v1;g=meta.k8s.io", query);
        assert_eq!(table("includeObject=Object"), Ok(Form::Table(RowObject::Whole)));
        assert_eq!(table("includeObject=None"), Ok(Form::Table(RowObject::Nothing)));
        assert_eq!(table("includeObject=Some").unwrap_err().code, 400);
    }

    #[test]
    fn the_first_form_we_know_wins() {
        assert_eq!(
            form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            Ok(Form::Table(RowObject::Metadata))
        );
        assert_eq!(form("application/json;as=Table;v=v9;g=meta.k8s.io,application/json"), Ok(Form::Object));
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Object));
        assert_eq!(form("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        assert_eq!(negotiate(&HeaderMap::new(), &Query::default()), Ok(Form::Object));
    }
}
