//! What the server itself says in CertificateSigningRequests: who asked, and when something was said about it
//! (kubernetes/kubernetes, `pkg/registry/certificates/certificates/strategy.go`).

use auth::User;
use base::Timestamp;
use registry::ResourceDef;
use serde_json::{Value, json};
use types::ensure_object;

use crate::reviews::user_info;

fn is_request(def: &ResourceDef) -> bool {
    &*def.resource == "certificatesigningrequests" && &*def.gvk.group == "certificates.k8s.io"
}

/// Writes down who asks, whatever they say: approvers and signers go by it.
pub(crate) fn stamp(def: &ResourceDef, user: &User, new: &mut Value) {
    if !is_request(def) {
        return;
    }
    let info = user_info(user);
    let spec = ensure_object(new, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        match (info.get(field), &mut *spec) {
            (Some(value), spec) => spec[field] = value.clone(),
            (None, Value::Object(map)) => drop(map.remove(field)),
            _ => {}
        }
    }
}

/// Keeps decisions to `approval` and all else to `status`, and says when what is new was said.
pub(crate) fn settle(def: &ResourceDef, subresource: &str, new: &mut Value, old: &Value, now: Timestamp) {
    if subresource == "status" && &*def.resource == "podcertificaterequests" {
        return date(new, old, now, &["lastTransitionTime"]);
    }
    if !is_request(def) {
        return;
    }
    match subresource {
        "approval" => {
            let conditions = new["status"].get("conditions").cloned();
            new["status"] = old.get("status").cloned().unwrap_or_else(|| json!({}));
            if let Some(conditions) = conditions {
                new["status"]["conditions"] = conditions;
            }
        }
        "status" => keep_decision(new, old),
        _ => return,
    }
    date(new, old, now, &["lastUpdateTime", "lastTransitionTime"]);
}

/// Fills in the times of conditions that say none.
fn date(new: &mut Value, old: &Value, now: Timestamp, fields: &[&str]) {
    // With seconds, as all times of objects.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let conditions = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter(|condition| condition.is_object()) {
        if fields.contains(&"lastUpdateTime") && condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = old["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|c| c["type"] == condition["type"] && c["status"] == condition["status"]);
            let since = same.map(|c| c["lastTransitionTime"].clone()).filter(|time| !time.is_null());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.as_str().into());
        }
    }
}

fn is_decision(condition: &Value) -> bool {
    condition["type"] == "Approved" || condition["type"] == "Denied"
}

fn keep_decision(new: &mut Value, old: &Value) {
    let all = |object: &Value| object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (said, before) = (all(new), all(old));
    let decided: Vec<Value> = before.into_iter().filter(is_decision).collect();
    if said.iter().filter(|c| is_decision(c)).eq(&decided) {
        return;
    }
    let rest = said.into_iter().filter(|c| !is_decision(c));
    let conditions: Vec<Value> = decided.into_iter().chain(rest).collect();
    ensure_object(new, "status")["conditions"] = conditions.into();
}
