//! The downward API: what a pod may learn of itself (kubernetes/kubernetes, `pkg/fieldpath`,
//! `pkg/api/v1/resource/helpers.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Container, Pod};
use types::Quantity;

use crate::error::Fault;

/// What a node can give its pods; the limit of whoever names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of disk.
    pub ephemeral_storage: i64,
}

/// The value of a field of the pod's metadata or spec.
pub fn field(pod: &Pod, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let keyed = |map: &Option<BTreeMap<String, String>>, rest: &str| {
        let key = rest.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default())
    };
    let lines = |map: &Option<BTreeMap<String, String>>| {
        let rows: Vec<String> = map.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
        rows.join("\n")
    };
    match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(lines(&meta.labels)),
        "metadata.annotations" => Some(lines(&meta.annotations)),
        "spec.nodeName" => spec?.node_name.clone(),
        "spec.serviceAccountName" => spec?.service_account_name.clone(),
        _ => path.strip_prefix("metadata.labels").and_then(|rest| keyed(&meta.labels, rest)).or_else(|| {
            path.strip_prefix("metadata.annotations").and_then(|rest| keyed(&meta.annotations, rest))
        }),
    }
}

/// `requests.cpu`, `limits.memory` and the like of `own` or of the container that is named, in units of the
/// divisor, rounded up.
///
/// # Errors
/// For a resource or container that does not exist.
pub fn resource_field(
    pod: &Pod,
    own: Option<&Container>,
    reference: &core::ResourceFieldSelector,
    node: &Allocatable,
) -> Result<String, Fault> {
    let unknown = || Fault::Unsupported { what: "container resource", text: reference.resource.clone() };
    let (kind, name) = reference.resource.split_once('.').ok_or_else(unknown)?;
    let mut all = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let container = match reference.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => all.find(|c| c.name == name),
        None => own,
    };
    let container = container.ok_or_else(|| Fault::Unsupported {
        what: "container",
        text: reference.container_name.clone().unwrap_or_default(),
    })?;
    let resources = container.resources.as_ref();
    let map = match kind {
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        _ => return Err(unknown()),
    };
    let millis = |text: &str| text.parse::<Quantity>().map(Quantity::millis).unwrap_or(0);
    let given = map.and_then(|m| m.get(name)).map(|q| millis(&q.0));
    let whole = match name {
        "cpu" => node.cpu_millis,
        "memory" => node.memory.saturating_mul(1000),
        "ephemeral-storage" => node.ephemeral_storage.saturating_mul(1000),
        _ if name.starts_with("hugepages-") => 0,
        _ => return Err(unknown()),
    };
    let amount = given.unwrap_or(if kind == "limits" { whole } else { 0 });
    let divisor = reference.divisor.as_ref().map_or(0, |q| millis(&q.0));
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_by_path() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"a": "1", "b/c": "x\"y"}}}))
                .unwrap();
        for (path, want) in [
            ("metadata.name", Some("p")),
            ("metadata.labels", Some("a=\"1\"\nb/c=\"x\\\"y\"")),
            ("metadata.labels['b/c']", Some("x\"y")),
            ("metadata.labels['none']", Some("")),
            ("spec.hostname", None),
        ] {
            assert_eq!(field(&pod, path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn amounts_in_units_of_the_divisor() {
        let container =
            json!({"name": "a", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}});
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap();
        let node = Allocatable { cpu_millis: 2000, memory: 1 << 30, ephemeral_storage: 0 };
        let own = pod.spec.as_ref().unwrap().containers.first();
        let of = |resource: &str, divisor: &str| {
            let reference = json!({"resource": resource, "divisor": divisor});
            resource_field(&pod, own, &serde_json::from_value(reference).unwrap(), &node).ok()
        };
        for (resource, divisor, want) in [
            ("requests.cpu", "0", Some("1")),
            ("requests.cpu", "1m", Some("250")),
            ("limits.cpu", "1", Some("2")),
            ("limits.memory", "1Mi", Some("64")),
            ("requests.memory", "1", Some("0")),
            ("limits.gold", "1", None),
        ] {
            assert_eq!(of(resource, divisor).as_deref(), want, "{resource}/{divisor}");
        }
    }
}
