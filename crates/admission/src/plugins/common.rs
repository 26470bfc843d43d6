//! Small things that several plugins need.

use serde_json::{Map, Value};
use types::{Quantity, at};

use crate::cluster::Cluster;
use crate::request::{Operation, Request};

/// The elements of a list; none where there is none.
pub(crate) fn list<'a>(of: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> + use<'a> {
    at(of, path).and_then(Value::as_array).into_iter().flatten()
}

/// The entries of a map; none where there is none.
pub(crate) fn entries<'a>(
    of: &'a Value,
    path: &[&str],
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    at(of, path).and_then(Value::as_object).into_iter().flatten()
}

/// The amounts of a resource list.
pub(crate) fn amounts<'a>(
    of: &'a Value,
    path: &[&str],
) -> impl Iterator<Item = (&'a str, Quantity)> + use<'a> {
    entries(of, path).filter_map(|(name, value)| Some((name.as_str(), quantity(value)?)))
}

pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(n) => n.to_string().parse().ok(),
        _ => None,
    }
}

/// A text, or else the empty one.
pub(crate) fn text<'a>(of: &'a Value, path: &[&str]) -> &'a str {
    at(of, path).and_then(Value::as_str).unwrap_or_default()
}

/// The lists of containers that a pod's spec has.
pub(crate) const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Every container of a pod's spec, in upstream's order of visiting.
pub(crate) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINERS.into_iter().flat_map(|field| list(spec, &[field]))
}

/// A map inside an object, to change; made if it is not there.
pub(crate) fn map_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let place = path.iter().fold(object, |object, key| types::ensure_object(object, key));
    types::object(place)
}

/// A list inside an object, to change; made if it is not there.
pub(crate) fn list_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    let entry = types::object(object).entry(field).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Array(Vec::new());
    }
    entry.as_array_mut()
}

pub(crate) fn creates_pod(request: &Request<'_>) -> bool {
    request.operation == Operation::Create && request.is("", "pods")
}

/// The newest of the objects that an annotation marks as the default; by name among equals.
pub(crate) fn newest_default(cluster: &dyn Cluster, table: &str, annotations: &[&str]) -> Option<Value> {
    let marked = |o: &Value| annotations.iter().any(|a| text(o, &["metadata", "annotations", a]) == "true");
    let age = |o: &Value| text(o, &["metadata", "creationTimestamp"]).to_owned();
    cluster.list(table).into_iter().filter(marked).min_by(|a, b| {
        age(b).cmp(&age(a)).then_with(|| text(a, &["metadata", "name"]).cmp(text(b, &["metadata", "name"])))
    })
}

/// Errors as upstream's aggregates show them: one as it is, several in brackets, none twice.
pub(crate) fn aggregate(errors: &[String]) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for error in errors {
        if !unique.contains(&error.as_str()) {
            unique.push(error);
        }
    }
    match unique.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Whether the request's user has a right on the signers of a certificate request or a trust bundle
/// (kubernetes/kubernetes, `plugin/pkg/admission/certificates/util.go`).
pub(crate) fn may_sign(cluster: &dyn Cluster, request: &Request<'_>, verb: &str, signer: &str) -> bool {
    let ask = |name: &str| {
        let resource = cel::AuthzResource {
            group: "certificates.k8s.io".into(),
            resource: "signers".into(),
            name: name.into(),
            ..Default::default()
        };
        let target = cel::AuthzTarget::Resource(resource);
        let question = cel::AuthzRequest { service_account: None, verb: verb.into(), target };
        cluster.authorize(request.user, &question).allowed
    };
    let domain = signer.split('/').next().unwrap_or_default();
    ask(signer) || ask(&format!("{domain}/*"))
}

/// Whether one toleration covers another completely (`pkg/util/tolerations/tolerations.go`, `isSuperset`).
pub(crate) fn covers(outer: &Value, inner: &Value) -> bool {
    let field = |t: &Value, name: &str| text(t, &[name]).to_owned();
    if outer == inner {
        return true;
    }
    if !field(outer, "key").is_empty() && field(outer, "key") != field(inner, "key") {
        return false;
    }
    if field(outer, "key").is_empty() && field(outer, "operator") != "Exists" {
        return false;
    }
    if !field(outer, "effect").is_empty() && field(outer, "effect") != field(inner, "effect") {
        return false;
    }
    if field(outer, "effect") == "NoExecute" && !outer["tolerationSeconds"].is_null() {
        let seconds = |t: &Value| t["tolerationSeconds"].as_i64();
        match (seconds(outer), seconds(inner)) {
            (Some(a), Some(b)) if a >= b => {}
            _ => return false,
        }
    }
    match field(outer, "operator").as_str() {
        "" | "Equal" => {
            matches!(field(inner, "operator").as_str(), "" | "Equal")
                && field(outer, "value") == field(inner, "value")
        }
        "Exists" => true,
        _ => false,
    }
}

/// Both lists of tolerations without those that others cover (`MergeTolerations`).
pub(crate) fn merge_tolerations(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    'next: for (i, toleration) in all.iter().enumerate() {
        for later in &all[i + 1..] {
            if covers(later, toleration) {
                continue 'next;
            }
        }
        if merged.iter().any(|kept| covers(kept, toleration)) {
            continue;
        }
        merged.push((*toleration).clone());
    }
    merged
}
