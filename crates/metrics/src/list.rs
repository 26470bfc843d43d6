//! The objects of `metrics.k8s.io`, and the forms that they are asked for in.

use base::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::samples::Used;
use crate::{GROUP, VERSION};

/// What is told of: nodes or pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nodes,
    Pods,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
        }
    }
}

fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

fn usage(cpu: u64, memory: u64) -> Value {
    json!({"cpu": nanos(cpu), "memory": kibibytes(memory)})
}

/// Cores out of nanocores, in the largest unit that leaves no remainder.
fn nanos(n: u64) -> String {
    let units = [("", 1_000_000_000), ("m", 1_000_000), ("u", 1000)];
    let unit = units.into_iter().find(|(_, size)| n.is_multiple_of(*size));
    unit.map_or_else(|| format!("{n}n"), |(unit, size)| format!("{}{unit}", n / size))
}

/// Nanocores out of what was written so.
fn read_nanos(text: &str) -> u64 {
    let units = [("m", 1_000_000), ("u", 1000), ("n", 1), ("", 1_000_000_000)];
    let found = units.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    found.map_or(0, |(number, size)| number.parse::<u64>().unwrap_or(0).saturating_mul(size))
}

/// Bytes, in the largest unit that leaves no remainder.
fn kibibytes(bytes: u64) -> String {
    let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.into_iter().find(|(_, bits)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    unit.map_or_else(|| bytes.to_string(), |(unit, bits)| format!("{}{unit}", bytes >> bits))
}

fn read_bytes(text: &str) -> u64 {
    text.parse::<types::Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok()).unwrap_or(0)
}

/// Go's form of a duration, to milliseconds.
fn window(used: &Used) -> String {
    let millis = used.window.as_millis();
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}

/// Name, namespace and labels of what is measured; the object itself is made this very moment.
fn metadata(meta: &ObjectMeta, now: Timestamp) -> Value {
    let mut value = json!({"name": meta.name, "creationTimestamp": seconds(now)});
    if let Some(namespace) = &meta.namespace {
        value["namespace"] = namespace.clone().into();
    }
    if let Some(labels) = meta.labels.as_ref().filter(|labels| !labels.is_empty()) {
        value["labels"] = json!(labels);
    }
    value
}

fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).map(|t| t.to_string()).unwrap_or_default()
}

/// A `NodeMetrics`.
pub(crate) fn node(meta: &ObjectMeta, used: &Used, now: Timestamp) -> Value {
    json!({
        "kind": Kind::Nodes.name(), "apiVersion": api_version(), "metadata": metadata(meta, now),
        "timestamp": seconds(used.at), "window": window(used), "usage": usage(used.cpu, used.memory),
    })
}

/// A `PodMetrics`: its time is that of the container whose last word is the oldest.
pub(crate) fn pod(meta: &ObjectMeta, containers: &[(String, Used)], now: Timestamp) -> Option<Value> {
    let (_, oldest) = containers.iter().min_by_key(|(_, used)| used.at)?;
    let list: Vec<Value> = containers
        .iter()
        .map(|(name, used)| json!({"name": name, "usage": usage(used.cpu, used.memory)}))
        .collect();
    Some(json!({
        "kind": Kind::Pods.name(), "apiVersion": api_version(), "metadata": metadata(meta, now),
        "timestamp": seconds(oldest.at), "window": window(oldest), "containers": list,
    }))
}

/// A list of them.
pub(crate) fn list(kind: Kind, mut items: Vec<Value>) -> Value {
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("kind");
        item.remove("apiVersion");
    }
    json!({"kind": format!("{}List", kind.name()), "apiVersion": api_version(), "metadata": {}, "items": items})
}

/// The same as a table for people; `objects` go along as a client asks.
pub(crate) fn table(items: Vec<Value>, include: Include) -> Value {
    let column = |name: &str, kind: &str, format: &str, description: &str| json!({"name": name, "type": kind, "format": format, "description": description, "priority": 0});
    let total = |item: &Value, what: &str| -> Value {
        let own = item["usage"][what].as_str();
        let all = item["containers"].as_array().into_iter().flatten();
        let values = own.into_iter().chain(all.filter_map(|c| c["usage"][what].as_str()));
        // What was written a moment ago.
        match what {
            "cpu" => nanos(values.map(read_nanos).sum()).into(),
            _ => kibibytes(values.map(read_bytes).sum()).into(),
        }
    };
    let rows: Vec<Value> = items
        .into_iter()
        .map(|item| {
            let cells = json!([
                item["metadata"]["name"],
                total(&item, "cpu"),
                total(&item, "memory"),
                item["window"]
            ]);
            let mut row = Map::new();
            row.insert("cells".into(), cells);
            match include {
                Include::None => {}
                Include::Metadata => {
                    let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                        "metadata": item["metadata"]});
                    row.insert("object".into(), object);
                }
                Include::Object => drop(row.insert("object".into(), item)),
            }
            Value::Object(row)
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [
            column("Name", "string", "name", "Name of the resource"),
            column("cpu", "string", "", "CPU in use"),
            column("memory", "string", "", "Memory in use"),
            column("Window", "string", "", "Time that was measured over"),
        ],
        "rows": rows,
    })
}

/// What of the objects goes along with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// What is served.
pub(crate) fn resources() -> Value {
    let row = |kind: Kind, namespaced: bool| {
        json!({"name": kind.resource(), "singularName": "", "namespaced": namespaced, "kind": kind.name(),
            "verbs": ["get", "list"]})
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(),
        "resources": [row(Kind::Nodes, false), row(Kind::Pods, true)]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn used(cpu: u64, second: i64, window_ms: u64) -> Used {
        let at = Timestamp::from_second(1_767_225_600 + second).unwrap();
        Used { at, window: Duration::from_millis(window_ms), cpu, memory: 3 << 20 }
    }

    #[test]
    fn objects_as_metrics_server_tells_them() {
        let meta: ObjectMeta =
            serde_json::from_value(json!({"name": "p", "namespace": "n", "labels": {"a": "b"}})).unwrap();
        let now = Timestamp::from_second(1_767_225_700).unwrap();
        let containers =
            [("a".to_owned(), used(2_000_000_000, 5, 15_000)), ("b".to_owned(), used(1_500, 3, 61_250))];
        let pod = pod(&meta, &containers, now).unwrap();
        let want = json!({
            "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:01:40Z"},
            "timestamp": "2026-01-01T00:00:03Z", "window": "1m1.25s",
            "containers": [
                {"name": "a", "usage": {"cpu": "2", "memory": "3Mi"}},
                {"name": "b", "usage": {"cpu": "1500n", "memory": "3Mi"}},
            ],
        });
        assert_eq!(pod, want);
        let told = table(vec![pod.clone()], Include::Metadata);
        assert_eq!(told["rows"][0]["cells"], json!(["p", "2000001500n", "6Mi", "1m1.25s"]));
        assert_eq!(told["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        let all = list(Kind::Pods, vec![pod]);
        assert_eq!((&all["kind"], &all["items"][0]["kind"]), (&json!("PodMetricsList"), &Value::Null));
        assert_eq!((nanos(0), nanos(2_000_000), nanos(1_500_000)), ("0".into(), "2m".into(), "1500u".into()));
        assert_eq!((read_nanos("1500u"), read_nanos("2"), read_nanos("7n")), (1_500_000, 2_000_000_000, 7));
        assert_eq!(window(&used(0, 0, 15_000)), "15s");
        assert_eq!(window(&used(0, 0, 14_987)), "14.987s");
    }
}
