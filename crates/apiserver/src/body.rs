//! Reading request bodies into objects.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use registry::{Gvk, Registry, ResourceDef};
use serde_json::Value;
use types::protobuf::{ProtobufError, open_envelope};
use types::{Definitions, MOST_DEPTH, Reason, SchemaId, Status, json_with_duplicates};

use crate::request::FieldValidation;
use crate::respond::Body;
use crate::yaml;

/// Upstream's limit (`apiserver/pkg/server/config.go`, `MaxRequestBodyBytes`).
const MOST_BYTES: usize = 3 * 1024 * 1024;

/// Reads a whole body.
pub(crate) async fn read(http: Request<Body>) -> Result<(HeaderMap, Bytes), Status> {
    let (parts, mut body) = http.into_parts();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| Status::bad_request(format!("the request's body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > MOST_BYTES {
            return Err(Status::new(
                Reason::RequestEntityTooLarge,
                format!("Request entity too large: limit is {MOST_BYTES}"),
            ));
        }
        whole.extend_from_slice(&data);
    }
    Ok((parts.headers, whole.freeze()))
}

/// The media type of a body without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let full = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    full.split(';').next().unwrap_or_default().trim()
}

/// What a client sent.
pub(crate) struct Given {
    pub(crate) object: Value,
    /// Fields that came more than once.
    pub(crate) duplicates: Vec<String>,
}

impl From<Value> for Given {
    fn from(object: Value) -> Self {
        Self { object, duplicates: Vec::new() }
    }
}

/// Parses JSON, YAML or protobuf.
pub(crate) fn parse(registry: &Registry, headers: &HeaderMap, bytes: &[u8]) -> Result<Given, Status> {
    let (object, duplicates) = match media_type(headers) {
        "" | "application/json" | "*/*" => json_with_duplicates(bytes).map_err(no_json)?,
        "application/yaml" => {
            let value = yaml::parse(bytes);
            value.map_err(|e| Status::bad_request(format!("error converting YAML to JSON: yaml: {e}")))?
        }
        "application/vnd.kubernetes.protobuf" => (parse_protobuf(registry, bytes)?, Vec::new()),
        other => {
            let supported = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
            return Err(unsupported(other, supported));
        }
    };
    check_depth(&object)?;
    Ok(Given { object, duplicates })
}

/// Refuses what nobody could read again.
pub(crate) fn check_depth(value: &Value) -> Result<(), Status> {
    if types::depth(value) > MOST_DEPTH {
        let why = format!("the object nests lists and objects more than {MOST_DEPTH} levels deep");
        return Err(Status::bad_request(why));
    }
    Ok(())
}

fn parse_protobuf(registry: &Registry, bytes: &[u8]) -> Result<Value, Status> {
    let envelope = open_envelope(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
    let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
    let unknown = || {
        Status::bad_request(format!(
            "no kind \"{}\" is registered for version \"{}\"",
            envelope.kind, envelope.api_version
        ))
    };
    let name = type_name(registry, group, version, &envelope.kind);
    let decoded = registry.protobuf().decode(&name, envelope.raw);
    let mut object = decoded.map_err(|e| match e {
        ProtobufError::UnknownType(_) => unknown(),
        other => Status::bad_request(other.to_string()),
    })?;
    crate::object::set_gvk(&mut object, &envelope.api_version, &envelope.kind);
    Ok(object)
}

/// The name of a kind's type. Options and the kinds of subresources are no resources of their own, but their types are
/// named alike.
fn type_name(registry: &Registry, group: &str, version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned();
    }
    match registry
        .find_kind(group, Some(version), kind)
        .filter(|d| d.custom.is_none())
        .and_then(|def| def.schema)
    {
        Some(schema) => registry.definitions().get(schema).name.to_string(),
        None => {
            let group = group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
            format!("io.k8s.api.{group}.{version}.{kind}")
        }
    }
}

fn no_json(error: serde_json::Error) -> Status {
    Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
}

/// The media type of the body is none we read.
pub(crate) fn unsupported(media: &str, supported: &str) -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {supported} (got {media:?})"
        ),
    )
}

/// Makes sure that an object is of the expected kind and version, and fills both in where they are missing.
pub(crate) fn check_kind(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal the body into an object of kind {kind}"
        )));
    }
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (got_version, got_kind) = (text(object, "apiVersion"), text(object, "kind"));
    if !got_version.is_empty() && got_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({got_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !got_kind.is_empty() && got_kind != kind {
        return Err(Status::bad_request(format!(
            "{got_kind} in version \"{}\" cannot be handled as a {kind}: converting ({got_version}.{got_kind}) to ({api_version}.{kind}): unknown conversion",
            version_of(api_version)
        )));
    }
    crate::object::set_gvk(object, api_version, kind);
    Ok(())
}

fn version_of(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or(api_version)
}

/// Makes an object conform to its schema. Gives the warnings to send along, about unknown fields and about those that
/// came twice.
pub(crate) fn conform(
    registry: &Registry,
    def: &ResourceDef,
    object: &mut Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    if let Some(custom) = &def.custom {
        let found = custom.conform(object);
        return judge(found.mismatch, &found.unknown, duplicates, &def.gvk, validation);
    }
    let Some(schema) = def.schema else { return Ok(Vec::new()) };
    conform_to(registry.definitions(), schema, &def.gvk, object, duplicates, validation)
}

fn conform_to(
    definitions: &Definitions,
    schema: SchemaId,
    gvk: &Gvk,
    object: &mut Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    let errors = definitions.decode(schema, object);
    judge(errors.mismatch, &errors.unknown, duplicates, gvk, validation)
}

/// Refuses what does not fit, or says so.
fn judge(
    mismatch: Option<String>,
    unknown: &[String],
    duplicates: &[String],
    gvk: &Gvk,
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    let refuse = |why: &str| {
        Status::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: {why}",
            gvk.version,
            kind = gvk.kind
        ))
    };
    if let Some(mismatch) = mismatch {
        return Err(refuse(&mismatch));
    }
    let twice = duplicates.iter().map(|field| format!("duplicate field \"{field}\""));
    let unknown = unknown.iter().map(|field| format!("unknown field \"{field}\""));
    let faults: Vec<String> = twice.chain(unknown).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(faults),
        FieldValidation::Strict if faults.is_empty() => Ok(faults),
        FieldValidation::Strict => Err(refuse(&format!("strict decoding error: {}", faults.join(", ")))),
    }
}

/// Reads an object of a kind that a subresource speaks, such as `Eviction`.
pub(crate) async fn read_as(registry: &Registry, http: Request<Body>, gvk: &Gvk) -> Result<Value, Status> {
    let (headers, bytes) = read(http).await?;
    parse_as(registry, &headers, &bytes, gvk)
}

/// Parses such an object, and makes sure that it fits its type.
pub(crate) fn parse_as(
    registry: &Registry,
    headers: &HeaderMap,
    bytes: &[u8],
    gvk: &Gvk,
) -> Result<Value, Status> {
    let Given { mut object, .. } = parse(registry, headers, bytes)?;
    check_kind(&mut object, &gvk.api_version(), &gvk.kind)?;
    let name = type_name(registry, &gvk.group, &gvk.version, &gvk.kind);
    if let Some(schema) = registry.definitions().find(&name) {
        conform_to(registry.definitions(), schema, gvk, &mut object, &[], FieldValidation::Ignore)?;
    }
    Ok(object)
}
