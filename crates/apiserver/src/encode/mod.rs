//! The forms in which objects go out (as they are, as metadata alone, as tables), and the media types.

mod frames;
mod items;
mod partial;
pub(crate) mod protobuf;
mod table;

use std::sync::Arc;

pub(crate) use frames::Frames;
use items::Items;

use bytes::Bytes;
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

/// How it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Media {
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    /// As a `Content-Type`.
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => respond::JSON,
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What the client accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) form: Form,
    pub(crate) media: Media,
    /// Whether JSON would do as well. Some fields are newer than the protobuf numbers that we know: rather than lose them,
    /// an object that has them goes out as JSON.
    pub(crate) or_json: bool,
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
/// `apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`). Custom kinds have no protobuf, and neither have tables.
pub(crate) fn negotiate(headers: &HeaderMap, r: &ResourceRequest) -> Result<Accept, Status> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    for entry in accept.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let media = match parts.next().unwrap_or_default() {
            "" | "*/*" | "application/*" | "application/json" => Media::Json,
            "application/yaml" => Media::Yaml,
            "application/vnd.kubernetes.protobuf" => Media::Protobuf,
            _ => continue,
        };
        let (mut kind, mut group, mut version) = (None, None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = Some(value),
                Some(("g", value)) => group = Some(value),
                Some(("v", value)) => version = Some(value),
                _ => {}
            }
        }
        let form = match (kind, group, version) {
            (None, ..) => Form::Object,
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Form::Table(RowObject::of(&r.query)?),
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1"),
            ) => Form::Partial,
            _ => continue,
        };
        if media == Media::Protobuf && protobuf::type_of(r, &form).is_none() {
            continue;
        }
        let or_json = accept.contains("application/json") || accept.contains("*/*");
        return Ok(Accept { form, media, or_json });
    }
    Err(Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ))
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
    let mut accept = negotiate(headers, request)?;
    let bytes = match accept.form {
        Form::Object => object::bytes_of(def, record)?,
        Form::Partial => partial::record(def, record)?,
        Form::Table(row) => {
            let meta = json!({"resourceVersion": record.revision.to_string()});
            let object = object::decode(def, &record.value)?;
            table::table(server, def, vec![object], row, meta, true).to_string().into()
        }
    };
    let bytes = match accept.media {
        Media::Json => bytes,
        Media::Yaml => yaml(&bytes)?,
        Media::Protobuf => match protobuf::object(request, &accept.form, &bytes, accept.or_json) {
            Err(_) if accept.or_json => {
                accept.media = Media::Json;
                bytes
            }
            encoded => encoded?,
        },
    };
    Ok(respond::with_type(StatusCode::OK, accept.media.content_type(), bytes))
}

fn yaml(json: &[u8]) -> Result<Bytes, Status> {
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    serde_norway::to_string(&value).map(Bytes::from).map_err(Status::internal)
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
    let mut accept = negotiate(headers, request)?;
    if accept.media == Media::Protobuf {
        match protobuf::list(request, &accept.form, &meta, &records, accept.or_json) {
            Err(_) if accept.or_json => accept.media = Media::Json,
            encoded => return Ok(respond::with_type(StatusCode::OK, accept.media.content_type(), encoded?)),
        }
    }
    let respond = |bytes: Bytes| respond::with_type(StatusCode::OK, accept.media.content_type(), bytes);
    let (kind, version) = match accept.form {
        Form::Table(row) => {
            let table: Bytes = table::table(server, def, decoded()?, row, meta, true).to_string().into();
            return Ok(respond(if accept.media == Media::Yaml { yaml(&table)? } else { table }));
        }
        Form::Partial => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        Form::Object => (def.list_kind(), def.api_version()),
    };
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{meta},\"items\":[");
    if accept.form == Form::Object && def.convert.is_none() && accept.media == Media::Json {
        return Ok(respond::with_body(StatusCode::OK, respond::JSON, Items::new(head, records)));
    }
    // What has to be made may fail, which can be told only before the first piece is sent.
    let made = records.iter().map(|record| match accept.form {
        Form::Partial => partial::record(def, record),
        _ => object::bytes_of(def, record),
    });
    let items = Items::new(head, made.collect::<Result<Vec<Bytes>, Status>>()?);
    match accept.media {
        Media::Yaml => Ok(respond(yaml(&items.rest())?)),
        _ => Ok(respond::with_body(StatusCode::OK, respond::JSON, items)),
    }
}

/// An object inside a watch event, as JSON; the record is shown already ([`Inner::shown`]).
pub(crate) fn event_object(
    server: &Inner,
    def: &ResourceDef,
    form: &Form,
    record: &Record,
    with_columns: bool,
) -> Result<Bytes, Status> {
    match form {
        Form::Object => object::bytes_of(def, record),
        Form::Partial => partial::record(def, record),
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
///
/// A client can bring about as many warnings as it likes, but not get them all (`apiserver/pkg/endpoints/filters/warning.go`,
/// `truncateAtTotalRunes`, `truncateItemRunes`).
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    const MOST: usize = 4 * 1024;
    const MOST_OF_ONE: usize = 256;
    let whole = warnings.iter().map(String::len).sum::<usize>() <= MOST;
    let mut room = MOST;
    for warning in warnings {
        let cut =
            warning.char_indices().nth(MOST_OF_ONE).filter(|_| !whole).map_or(warning.len(), |(at, _)| at);
        let Some(left) = room.checked_sub(cut) else { return };
        room = left;
        let text = warning[..cut].replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form_for(accept: &'static str, query: &str) -> Result<Accept, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        negotiate(&headers, &request(query))
    }

    fn request(query: &str) -> Box<ResourceRequest> {
        let registry = Arc::new(registry::Registry::builtin());
        let uri = format!("/api/v1/pods?{query}").parse().unwrap();
        match crate::request::parse(&http::Method::GET, &uri, &registry, &Default::default()) {
            crate::request::Target::Resource(r) => r,
            _ => unreachable!(),
        }
    }

    fn form(accept: &'static str) -> Result<Form, Status> {
        form_for(accept, "").map(|a| a.form)
    }

    #[test]
    fn rows_bring_along_what_is_asked_for() {
        let table = |query| form_for("application/json;as=Table;v=v1;g=meta.k8s.io", query).map(|a| a.form);
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
        let protobuf = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(
            form_for(protobuf, ""),
            Ok(Accept { form: Form::Object, media: Media::Protobuf, or_json: true })
        );
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/yaml";
        assert_eq!(
            form_for(table, ""),
            Ok(Accept { form: Form::Object, media: Media::Yaml, or_json: false })
        );
        assert_eq!(form("application/cbor").unwrap_err().code, 406);
        let any = Accept { form: Form::Object, media: Media::Json, or_json: true };
        assert_eq!(negotiate(&HeaderMap::new(), &request("")), Ok(any));
    }
}
