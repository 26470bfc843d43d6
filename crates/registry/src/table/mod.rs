//! What `kubectl get` shows of each kind (kubernetes/kubernetes, `pkg/printers/internalversion/printers.go`).

mod apps;
mod cluster;
mod control;
mod core;
mod groups;
mod pod;
mod policy;
mod service;
mod storage;

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;
use types::str_at;

pub(crate) use apps::*;
pub(crate) use cluster::*;
pub(crate) use control::*;
pub(crate) use core::*;
pub(crate) use groups::*;
pub(crate) use pod::*;
pub(crate) use policy::*;
pub(crate) use service::*;
pub(crate) use storage::*;

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// The JSON type of its cells: `string` or `integer`.
    pub kind: &'static str,
    /// `name` for the object's name, else empty.
    pub format: &'static str,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: i32,
}

const fn column(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 1 }
}

const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", format: "", priority: 0 }
}

/// The first column of every table.
pub(crate) const NAME: Column = Column { name: "Name", kind: "string", format: "name", priority: 0 };
/// The last narrow column of nearly every table.
pub(crate) const AGE: Column = column("Age");

/// How long ago the object was created.
pub fn age(object: &Value, now: Timestamp) -> String {
    since(str_at(object, &["metadata", "creationTimestamp"]), now)
}

/// How long ago a time was; `<unknown>` without one.
pub(crate) fn since(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(time) => human_duration(now.as_second() - time.as_second()),
        None => "<unknown>".into(),
    }
}

/// Seconds in the two units that matter (`apimachinery/pkg/util/duration/duration.go`, `HumanDuration`).
fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

/// A value as text; absent is `none`.
fn text_or(value: &Value, none: &str) -> String {
    match value {
        Value::Null => none.to_owned(),
        Value::String(s) if s.is_empty() => none.to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn entries(value: &Value, field: &str) -> usize {
    match value.get(field) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

/// The container names and images of a pod spec, each joined by commas.
fn containers_and_images(spec: &Value) -> (String, String) {
    let join = |field: &str| -> String {
        let texts: Vec<&str> = list(spec, "containers").filter_map(|c| c[field].as_str()).collect();
        texts.join(",")
    };
    (join("name"), join("image"))
}

/// A label selector object as text.
fn selector_text(selector: &Value) -> String {
    match types::LabelSelector::from_object(Some(selector)) {
        Ok(s) if s.is_everything() => "<none>".into(),
        Ok(s) => s.to_string(),
        Err(_) => "<invalid>".into(),
    }
}

/// A plain map as `a=b,c=d`.
fn map_text(map: &Value) -> String {
    let mut out = String::new();
    for (k, v) in map.as_object().into_iter().flatten() {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{k}={}", v.as_str().unwrap_or_default());
    }
    if out.is_empty() { "<none>".into() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_read_them() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3600, "60m"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (30 * 86400, "30d"),
            (800 * 86400, "2y70d"),
        ] {
            assert_eq!(human_duration(seconds), want);
        }
    }
}
