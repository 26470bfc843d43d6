//! `AdmissionReview`, both ways (kubernetes/kubernetes, `apiserver/pkg/admission/plugin/webhook/request`).

use serde::Serialize;
use serde_json::{Map, Value};
use types::{Reason, Status, at, decode_base64, str_at};

use crate::evaluate::request_json;
use crate::request::Request;

#[derive(Serialize)]
struct Review<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: String,
    request: Asked<'a>,
}

#[derive(Serialize)]
struct Asked<'a> {
    uid: &'a str,
    #[serde(flatten)]
    rest: Map<String, Value>,
    object: Option<&'a Value>,
    #[serde(rename = "oldObject")]
    old: Option<&'a Value>,
}

/// The bytes that a webhook is sent.
pub(super) fn write(
    uid: &str,
    version: &str,
    request: &Request<'_>,
    def: &registry::ResourceDef,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Vec<u8> {
    let mut rest = request_json(request, def);
    rest.entry("options").or_insert(Value::Null);
    let review = Review {
        kind: "AdmissionReview",
        api_version: format!("admission.k8s.io/{version}"),
        request: Asked { uid, rest, object, old },
    };
    // Writing JSON into memory cannot fail.
    serde_json::to_vec(&review).unwrap_or_default()
}

/// What a webhook says.
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// Bytes of a JSON patch; empty for none.
    pub(super) patch: Vec<u8>,
    pub(super) patch_type: String,
    pub(super) result: Value,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

/// Reads and checks an answer (`VerifyAdmissionResponse`).
pub(super) fn read(uid: &str, version: &str, mutating: bool, review: &Value) -> Result<Answer, String> {
    let got = |field: &str| str_at(review, &[field]).unwrap_or_default();
    let api_version = format!("admission.k8s.io/{version}");
    if got("apiVersion") != api_version || got("kind") != "AdmissionReview" {
        return Err(format!(
            "expected webhook response of {api_version}, Kind=AdmissionReview, got {}, Kind={}",
            got("apiVersion"),
            got("kind")
        ));
    }
    let Some(response) = at(review, &["response"]) else {
        return Err("webhook response was absent".to_owned());
    };
    let text = |field: &str| str_at(response, &[field]).unwrap_or_default();
    let patch = match str_at(response, &["patch"]) {
        None => Vec::new(),
        Some(text) => decode_base64(text).ok_or_else(|| {
            "couldn't get version/kind; json parse error: the patch is not base64".to_owned()
        })?,
    };
    let typed = response.get("patchType").is_some_and(|t| !t.is_null());
    let mut patch_type = text("patchType").to_owned();
    if version == "v1" {
        if text("uid") != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", text("uid")));
        }
        if mutating {
            match (patch.is_empty(), typed) {
                (false, false) => {
                    return Err("webhook returned response.patch but not response.patchType".into());
                }
                (true, true) => {
                    return Err("webhook returned response.patchType but not response.patch".into());
                }
                (false, true) if patch_type != "JSONPatch" => {
                    return Err(format!(
                        "invalid webhook response.patchType of {patch_type:?}, expected \"JSONPatch\""
                    ));
                }
                _ => {}
            }
        } else if !patch.is_empty() {
            return Err("a validating webhook may not return response.patch".into());
        } else if typed {
            return Err("a validating webhook may not return response.patchType".into());
        }
    } else {
        // The older version leaves the type out; there is only one.
        patch_type = "JSONPatch".to_owned();
    }
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Answer {
        allowed: response["allowed"] == true,
        patch,
        patch_type,
        result: response.get("status").or(response.get("result")).cloned().unwrap_or_default(),
        annotations: annotations.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
        warnings: texts(&response["warnings"]),
    })
}

/// A refusal as the user sees it (`plugin/webhook/errors/statuserror.go`, `ToStatusErr`).
pub(super) fn refusal(name: &str, result: &Value) -> Status {
    let text = |field: &str| str_at(result, &[field]).unwrap_or_default();
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let reason: Option<Reason> = serde_json::from_value(result["reason"].clone()).ok();
    let code =
        result["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| (400..=599).contains(c));
    let details = at(result, &["details"]).and_then(|d| serde_json::from_value(d.clone()).ok()).map(Box::new);
    Status { reason, message, details, code: code.unwrap_or(400) }
}
