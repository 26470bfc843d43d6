use jiff::Timestamp;
use serde_json::{Value, json};
use types::{at, str_at};

use super::{
    AGE, Column, NAME, age, column, containers_and_images, human_duration, list, map_text, name, number,
    text_or,
};

pub(crate) const POD_TEMPLATE: &[Column] =
    &[NAME, column("Containers"), column("Images"), column("Pod Labels")];

pub(crate) fn pod_template_cells(t: &Value, _now: Timestamp) -> Vec<Value> {
    let (containers, images) = containers_and_images(&t["template"]["spec"]);
    vec![name(t), json!(containers), json!(images), json!(map_text(&t["template"]["metadata"]["labels"]))]
}

pub(crate) const LIMIT_RANGE: &[Column] = &[NAME, column("Created At")];

pub(crate) fn limit_range_cells(l: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(l), l["metadata"]["creationTimestamp"].clone()]
}

pub(crate) const CERTIFICATE_SIGNING_REQUEST: &[Column] =
    &[NAME, AGE, column("SignerName"), column("Requestor"), column("RequestedDuration"), column("Condition")];

pub(crate) fn certificate_signing_request_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&c["spec"], &c["status"]);
    let holds = |kind: &str| list(status, "conditions").any(|c| c["type"] == kind);
    let mut states = Vec::new();
    if holds("Denied") {
        states.push("Denied");
    } else if holds("Approved") {
        states.push("Approved");
    } else {
        states.push("Pending");
    }
    if holds("Failed") {
        states.push("Failed");
    }
    if str_at(status, &["certificate"]).is_some() {
        states.push("Issued");
    }
    vec![
        name(c),
        json!(age(c, now)),
        json!(text_or(&spec["signerName"], "<none>")),
        json!(text_or(&spec["username"], "")),
        json!(spec["expirationSeconds"].as_i64().map_or("<none>".to_owned(), human_duration)),
        json!(states.join(",")),
    ]
}

pub(crate) const WEBHOOK_CONFIGURATION: &[Column] = &[NAME, number("Webhooks"), AGE];

pub(crate) fn webhook_configuration_cells(w: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(w), json!(list(w, "webhooks").count()), json!(age(w, now))]
}

fn param_kind(policy: &Value) -> String {
    match at(policy, &["spec", "paramKind"]) {
        Some(kind) => format!("{}/{}", text_or(&kind["apiVersion"], ""), text_or(&kind["kind"], "")),
        None => "<unset>".into(),
    }
}

pub(crate) const VALIDATING_ADMISSION_POLICY: &[Column] =
    &[NAME, number("Validations"), column("ParamKind"), AGE];

pub(crate) fn validating_admission_policy_cells(p: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(p), json!(list(&p["spec"], "validations").count()), json!(param_kind(p)), json!(age(p, now))]
}

pub(crate) const MUTATING_ADMISSION_POLICY: &[Column] =
    &[NAME, number("Mutations"), column("ParamKind"), AGE];

pub(crate) fn mutating_admission_policy_cells(p: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(p), json!(list(&p["spec"], "mutations").count()), json!(param_kind(p)), json!(age(p, now))]
}

pub(crate) const ADMISSION_POLICY_BINDING: &[Column] = &[NAME, column("PolicyName"), column("ParamRef"), AGE];

pub(crate) fn admission_policy_binding_cells(b: &Value, now: Timestamp) -> Vec<Value> {
    let param = match at(b, &["spec", "paramRef"]) {
        None => "<unset>".into(),
        Some(param) => match (str_at(param, &["namespace"]), str_at(param, &["name"])) {
            (Some(namespace), name) => format!("{namespace}/{}", name.unwrap_or("*")),
            (None, name) => name.unwrap_or("*").to_owned(),
        },
    };
    vec![name(b), json!(text_or(&b["spec"]["policyName"], "")), json!(param), json!(age(b, now))]
}

pub(crate) const FLOW_SCHEMA: &[Column] = &[
    NAME,
    column("PriorityLevel"),
    number("MatchingPrecedence"),
    column("DistinguisherMethod"),
    AGE,
    column("MissingPL"),
];

pub(crate) fn flow_schema_cells(f: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &f["spec"];
    let dangling = list(&f["status"], "conditions").find(|c| c["type"] == "Dangling");
    vec![
        name(f),
        json!(text_or(&spec["priorityLevelConfiguration"]["name"], "")),
        json!(spec["matchingPrecedence"].as_i64().unwrap_or(0)),
        json!(text_or(&spec["distinguisherMethod"]["type"], "<none>")),
        json!(age(f, now)),
        json!(dangling.map_or("?".to_owned(), |c| text_or(&c["status"], "?"))),
    ]
}

pub(crate) const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    column("Type"),
    column("NominalConcurrencyShares"),
    column("Queues"),
    column("HandSize"),
    column("QueueLengthLimit"),
    AGE,
];

pub(crate) fn priority_level_cells(p: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &p["spec"];
    let shares = spec["limited"]["nominalConcurrencyShares"]
        .as_i64()
        .or(spec["exempt"]["nominalConcurrencyShares"].as_i64());
    let queuing = &spec["limited"]["limitResponse"]["queuing"];
    vec![
        name(p),
        json!(text_or(&spec["type"], "")),
        json!(shares.map_or("<none>".to_owned(), |n| n.to_string())),
        json!(text_or(&queuing["queues"], "<none>")),
        json!(text_or(&queuing["handSize"], "<none>")),
        json!(text_or(&queuing["queueLengthLimit"], "<none>")),
        json!(age(p, now)),
    ]
}

pub(crate) const IP_ADDRESS: &[Column] = &[NAME, column("ParentRef"), AGE];

pub(crate) fn ip_address_cells(i: &Value, now: Timestamp) -> Vec<Value> {
    let parent = &i["spec"]["parentRef"];
    let parts = ["resource", "group", "namespace", "name"];
    let mut shown = String::new();
    for part in parts.iter().filter_map(|p| str_at(parent, &[p]).map(|v| (*p, v))) {
        let sign = match part.0 {
            "resource" => "",
            "group" => ".",
            _ => "/",
        };
        shown.push_str(sign);
        shown.push_str(part.1);
    }
    vec![name(i), json!(if shown.is_empty() { "<none>".to_owned() } else { shown }), json!(age(i, now))]
}

pub(crate) const SERVICE_CIDR: &[Column] = &[NAME, column("CIDRs"), AGE];

pub(crate) fn service_cidr_cells(s: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = list(&s["spec"], "cidrs").filter_map(Value::as_str).collect();
    vec![name(s), json!(cidrs.join(",")), json!(age(s, now))]
}

pub(crate) const RESOURCE_CLAIM: &[Column] = &[NAME, column("State"), AGE];

pub(crate) fn resource_claim_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    let mut states = Vec::new();
    if at(c, &["metadata", "deletionTimestamp"]).is_some() {
        states.push("deleted");
    }
    match at(c, &["status", "allocation"]) {
        Some(_) => states.push("allocated"),
        None if at(c, &["metadata", "deletionTimestamp"]).is_none() => states.push("pending"),
        None => {}
    }
    if list(&c["status"], "reservedFor").next().is_some() {
        states.push("reserved");
    }
    vec![name(c), json!(states.join(",")), json!(age(c, now))]
}

pub(crate) const RESOURCE_SLICE: &[Column] = &[NAME, column("Node"), column("Driver"), column("Pool"), AGE];

pub(crate) fn resource_slice_cells(s: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &s["spec"];
    vec![
        name(s),
        json!(text_or(&spec["nodeName"], "<unset>")),
        json!(text_or(&spec["driver"], "")),
        json!(text_or(&spec["pool"]["name"], "")),
        json!(age(s, now)),
    ]
}

pub(crate) const API_SERVICE: &[Column] = &[NAME, column("Service"), column("Available"), AGE];

pub(crate) fn api_service_cells(a: &Value, now: Timestamp) -> Vec<Value> {
    let service = match at(a, &["spec", "service"]) {
        Some(s) => format!("{}/{}", text_or(&s["namespace"], ""), text_or(&s["name"], "")),
        None => "Local".into(),
    };
    let available = list(&a["status"], "conditions").find(|c| c["type"] == "Available");
    let available = match available {
        None => "Unknown".to_owned(),
        Some(c) if c["status"] == "True" => "True".into(),
        Some(c) => format!("{} ({})", text_or(&c["status"], "Unknown"), text_or(&c["reason"], "")),
    };
    vec![name(a), json!(service), json!(available), json!(age(a, now))]
}
