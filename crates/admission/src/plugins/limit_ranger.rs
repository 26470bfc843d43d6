use std::cmp::Ordering;
use std::collections::BTreeMap;

use registry::pod_resources;
use serde_json::Value;
use types::{Quantity, Status, at, ensure_object};

use super::common::{aggregate, amounts, entries, list, map_mut, text};
use crate::cluster::Cluster;
use crate::plugin::{Draft, Final, Plugin};
use crate::request::{Operation, Request};

/// Containers get the defaults of the namespace's limit ranges, and what they and claims ask for stays within their
/// bounds (kubernetes/kubernetes, `plugin/pkg/admission/limitranger/admission.go`).
pub(crate) struct LimitRanger;

const NOTE: &str = "kubernetes.io/limit-ranger";

fn ranges(request: &Request<'_>, cluster: &dyn Cluster) -> Vec<Value> {
    let pods = request.is("", "pods") && request.operation == Operation::Create
        || request.is_part("", "pods", "resize") && request.operation == Operation::Update;
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    let claims = request.is("", "persistentvolumeclaims") && written;
    if !(pods || claims) || cluster.last_change("limitranges") == 0 {
        return Vec::new();
    }
    cluster.list_in("limitranges", request.namespace)
}

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn admit(&self, Draft { request, object: pod, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !request.is("", "pods") {
            return Ok(());
        }
        for range in ranges(request, cluster) {
            set_defaults(&range, pod);
        }
        Ok(())
    }

    fn validate(&self, Final { request, object, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        for range in ranges(request, cluster) {
            let mut errors = Vec::new();
            for limit in list(&range, &["spec", "limits"]) {
                check(limit, request, object, &mut errors);
            }
            if !errors.is_empty() {
                return Err(request.forbidden_of(Some(object), &aggregate(&errors)));
            }
        }
        Ok(())
    }
}

fn set_defaults(range: &Value, pod: &mut Value) {
    let mut requests: BTreeMap<String, Value> = BTreeMap::new();
    let mut limits = requests.clone();
    for limit in list(range, &["spec", "limits"]).filter(|l| l["type"] == "Container") {
        requests.extend(entries(limit, &["defaultRequest"]).map(|(k, v)| (k.clone(), v.clone())));
        limits.extend(entries(limit, &["default"]).map(|(k, v)| (k.clone(), v.clone())));
    }
    let mut notes = Vec::new();
    for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = text(container, &["name"]).to_owned();
            for (kind, defaults, word) in [("limits", &limits, "limit"), ("requests", &requests, "request")] {
                let mut set: Vec<&str> = Vec::new();
                for (resource, amount) in defaults {
                    if at(container, &["resources", kind, resource]).is_none() {
                        map_mut(container, &["resources", kind]).insert(resource.clone(), amount.clone());
                        set.push(resource);
                    }
                }
                if !set.is_empty() {
                    notes.push((word, format!("{} {word} for {what} {name}", set.join(", "))));
                }
            }
        }
    }
    if !notes.is_empty() {
        // Of each container, requests are told first.
        notes.sort_by_key(|(word, note)| (note.rsplit(' ').next().map(str::to_owned), *word == "limit"));
        let told: Vec<String> = notes.into_iter().map(|(_, note)| note).collect();
        let metadata = ensure_object(pod, "metadata");
        map_mut(metadata, &["annotations"])
            .insert(NOTE.into(), format!("LimitRanger plugin set: {}", told.join("; ")).into());
    }
}

/// What one object, container or pod asks for.
struct Asked<'a> {
    kind: &'a str,
    requests: BTreeMap<String, Quantity>,
    limits: BTreeMap<String, Quantity>,
}

fn check(limit: &Value, request: &Request<'_>, object: &Value, errors: &mut Vec<String>) {
    let kind = text(limit, &["type"]);
    let of = |part: &Value, field: &str| -> BTreeMap<String, Quantity> {
        amounts(part, &["resources", field]).map(|(n, q)| (n.to_owned(), q)).collect()
    };
    let pod = &*request.def.resource == "pods";
    match kind {
        "Container" if pod => {
            for field in ["containers", "initContainers"] {
                for container in list(object, &["spec", field]) {
                    let asked =
                        Asked { kind, requests: of(container, "requests"), limits: of(container, "limits") };
                    hold(limit, &asked, errors);
                }
            }
        }
        "Pod" if pod => {
            let sum = |field: &str| pod_resources(&object["spec"], field);
            hold(limit, &Asked { kind, requests: sum("requests"), limits: sum("limits") }, errors);
        }
        "PersistentVolumeClaim" if !pod => {
            let requests = of(&object["spec"], "requests");
            for (name, bound) in amounts(limit, &["min"]) {
                at_least(kind, name, bound, &requests, &BTreeMap::new(), errors);
            }
            for (name, bound) in amounts(limit, &["max"]) {
                let shown = format!("maximum {name} usage per {kind} is {bound}");
                match requests.get(name) {
                    None => errors.push(format!("{shown}.  No request is specified")),
                    Some(asked) if *asked > bound => {
                        errors.push(format!("{shown}, but request is {asked}"));
                    }
                    Some(_) => {}
                }
            }
        }
        _ => {}
    }
}

fn hold(limit: &Value, asked: &Asked<'_>, errors: &mut Vec<String>) {
    let Asked { kind, requests, limits } = asked;
    for (name, bound) in amounts(limit, &["min"]) {
        at_least(kind, name, bound, requests, limits, errors);
    }
    for (name, bound) in amounts(limit, &["max"]) {
        let shown = format!("maximum {name} usage per {kind} is {bound}");
        match limits.get(name) {
            None => errors.push(format!("{shown}.  No limit is specified")),
            Some(most) if *most > bound => errors.push(format!("{shown}, but limit is {most}")),
            Some(_) => {
                if let Some(asked) = requests.get(name).filter(|asked| **asked > bound) {
                    errors.push(format!("{shown}, but request is {asked}"));
                }
            }
        }
    }
    for (name, bound) in amounts(limit, &["maxLimitRequestRatio"]) {
        let shown = format!("{name} max limit to request ratio per {kind} is {bound}");
        let (Some(least), Some(most)) = (requests.get(name), limits.get(name)) else {
            let missing = if requests.contains_key(name) { "limit" } else { "request" };
            errors.push(format!("{shown}, but no {missing} is specified or {missing} is 0"));
            continue;
        };
        if least.is_zero() {
            errors.push(format!("{shown}, but no request is specified or request is 0"));
            continue;
        }
        let ratio = most.as_f64() / least.as_f64();
        if ratio.partial_cmp(&bound.as_f64()) == Some(Ordering::Greater) {
            errors.push(format!("{shown}, but provided ratio is {ratio:.6}"));
        }
    }
}

fn at_least(
    kind: &str,
    name: &str,
    bound: Quantity,
    requests: &BTreeMap<String, Quantity>,
    limits: &BTreeMap<String, Quantity>,
    errors: &mut Vec<String>,
) {
    let shown = format!("minimum {name} usage per {kind} is {bound}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => errors.push(format!("{shown}.  No request is specified")),
        (Some(asked), _) if *asked < bound => errors.push(format!("{shown}, but request is {asked}")),
        (_, Some(most)) if *most < bound => errors.push(format!("{shown}, but limit is {most}")),
        _ => {}
    }
}
