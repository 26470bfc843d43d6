use jiff::Timestamp;
use serde_json::{Value, json};
use types::{at, str_at};

use super::{AGE, Column, NAME, age, column, list, name, number, text_or};

const fn boolean(name: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", priority: 0 }
}

pub(crate) const VOLUME_ATTACHMENT: &[Column] =
    &[NAME, column("Attacher"), column("PV"), column("Node"), boolean("Attached"), AGE];

pub(crate) fn volume_attachment_cells(v: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &v["spec"];
    vec![
        name(v),
        json!(text_or(&spec["attacher"], "")),
        json!(str_at(spec, &["source", "persistentVolumeName"]).unwrap_or_default()),
        json!(text_or(&spec["nodeName"], "")),
        json!(v["status"]["attached"] == true),
        json!(age(v, now)),
    ]
}

pub(crate) const CSI_DRIVER: &[Column] = &[
    NAME,
    boolean("AttachRequired"),
    boolean("PodInfoOnMount"),
    boolean("StorageCapacity"),
    column("TokenRequests"),
    boolean("RequiresRepublish"),
    column("Modes"),
    AGE,
];

pub(crate) fn csi_driver_cells(d: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &d["spec"];
    let audiences: Vec<&str> = list(spec, "tokenRequests").filter_map(|r| r["audience"].as_str()).collect();
    let modes: Vec<&str> = list(spec, "volumeLifecycleModes").filter_map(Value::as_str).collect();
    vec![
        name(d),
        json!(spec["attachRequired"] != false),
        json!(spec["podInfoOnMount"] == true),
        json!(spec["storageCapacity"] == true),
        json!(if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") }),
        json!(spec["requiresRepublish"] == true),
        json!(if modes.is_empty() { "<none>".to_owned() } else { modes.join(",") }),
        json!(age(d, now)),
    ]
}

pub(crate) const CSI_NODE: &[Column] = &[NAME, number("Drivers"), AGE];

pub(crate) fn csi_node_cells(n: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(n), json!(list(&n["spec"], "drivers").count()), json!(age(n, now))]
}

pub(crate) const CSI_STORAGE_CAPACITY: &[Column] = &[NAME, column("StorageClassName"), column("Capacity")];

pub(crate) fn csi_storage_capacity_cells(c: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(c), json!(text_or(&c["storageClassName"], "")), json!(text_or(&c["capacity"], "<unset>"))]
}

pub(crate) const VOLUME_ATTRIBUTES_CLASS: &[Column] = &[NAME, column("DriverName"), AGE];

pub(crate) fn volume_attributes_class_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    let default = at(c, &["metadata", "annotations"])
        .is_some_and(|a| a["storageclass.kubernetes.io/is-default-class"] == "true");
    let shown = c["metadata"]["name"].as_str().unwrap_or_default();
    vec![
        json!(if default { format!("{shown} (default)") } else { shown.to_owned() }),
        json!(text_or(&c["driverName"], "")),
        json!(age(c, now)),
    ]
}
