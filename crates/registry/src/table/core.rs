use jiff::Timestamp;
use serde_json::{Value, json};
use types::{at, str_at};

use super::{AGE, Column, NAME, age, column, entries, list, name, number, since, text_or, wide};

pub(crate) const CONFIG_MAP: &[Column] = &[NAME, number("Data"), AGE];

pub(crate) fn config_map_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(c), json!(entries(c, "data") + entries(c, "binaryData")), json!(age(c, now))]
}

pub(crate) const SECRET: &[Column] = &[NAME, column("Type"), number("Data"), AGE];

pub(crate) fn secret_cells(s: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(s), s["type"].clone(), json!(entries(s, "data")), json!(age(s, now))]
}

pub(crate) const SERVICE_ACCOUNT: &[Column] = &[NAME, number("Secrets"), AGE];

pub(crate) fn service_account_cells(s: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(s), json!(entries(s, "secrets")), json!(age(s, now))]
}

pub(crate) const NAMESPACE: &[Column] = &[NAME, column("Status"), AGE];

pub(crate) fn namespace_cells(n: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(n), n["status"]["phase"].clone(), json!(age(n, now))]
}

pub(crate) const RESOURCE_QUOTA: &[Column] = &[NAME, column("Request"), column("Limit"), AGE];

pub(crate) fn resource_quota_cells(q: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in q["status"]["hard"].as_object().into_iter().flatten() {
        let used = text_or(&q["status"]["used"][resource], "0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    vec![name(q), json!(requests.join(", ")), json!(limits.join(", ")), json!(age(q, now))]
}

pub(crate) const EVENT: &[Column] = &[
    column("Last Seen"),
    column("Type"),
    column("Reason"),
    column("Object"),
    wide("Subobject"),
    wide("Source"),
    column("Message"),
    wide("First Seen"),
    wide("Count"),
    Column { name: "Name", kind: "string", format: "name", priority: 1 },
];

pub(crate) fn event_cells(e: &Value, now: Timestamp) -> Vec<Value> {
    let first = str_at(e, &["firstTimestamp"]).or(str_at(e, &["eventTime"]));
    let last = str_at(e, &["series", "lastObservedTime"]).or(str_at(e, &["lastTimestamp"])).or(first);
    let count = e["series"]["count"].as_i64().or(e["count"].as_i64()).unwrap_or(1);
    let object = &e["involvedObject"];
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let target = match str_at(object, &["name"]) {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    };
    let component =
        str_at(e, &["source", "component"]).or(str_at(e, &["reportingComponent"])).unwrap_or_default();
    let source = match str_at(e, &["source", "host"]).or(str_at(e, &["reportingInstance"])) {
        Some(host) => format!("{component}, {host}"),
        None => component.to_owned(),
    };
    vec![
        json!(since(last, now)),
        json!(text_or(&e["type"], "")),
        json!(text_or(&e["reason"], "")),
        json!(target),
        json!(text_or(&object["fieldPath"], "")),
        json!(source),
        json!(e["message"].as_str().unwrap_or_default().trim()),
        json!(since(first, now)),
        json!(count.to_string()),
        name(e),
    ]
}

pub(crate) const PERSISTENT_VOLUME: &[Column] = &[
    NAME,
    column("Capacity"),
    column("Access Modes"),
    column("Reclaim Policy"),
    column("Status"),
    column("Claim"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    column("Reason"),
    AGE,
    wide("VolumeMode"),
];

/// `RWO,ROX` for a list of access modes.
fn access_modes(modes: impl Iterator<Item = String>) -> String {
    let short = |mode: String| match mode.as_str() {
        "ReadWriteOnce" => "RWO".to_owned(),
        "ReadOnlyMany" => "ROX".to_owned(),
        "ReadWriteMany" => "RWX".to_owned(),
        "ReadWriteOncePod" => "RWOP".to_owned(),
        _ => mode,
    };
    modes.map(short).collect::<Vec<_>>().join(",")
}

fn texts(value: &Value, field: &str) -> impl Iterator<Item = String> {
    list(value, field).filter_map(Value::as_str).map(str::to_owned)
}

pub(crate) fn persistent_volume_cells(v: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &v["spec"];
    let claim = match str_at(spec, &["claimRef", "name"]) {
        Some(claim) => format!("{}/{claim}", spec["claimRef"]["namespace"].as_str().unwrap_or_default()),
        None => String::new(),
    };
    let phase = if at(v, &["metadata", "deletionTimestamp"]).is_some() {
        "Terminating".into()
    } else {
        text_or(&v["status"]["phase"], "")
    };
    vec![
        name(v),
        json!(text_or(&spec["capacity"]["storage"], "")),
        json!(access_modes(texts(spec, "accessModes"))),
        json!(text_or(&spec["persistentVolumeReclaimPolicy"], "")),
        json!(phase),
        json!(claim),
        json!(text_or(&spec["storageClassName"], "")),
        json!(text_or(&spec["volumeAttributesClassName"], "<unset>")),
        json!(text_or(&v["status"]["reason"], "")),
        json!(age(v, now)),
        json!(text_or(&spec["volumeMode"], "<unset>")),
    ]
}

pub(crate) const PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    NAME,
    column("Status"),
    column("Volume"),
    column("Capacity"),
    column("Access Modes"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    AGE,
    wide("VolumeMode"),
];

pub(crate) fn persistent_volume_claim_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&c["spec"], &c["status"]);
    let phase = if at(c, &["metadata", "deletionTimestamp"]).is_some() {
        "Terminating".into()
    } else {
        text_or(&status["phase"], "")
    };
    let bound = str_at(spec, &["volumeName"]).is_some();
    vec![
        name(c),
        json!(phase),
        json!(text_or(&spec["volumeName"], "")),
        json!(if bound { text_or(&status["capacity"]["storage"], "") } else { String::new() }),
        json!(if bound { access_modes(texts(status, "accessModes")) } else { String::new() }),
        json!(text_or(&spec["storageClassName"], "")),
        json!(text_or(&spec["volumeAttributesClassName"], "<unset>")),
        json!(age(c, now)),
        json!(text_or(&spec["volumeMode"], "<unset>")),
    ]
}

pub(crate) const STORAGE_CLASS: &[Column] = &[
    NAME,
    column("Provisioner"),
    column("ReclaimPolicy"),
    column("VolumeBindingMode"),
    column("AllowVolumeExpansion"),
    AGE,
];

pub(crate) fn storage_class_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    let default = at(c, &["metadata", "annotations"])
        .is_some_and(|a| a["storageclass.kubernetes.io/is-default-class"] == "true");
    let shown = c["metadata"]["name"].as_str().unwrap_or_default();
    vec![
        json!(if default { format!("{shown} (default)") } else { shown.to_owned() }),
        c["provisioner"].clone(),
        json!(text_or(&c["reclaimPolicy"], "Delete")),
        json!(text_or(&c["volumeBindingMode"], "Immediate")),
        json!(c["allowVolumeExpansion"] == true),
        json!(age(c, now)),
    ]
}
