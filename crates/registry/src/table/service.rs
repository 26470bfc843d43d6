use jiff::Timestamp;
use serde_json::{Value, json};
use types::{at, str_at};

use super::{AGE, Column, NAME, age, column, entries, list, map_text, name, selector_text, text_or, wide};

pub(crate) const SERVICE: &[Column] = &[
    NAME,
    column("Type"),
    column("Cluster-IP"),
    column("External-IP"),
    column("Port(s)"),
    AGE,
    wide("Selector"),
];

pub(crate) fn service_cells(s: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &s["spec"];
    let kind = spec["type"].as_str().unwrap_or_default();
    let mut external: Vec<&str> = list(spec, "externalIPs").filter_map(Value::as_str).collect();
    let ingress: Vec<&str> = list(&s["status"]["loadBalancer"], "ingress")
        .filter_map(|i| str_at(i, &["ip"]).or(str_at(i, &["hostname"])))
        .collect();
    let external_ip = match kind {
        "ExternalName" => text_or(&spec["externalName"], "<none>"),
        "LoadBalancer" => {
            external.splice(0..0, ingress);
            if external.is_empty() { "<pending>".into() } else { external.join(",") }
        }
        _ if external.is_empty() => "<none>".into(),
        _ => external.join(","),
    };
    let ports: Vec<String> = list(spec, "ports")
        .map(|p| {
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            match p["nodePort"].as_i64().filter(|n| *n != 0) {
                Some(node) => format!("{}:{node}/{protocol}", p["port"]),
                None => format!("{}/{protocol}", p["port"]),
            }
        })
        .collect();
    vec![
        name(s),
        json!(kind),
        json!(text_or(&spec["clusterIP"], "<none>")),
        json!(external_ip),
        json!(if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }),
        json!(age(s, now)),
        json!(map_text(&spec["selector"])),
    ]
}

pub(crate) const ENDPOINTS: &[Column] = &[NAME, column("Endpoints"), AGE];

pub(crate) fn endpoints_cells(e: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(e, "subsets") {
        let ips: Vec<&str> = list(subset, "addresses").filter_map(|a| a["ip"].as_str()).collect();
        if list(subset, "ports").next().is_none() {
            all.extend(ips.iter().map(|ip| (*ip).to_owned()));
        }
        for port in list(subset, "ports") {
            all.extend(ips.iter().map(|ip| format!("{ip}:{}", port["port"])));
        }
    }
    vec![name(e), json!(first_of(&all, 3)), json!(age(e, now))]
}

/// The first few of a list and how many more there are.
fn first_of(all: &[String], most: usize) -> String {
    match all.len() {
        0 => "<none>".into(),
        n if n > most => format!("{} + {} more...", all[..most].join(","), n - most),
        _ => all.join(","),
    }
}

pub(crate) const ENDPOINT_SLICE: &[Column] =
    &[NAME, column("AddressType"), column("Ports"), column("Endpoints"), AGE];

pub(crate) fn endpoint_slice_cells(e: &Value, now: Timestamp) -> Vec<Value> {
    let shown =
        |all: Vec<String>, none: &str| if all.is_empty() { none.to_owned() } else { first_of(&all, 3) };
    let ports = list(e, "ports").map(|p| text_or(&p["port"], "*")).collect();
    let endpoints =
        list(e, "endpoints").flat_map(|e| list(e, "addresses")).filter_map(Value::as_str).map(str::to_owned);
    vec![
        name(e),
        e["addressType"].clone(),
        json!(shown(ports, "<unset>")),
        json!(shown(endpoints.collect(), "<unset>")),
        json!(age(e, now)),
    ]
}

pub(crate) const INGRESS: &[Column] =
    &[NAME, column("Class"), column("Hosts"), column("Address"), column("Ports"), AGE];

pub(crate) fn ingress_cells(i: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &i["spec"];
    let hosts: Vec<String> = list(spec, "rules").map(|r| text_or(&r["host"], "*")).collect();
    let addresses: Vec<&str> = list(&i["status"]["loadBalancer"], "ingress")
        .filter_map(|a| str_at(a, &["ip"]).or(str_at(a, &["hostname"])))
        .collect();
    vec![
        name(i),
        json!(text_or(&spec["ingressClassName"], "<none>")),
        json!(if hosts.is_empty() { "*".to_owned() } else { first_of(&hosts, 3) }),
        json!(addresses.join(",")),
        json!(if entries(spec, "tls") > 0 { "80, 443" } else { "80" }),
        json!(age(i, now)),
    ]
}

pub(crate) const INGRESS_CLASS: &[Column] = &[NAME, column("Controller"), column("Parameters"), AGE];

pub(crate) fn ingress_class_cells(c: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match at(c, &["spec", "parameters"]) {
        Some(p) => {
            let group = str_at(p, &["apiGroup"]).map(|g| format!(".{g}")).unwrap_or_default();
            format!("{}{group}/{}", text_or(&p["kind"], ""), text_or(&p["name"], ""))
        }
        None => "<none>".into(),
    };
    vec![name(c), c["spec"]["controller"].clone(), json!(parameters), json!(age(c, now))]
}

pub(crate) const NETWORK_POLICY: &[Column] = &[NAME, column("Pod-Selector"), AGE];

pub(crate) fn network_policy_cells(p: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(p), json!(selector_text(&p["spec"]["podSelector"])), json!(age(p, now))]
}
