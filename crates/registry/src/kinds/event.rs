//! Events, in both of the versions they are served in (kubernetes/kubernetes,
//! `pkg/apis/events/v1/conversion.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, at, str_at};

use crate::strategy::{Convert, Strategy};
use crate::table::{self, Column};

pub(super) struct Event;

impl Strategy for Event {
    fn prepare_create(&self, _object: &mut Value) {}

    /// The older version lets everything pass (`pkg/apis/core/validation/events.go`, `validateV1EventSeries`).
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let Some(series) = at(object, &["series"]).filter(|_| object["apiVersion"] == "events.k8s.io/v1")
        else {
            return;
        };
        let path = Path::new("series");
        if series["count"].as_i64().unwrap_or(0) < 2 {
            errors.invalid(&path.child("count"), series["count"].clone(), "should be at least 2");
        }
        if str_at(series, &["lastObservedTime"]).is_none() {
            errors.required(&path.child("lastObservedTime"), "");
        }
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
    fn versions_convert_there_and_back() {
        let new = json!({"regarding": {"kind": "Pod"}, "note": "n", "reportingController": "c", "deprecatedCount": 2});
        let mut object = new.clone();
        EventsV1.store(&mut object);
        assert_eq!(object["involvedObject"]["kind"], "Pod");
        EventsV1.show(&mut object);
        assert_eq!(object, new);
    }
}
