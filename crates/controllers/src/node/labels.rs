//! Labels that say the same under an old and a new name (kubernetes/kubernetes,
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`, `reconcileNodeLabels`).

use k8s_openapi::api::core::v1::Node;
use serde_json::{Map, Value};

/// The name that counts, and the one that follows.
const PAIRS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// The labels that have to change.
pub(super) fn missing(node: &Node) -> Map<String, Value> {
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let wanted = PAIRS.iter().filter_map(|(first, second)| {
        let value = label(first)?;
        (label(second) != Some(value)).then(|| ((*second).to_owned(), Value::from(value.as_str())))
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn old_names_follow_new_ones() {
        let of = |labels: Value| {
            let node: Node = testkit::object(json!({"metadata": {"labels": labels}}));
            Value::Object(missing(&node))
        };
        assert_eq!(of(json!({"kubernetes.io/os": "linux"})), json!({"beta.kubernetes.io/os": "linux"}));
        assert_eq!(of(json!({"beta.kubernetes.io/os": "linux"})), json!({}));
        assert_eq!(
            of(json!({"kubernetes.io/arch": "arm64", "beta.kubernetes.io/arch": "amd64"})),
            json!({"beta.kubernetes.io/arch": "arm64"})
        );
        assert_eq!(of(json!({"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux"})), json!({}));
    }
}
