use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, age, column, list, name, number, text_or};

pub(crate) const POD_DISRUPTION_BUDGET: &[Column] =
    &[NAME, column("Min Available"), column("Max Unavailable"), number("Allowed Disruptions"), AGE];

pub(crate) fn pod_disruption_budget_cells(p: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(p),
        json!(text_or(&p["spec"]["minAvailable"], "N/A")),
        json!(text_or(&p["spec"]["maxUnavailable"], "N/A")),
        json!(p["status"]["disruptionsAllowed"].as_i64().unwrap_or(0)),
        json!(age(p, now)),
    ]
}

pub(crate) const HORIZONTAL_POD_AUTOSCALER: &[Column] = &[
    NAME,
    column("Reference"),
    column("Targets"),
    column("MinPods"),
    column("MaxPods"),
    number("Replicas"),
    AGE,
];

pub(crate) fn horizontal_pod_autoscaler_cells(h: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&h["spec"], &h["status"]);
    let reference = &spec["scaleTargetRef"];
    let targets: Vec<String> = list(spec, "metrics").map(|metric| target(metric, status)).collect();
    let targets = match targets.len() {
        0 => "<none>".to_owned(),
        n if n > 2 => format!("{} + {} more...", targets[..2].join(", "), n - 2),
        _ => targets.join(", "),
    };
    vec![
        name(h),
        json!(format!("{}/{}", text_or(&reference["kind"], ""), text_or(&reference["name"], ""))),
        json!(targets),
        json!(text_or(&spec["minReplicas"], "<unset>")),
        json!(text_or(&spec["maxReplicas"], "")),
        json!(status["currentReplicas"].as_i64().unwrap_or(0)),
        json!(age(h, now)),
    ]
}

/// `cpu: 20%/80%` for a resource metric; other sources show their name only.
fn target(metric: &Value, status: &Value) -> String {
    if metric["type"] != "Resource" {
        return format!("<unknown>/{}", text_or(&metric["type"], "<auto>"));
    }
    let resource = &metric["resource"];
    let current = list(status, "currentMetrics").find(|m| m["resource"]["name"] == resource["name"]);
    let current = current.map(|m| &m["resource"]["current"]).unwrap_or(&Value::Null);
    let shown = if resource["target"]["averageUtilization"].is_i64() {
        let now = current["averageUtilization"].as_i64().map_or("<unknown>".to_owned(), |n| format!("{n}%"));
        format!("{now}/{}%", resource["target"]["averageUtilization"])
    } else {
        format!(
            "{}/{}",
            text_or(&current["averageValue"], "<unknown>"),
            text_or(&resource["target"]["averageValue"], "<auto>")
        )
    };
    format!("{}: {shown}", text_or(&resource["name"], ""))
}
