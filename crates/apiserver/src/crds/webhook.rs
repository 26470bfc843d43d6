//! Conversion by a webhook (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`).

use std::time::Duration;

use registry::ResourceDef;
use serde_json::{Map, Value, json};
use types::{Reason, Status, str_at};

use crate::state::Inner;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Has objects converted, all of them in one review.
pub(super) async fn convert(
    server: &Inner,
    def: &ResourceDef,
    config: &Value,
    wanted: &str,
    objects: Vec<&mut Value>,
) -> Result<(), Status> {
    let from = objects.first().and_then(|o| o["apiVersion"].as_str()).unwrap_or_default();
    let about = format!("{from}, Kind={}", def.gvk.kind);
    let failed = |why: String| {
        let message = format!("conversion webhook for {about} {why}");
        Status::new(Reason::InternalError, message)
    };
    let versions = config["conversionReviewVersions"].as_array().into_iter().flatten();
    let review = versions.filter_map(Value::as_str).find(|v| matches!(*v, "v1" | "v1beta1"));
    let Some(review) = review else {
        return Err(Status::new(Reason::InternalError, "no supported conversion review versions"));
    };
    let uid = server.config.ids.uid();
    let api_version = format!("apiextensions.k8s.io/{review}");
    let request = json!({"kind": "ConversionReview", "apiVersion": api_version, "request": {
        "uid": uid, "desiredAPIVersion": wanted, "objects": objects}});
    let answer = server
        .webhooks
        .post(server, &config["clientConfig"], request.to_string().into_bytes(), TIMEOUT)
        .await
        .map_err(|error| failed(format!("failed: {error}")))?;
    let converted =
        read(answer, review, &api_version, &uid).map_err(|why| failed(format!("failed: {why}")))?;
    if converted.len() != objects.len() {
        let (got, expected) = (converted.len(), objects.len());
        return Err(failed(format!("returned {got} objects, expected {expected}")));
    }
    for (i, (object, converted)) in objects.into_iter().zip(converted).enumerate() {
        *object = accept(object, converted, wanted).map_err(|why| match why {
            Fault::Object(why) => failed(format!("returned invalid converted object at index {i}: {why}")),
            Fault::Metadata(why) => {
                failed(format!("returned invalid metadata in object at index {i}: {why}"))
            }
        })?;
    }
    Ok(())
}

/// The objects in a review that came back.
fn read(mut answer: Value, review: &str, api_version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let (got_version, got_kind) = (text("apiVersion"), text("kind"));
    // The older review was never held to its kind or to its request.
    let strict = review == "v1";
    if strict && (got_version != api_version || got_kind != "ConversionReview") {
        let got = match got_version.split_once('/') {
            Some(_) => got_version,
            None => format!("/{got_version}"),
        };
        return Err(format!(
            "expected webhook response of {api_version}, Kind=ConversionReview, got {got}, Kind={got_kind}"
        ));
    }
    let response = answer["response"].take();
    if response.is_null() {
        return Err("no response provided".into());
    }
    let got = response["uid"].as_str().unwrap_or_default();
    if strict && got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let status = str_at(&response, &["result", "status"]).unwrap_or_default();
    if status != "Success" {
        return Err(match str_at(&response, &["result", "message"]) {
            Some(message) => message.to_owned(),
            None => format!("response.result.status was '{status}', not 'Success'"),
        });
    }
    match response {
        Value::Object(mut map) => match map.remove("convertedObjects") {
            Some(Value::Array(objects)) => Ok(objects),
            _ => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

enum Fault {
    Object(String),
    Metadata(String),
}

/// A converted object with the metadata of the original: only labels and annotations may differ (upstream:
/// `validateConvertedObject`, `restoreObjectMeta`).
fn accept(original: &Value, mut converted: Value, wanted: &str) -> Result<Value, Fault> {
    let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let got = text(&converted, "apiVersion");
    if got != wanted {
        return Err(Fault::Object(format!("invalid groupVersion (expected {wanted}, received {got})")));
    }
    let (kind, got) = (text(original, "kind"), text(&converted, "kind"));
    if got != kind {
        return Err(Fault::Object(format!("invalid kind (expected {kind}, received {got})")));
    }
    for field in ["name", "namespace", "uid"] {
        let (was, is) = (text(&original["metadata"], field), text(&converted["metadata"], field));
        let shown = if field == "uid" { "UID" } else { field };
        if was != is {
            return Err(Fault::Object(format!("must have the same {shown}: {was} != {is}")));
        }
    }
    let Some(metadata) = converted["metadata"].as_object() else {
        return Err(Fault::Metadata("missing metadata in converted object".into()));
    };
    let mut kept: Map<String, Value> = original["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            Some(value @ Value::Object(map)) => {
                if map.values().any(|v| !v.is_string()) {
                    return Err(Fault::Metadata(format!(
                        "invalid metadata of type {field}: not a map of strings"
                    )));
                }
                kept.insert(field.into(), value.clone());
            }
            Some(Value::Null) | None => {
                kept.remove(field);
            }
            Some(_) => {
                return Err(Fault::Metadata(format!("invalid metadata of type {field} in converted object")));
            }
        }
    }
    converted["metadata"] = Value::Object(kept);
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_held_to_the_question() {
        let good = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response":
            {"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}]}});
        let read = |answer: Value| super::read(answer, "v1", "apiextensions.k8s.io/v1", "u");
        assert_eq!(read(good.clone()), Ok(vec![json!({})]));
        let mut other = good.clone();
        other["response"]["uid"] = "v".into();
        assert_eq!(read(other).unwrap_err(), "expected response.uid=\"u\", got \"v\"");
        let mut other = good.clone();
        other["response"]["result"] = json!({"status": "Failure", "message": "no way"});
        assert_eq!(read(other).unwrap_err(), "no way");
        assert_eq!(
            read(json!({})).unwrap_err(),
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind="
        );
    }

    #[test]
    fn metadata_is_the_servers() {
        let original = json!({"apiVersion": "e/v1", "kind": "T", "metadata": {"name": "a", "uid": "u",
            "labels": {"a": "b"}, "finalizers": ["x/y"]}});
        let converted = json!({"apiVersion": "e/v2", "kind": "T", "metadata": {"name": "a", "uid": "u",
            "labels": {"c": "d"}, "finalizers": []}, "spec": {}});
        let Ok(result) = accept(&original, converted.clone(), "e/v2") else { panic!("refused") };
        assert_eq!(
            result["metadata"],
            json!({"name": "a", "uid": "u", "labels": {"c": "d"}, "finalizers": ["x/y"]})
        );
        let mut renamed = converted;
        renamed["metadata"]["name"] = "b".into();
        assert!(
            matches!(accept(&original, renamed, "e/v2"), Err(Fault::Object(why)) if why == "must have the same name: a != b")
        );
    }
}
