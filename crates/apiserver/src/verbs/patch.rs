use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use registry::{Registry, ResourceDef};
use serde_json::Value;
use types::patch::{JsonPatch, JsonPatchError, merge_patch, strategic_merge};
use types::{Reason, Status};

use super::update::{Part, rewrite};
use crate::pipeline::Call;
use crate::request::FieldValidation;
use crate::respond::Body;
use crate::state::Inner;
use crate::{body, encode};

/// Changes a part of an object.
pub(crate) async fn patch(server: &Arc<Inner>, call: Call, part: Part) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let (headers, bytes) = body::read(http).await?;
    let change =
        |old: &Value| patch_value(&r.registry, &r.def, &headers, &bytes, old, r.query.field_validation);
    let written =
        rewrite(server, &r.def, &user, &r.namespace, &r.name, part, r.query.dry_run, change).await?;
    let mut response = encode::object(server, &r, &headers, &written.record).await?;
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// The object that a patch makes of `old`, checked against the kind's schema.
pub(crate) fn patch_value(
    registry: &Registry,
    def: &ResourceDef,
    headers: &HeaderMap,
    bytes: &[u8],
    old: &Value,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let mut new = old.clone();
    apply(registry, def, headers, bytes, &mut new)?;
    body::check_depth(&new)?;
    for field in ["name", "namespace"] {
        if new["metadata"][field] != old["metadata"][field] {
            let why = format!("metadata.{field} may not be changed by a patch");
            return Err(Status::bad_request(why));
        }
    }
    body::check_kind(&mut new, &def.api_version(), &def.gvk.kind)?;
    body::conform(registry, def, &mut new, validation)?;
    // A patch that says nothing of the revision is meant for whatever is there.
    if new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] && !names_revision(bytes) {
        types::object(&mut new["metadata"]).remove("resourceVersion");
    }
    Ok(new)
}

/// Whether the patch itself may hold a resourceVersion. False alarms cost a retry, nothing else.
fn names_revision(bytes: &[u8]) -> bool {
    const NEEDLE: &[u8] = b"resourceVersion";
    bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE)
}

fn apply(
    registry: &Registry,
    def: &ResourceDef,
    headers: &HeaderMap,
    bytes: &[u8],
    object: &mut Value,
) -> Result<(), Status> {
    match body::media_type(headers) {
        "application/json-patch+json" => {
            let unprocessable = |e: JsonPatchError| match e {
                JsonPatchError::Malformed(_) => Status::bad_request(format!("error decoding patch: {e}")),
                JsonPatchError::TooMany(_) => Status::new(Reason::RequestEntityTooLarge, e.to_string()),
                JsonPatchError::Missing { .. }
                | JsonPatchError::TestFailed(_)
                | JsonPatchError::TooDeep
                | JsonPatchError::TooMuchCopied(_) => Status::new(Reason::Invalid, e.to_string()),
            };
            JsonPatch::parse(bytes).and_then(|patch| patch.apply(object)).map_err(unprocessable)
        }
        "application/merge-patch+json" => {
            merge_patch(object, patch_object(bytes)?);
            Ok(())
        }
        "application/strategic-merge-patch+json" => {
            let patch = patch_object(bytes)?;
            let Some((definitions, schema)) = def.shape(registry).filter(|_| def.custom.is_none()) else {
                return Err(body::unsupported(
                    "application/strategic-merge-patch+json",
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            };
            strategic_merge(definitions, schema, object, patch)
                .map_err(|e| Status::bad_request(format!("error applying strategic merge patch: {e}")))
        }
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => Err(Status::new(
            Reason::UnsupportedMediaType,
            "server-side apply is not available in this version; use client-side apply (kubectl apply without --server-side)",
        )),
        other => Err(body::unsupported(
            other,
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
        )),
    }
}

fn patch_object(bytes: &[u8]) -> Result<Value, Status> {
    let patch: Value = serde_json::from_slice(bytes)
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Status::bad_request("error decoding patch: the patch is no JSON object"))
    }
}
