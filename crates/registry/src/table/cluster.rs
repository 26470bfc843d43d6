use jiff::Timestamp;
use serde_json::{Value, json};
use types::str_at;

use super::{AGE, Column, NAME, age, column, list, name, number, text_or, wide};

pub(crate) const NODE: &[Column] = &[
    NAME,
    column("Status"),
    column("Roles"),
    AGE,
    column("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

pub(crate) fn node_cells(n: &Value, now: Timestamp) -> Vec<Value> {
    let status = &n["status"];
    let ready = list(status, "conditions").find(|c| c["type"] == "Ready");
    let mut state = match ready {
        Some(c) if c["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if n["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let labels = n["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let address = |kind: &str| {
        let found = list(status, "addresses").find(|a| a["type"] == kind);
        found.map_or("<none>".to_owned(), |a| text_or(&a["address"], "<none>"))
    };
    let info = &status["nodeInfo"];
    vec![
        name(n),
        json!(state),
        json!(roles),
        json!(age(n, now)),
        json!(text_or(&info["kubeletVersion"], "")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(text_or(&info["osImage"], "<unknown>")),
        json!(text_or(&info["kernelVersion"], "<unknown>")),
        json!(text_or(&info["containerRuntimeVersion"], "<unknown>")),
    ]
}

pub(crate) const LEASE: &[Column] = &[NAME, column("Holder"), AGE];

pub(crate) fn lease_cells(l: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(l), json!(text_or(&l["spec"]["holderIdentity"], "")), json!(age(l, now))]
}

pub(crate) const RUNTIME_CLASS: &[Column] = &[NAME, column("Handler"), AGE];

pub(crate) fn runtime_class_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(c), c["handler"].clone(), json!(age(c, now))]
}

pub(crate) const PRIORITY_CLASS: &[Column] =
    &[NAME, number("Value"), column("Global-Default"), AGE, column("PreemptionPolicy")];

pub(crate) fn priority_class_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(c),
        c["value"].clone(),
        json!(c["globalDefault"] == true),
        json!(age(c, now)),
        json!(text_or(&c["preemptionPolicy"], "PreemptLowerPriority")),
    ]
}

pub(crate) const ROLE: &[Column] = &[NAME, column("Created At")];

pub(crate) fn role_cells(r: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(r), r["metadata"]["creationTimestamp"].clone()]
}

pub(crate) const ROLE_BINDING: &[Column] =
    &[NAME, column("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];

pub(crate) fn role_binding_cells(b: &Value, now: Timestamp) -> Vec<Value> {
    let role = &b["roleRef"];
    let subjects = |kind: &str| -> String {
        let of_kind = list(b, "subjects").filter(|s| s["kind"] == kind);
        let names: Vec<String> = of_kind
            .map(|s| match str_at(s, &["namespace"]).filter(|_| kind == "ServiceAccount") {
                Some(namespace) => format!("{namespace}/{}", text_or(&s["name"], "")),
                None => text_or(&s["name"], ""),
            })
            .collect();
        names.join(", ")
    };
    vec![
        name(b),
        json!(format!("{}/{}", text_or(&role["kind"], ""), text_or(&role["name"], ""))),
        json!(age(b, now)),
        json!(subjects("User")),
        json!(subjects("Group")),
        json!(subjects("ServiceAccount")),
    ]
}
