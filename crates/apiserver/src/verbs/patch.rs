use std::sync::Arc;

use http::{HeaderMap, Response};
use registry::{Registry, ResourceDef};
use serde_json::Value;
use types::patch::{JsonPatch, JsonPatchError, merge_patch, strategic_merge};
use types::{FieldErrors, Path, Reason, Status, json_with_duplicates};

use super::{Edited, Part, Write, rewrite};
use crate::pipeline::Call;
use crate::request::FieldValidation;
use crate::respond::Body;
use crate::state::Inner;
use crate::{body, encode};

/// Changes a part of an object.
pub(crate) async fn patch(server: &Arc<Inner>, call: Call, part: Part) -> Result<Response<Body>, Status> {
    if super::is_apply(call.http.headers()) {
        return super::apply::apply(server, call, part).await;
    }
    let Call { user, request: r, http } = call;
    if r.query.force.is_some() {
        return Err(invalid_options(|errors| {
            errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
        }));
    }
    let (headers, bytes) = body::read(http).await?;
    let validation = r.query.field_validation;
    let edit = |old: &Value| patch_value(&r.registry, &r.def, &headers, &bytes, old, validation);
    let written = rewrite(&Write::of(server, &user, &r, &headers), &r.name, part, edit).await?;
    let mut response = encode::object(server, &r, &headers, &written.record).await?;
    encode::warn(&mut response, &written.warnings);
    Ok(response)
}

/// Parameters of a patch that do not go together.
pub(super) fn invalid_options(say: impl FnOnce(&mut FieldErrors)) -> Status {
    let mut errors = FieldErrors::new();
    say(&mut errors);
    Status::invalid("meta.k8s.io", "PatchOptions", "", &errors)
}

/// What a patch makes of `old`, checked against the kind's schema.
pub(crate) fn patch_value(
    registry: &Registry,
    def: &ResourceDef,
    headers: &HeaderMap,
    bytes: &[u8],
    old: &Value,
    validation: FieldValidation,
) -> Result<Edited, Status> {
    let mut new = old.clone();
    let duplicates = apply(registry, def, headers, bytes, &mut new)?;
    body::check_depth(&new)?;
    for field in ["name", "namespace"] {
        if new["metadata"][field] != old["metadata"][field] {
            let why = format!("metadata.{field} may not be changed by a patch");
            return Err(Status::bad_request(why));
        }
    }
    body::check_kind(&mut new, &def.api_version(), &def.gvk.kind)?;
    let warnings = body::conform(registry, def, &mut new, &duplicates, validation)?;
    // A patch that says nothing of the revision is meant for whatever is there.
    if new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] && !names_revision(bytes) {
        types::object(&mut new["metadata"]).remove("resourceVersion");
    }
    Ok(Edited { object: new, managers: None, warnings })
}

/// Whether the patch itself may hold a resourceVersion. False alarms cost a retry, nothing else.
fn names_revision(bytes: &[u8]) -> bool {
    const NEEDLE: &[u8] = b"resourceVersion";
    bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE)
}

/// Applies the patch; gives its fields that came twice.
fn apply(
    registry: &Registry,
    def: &ResourceDef,
    headers: &HeaderMap,
    bytes: &[u8],
    object: &mut Value,
) -> Result<Vec<String>, Status> {
    match body::media_type(headers) {
        "application/json-patch+json" => {
            let unprocessable = |e: JsonPatchError| match e {
                JsonPatchError::Malformed(_) => Status::bad_request(format!("error decoding patch: {e}")),
                JsonPatchError::TooMany(_) => {
                    Status::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {e}"))
                }
                JsonPatchError::Missing { .. }
                | JsonPatchError::TestFailed(_)
                | JsonPatchError::TooDeep
                | JsonPatchError::TooMuchCopied(_) => Status::new(Reason::Invalid, e.to_string()),
            };
            JsonPatch::parse(bytes).and_then(|patch| patch.apply(object)).map_err(unprocessable)?;
            Ok(Vec::new())
        }
        "application/merge-patch+json" => {
            let (patch, duplicates) = patch_object(bytes)?;
            merge_patch(object, patch);
            Ok(duplicates)
        }
        "application/strategic-merge-patch+json" => {
            let (patch, duplicates) = patch_object(bytes)?;
            let Some((definitions, schema)) = def.shape(registry).filter(|_| def.custom.is_none()) else {
                return Err(body::unsupported(
                    "application/strategic-merge-patch+json",
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            };
            strategic_merge(definitions, schema, object, patch)
                .map_err(|e| Status::bad_request(format!("error applying strategic merge patch: {e}")))?;
            Ok(duplicates)
        }
        other => Err(body::unsupported(
            other,
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
        )),
    }
}

/// The patch, and its fields that came twice.
fn patch_object(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let (patch, duplicates) =
        json_with_duplicates(bytes).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    if patch.is_object() {
        Ok((patch, duplicates))
    } else {
        Err(Status::bad_request("error decoding patch: the patch is no JSON object"))
    }
}
