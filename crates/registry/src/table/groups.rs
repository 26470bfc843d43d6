use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, age, column, name, wide};

pub(crate) const POD_GROUP: &[Column] = &[NAME, column("Policy"), wide("Workload"), column("Status"), AGE];

pub(crate) fn pod_group_cells(group: &Value, now: Timestamp) -> Vec<Value> {
    let policy = &group["spec"]["schedulingPolicy"];
    let kind = if policy["gang"].is_object() { "Gang" } else { "Basic" };
    let workload = group["spec"]["podGroupTemplateRef"]["workload"]["workloadName"].as_str();
    let conditions = group["status"]["conditions"].as_array().into_iter().flatten();
    let said = conditions.filter(|c| c["type"] == "PodGroupScheduled").find_map(|c| c["reason"].as_str());
    let status = said.unwrap_or("Pending");
    vec![name(group), json!(kind), json!(workload.unwrap_or("<none>")), json!(status), json!(age(group, now))]
}
