use serde_json::{Value, json};
use types::{Status, ensure_object};

use crate::plugin::{Draft, Plugin};
use crate::request::Operation;

/// A pod stays five minutes on a node that is lost, unless it says otherwise (kubernetes/kubernetes,
/// `plugin/pkg/admission/defaulttolerationseconds/admission.go`).
pub(crate) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit(&self, Draft { request, object: pod, .. }: Draft<'_>) -> Result<(), Status> {
        if !request.is("", "pods") || request.operation == Operation::Delete {
            return Ok(());
        }
        let spec = ensure_object(pod, "spec");
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerates = |t: &Value| {
                let covers =
                    |field: &str, wanted: &str| t[field].as_str().is_none_or(|v| v.is_empty() || v == wanted);
                covers("key", key) && covers("effect", "NoExecute")
            };
            let list = spec["tolerations"].as_array();
            if list.is_some_and(|l| l.iter().any(tolerates)) {
                continue;
            }
            let toleration =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            match &mut spec["tolerations"] {
                Value::Array(items) => items.push(toleration),
                other => *other = json!([toleration]),
            }
        }
        Ok(())
    }
}
