//! Events, in both of the versions they are served in (kubernetes/kubernetes,
//! `pkg/apis/events/v1/conversion.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, str_at};

use super::check::*;
use crate::strategy::{Convert, Strategy};
use crate::table::{self, Column};

pub(super) struct Event;

/// The fields that only older clients set, by their older names.
const LEGACY: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];

/// What the version at hand calls its fields.
#[derive(Clone, Copy)]
struct Names {
    about: &'static str,
    message: &'static str,
    controller: &'static str,
    legacy: [&'static str; 4],
}

impl Names {
    const CORE: Self = Self {
        about: "involvedObject",
        message: "message",
        controller: "reportingComponent",
        legacy: LEGACY,
    };

    /// Those of the newer version; none for the older.
    fn of(object: &Value) -> Option<Self> {
        (object["apiVersion"] == "events.k8s.io/v1").then_some(Self {
            about: "regarding",
            message: "note",
            controller: "reportingController",
            legacy: [
                "deprecatedFirstTimestamp",
                "deprecatedLastTimestamp",
                "deprecatedCount",
                "deprecatedSource",
            ],
        })
    }
}

fn series(object: &Value, errors: &mut FieldErrors) {
    let Some(series) = get(object, "series") else { return };
    let path = Path::new("series");
    if int(series, "count") < 2 {
        errors.invalid(&path.child("count"), int(series, "count"), "should be at least 2");
    }
    if text(series, "lastObservedTime").is_empty() {
        errors.required(&path.child("lastObservedTime"), "");
    }
}

/// What holds for both versions (kubernetes/kubernetes, `pkg/apis/core/validation/events.go`,
/// `legacyValidateEvent`).
fn validate_either(object: &Value, names: Names, errors: &mut FieldErrors) {
    let namespace = text(&object["metadata"], "namespace");
    let of = text(&object[names.about], "namespace");
    let timed = !text(object, "eventTime").is_empty();
    let fits = match (timed, of) {
        (false, "") => matches!(namespace, "" | "default"),
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (false, of) => of == namespace,
        (true, _) => true,
    };
    if !fits {
        let path = Path::new("involvedObject");
        errors.invalid(&path.child("namespace"), of, "does not match event.namespace");
    }
    if !timed {
        return;
    }
    let controller = text(object, names.controller);
    let path = Path::new(names.controller);
    if controller.is_empty() {
        errors.required(&path, "");
    }
    for fault in types::qualified_name(controller) {
        errors.invalid(&path, controller, &fault);
    }
    for field in ["reportingInstance", "action", "reason"] {
        let path = Path::new(field);
        match text(object, field) {
            "" => errors.required(&path, ""),
            long if long.len() > 128 => errors.invalid(&path, "", "can have at most 128 characters"),
            _ => {}
        }
    }
    if text(object, names.message).len() > 1024 {
        errors.invalid(&Path::new("message"), "", "can have at most 1024 characters");
    }
}

impl Strategy for Event {
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let Some(names) = Names::of(object) else { return validate_either(object, Names::CORE, errors) };
        series(object, errors);
        if text(object, "eventTime").is_empty() {
            errors.required(&Path::new("eventTime"), "");
        }
        let kind = text(object, "type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), "", &format!("has invalid value: {kind}"));
        }
        for (field, new) in LEGACY.iter().zip(names.legacy) {
            if has(object, new) && object[new] != 0 && object[new] != serde_json::json!({}) {
                errors.invalid(&Path::new(field), "", "needs to be unset");
            }
        }
        validate_either(object, names, errors);
    }

    /// Only the newer version keeps what was once said.
    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let Some(names) = Names::of(new) else { return validate_either(new, Names::CORE, errors) };
        series(new, errors);
        let mut unchanged = |field: &str, told: &str| {
            if !same_field(new, old, field) {
                errors.immutable(&Path::new(told), &new.get(field).cloned().unwrap_or_default());
            }
        };
        unchanged(names.about, "involvedObject");
        unchanged("reason", "reason");
        unchanged(names.message, "message");
        for (field, new) in LEGACY.iter().zip(names.legacy) {
            unchanged(new, field);
        }
        for field in ["eventTime", "action", "related", "reportingController", "reportingInstance", "type"] {
            unchanged(field, field);
        }
        validate_either(new, names, errors);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reportingController",
        ]
    }

    fn field(&self, object: &Value, name: &str) -> String {
        let name = match name {
            "source" => "source.component",
            "reportingController" => "reportingComponent",
            other => other,
        };
        let path: Vec<&str> =
            name.split('.').map(|p| if p == "regarding" { "involvedObject" } else { p }).collect();
        str_at(object, &path).unwrap_or_default().to_owned()
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        table::EVENT
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::event_cells(object, now)
    }
}

/// `events.k8s.io/v1` names several fields of the stored `v1` differently.
pub(super) struct EventsV1;

const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(object: &mut Value, from_to: impl Iterator<Item = (&'static str, &'static str)>) {
    let Value::Object(map) = object else { return };
    for (from, to) in from_to {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

impl Convert for EventsV1 {
    fn store(&self, object: &mut Value) {
        rename(object, NAMES.into_iter());
    }

    fn show(&self, object: &mut Value) {
        rename(object, NAMES.into_iter().map(|(new, old)| (old, new)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_events_must_say() {
        let told = |event: Value| {
            let mut errors = FieldErrors::default();
            Event.validate_create(&event, &mut errors);
            errors.to_string()
        };
        let old =
            json!({"apiVersion": "v1", "metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}});
        assert_eq!(told(old), "[]");
        let astray = json!({"apiVersion": "v1", "metadata": {"namespace": "a"}, "involvedObject": {}});
        assert!(
            told(astray)
                .contains("involvedObject.namespace: Invalid value: \"\": does not match event.namespace")
        );
        let new = json!({"apiVersion": "events.k8s.io/v1", "metadata": {"namespace": "a"}, "type": "Odd",
            "regarding": {"namespace": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z", "deprecatedCount": 3,
            "reportingController": "c", "reportingInstance": "i", "action": "Act"});
        let all = told(new);
        for part in [
            "type: Invalid value: \"\": has invalid value: Odd",
            "count: Invalid value: \"\": needs to be unset",
            "reason: Required value",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }

    #[test]
    fn versions_convert_there_and_back() {
        let new = json!({"regarding": {"kind": "Pod"}, "note": "n", "reportingController": "c", "deprecatedCount": 2});
        let mut object = new.clone();
        EventsV1.store(&mut object);
        assert_eq!(object["involvedObject"]["kind"], "Pod");
        EventsV1.show(&mut object);
        assert_eq!(object, new);
    }
}
