use serde_json::Value;
use types::{Status, ensure_object, str_at};

use crate::chain::Plugin;
use crate::cluster::Cluster;
use crate::request::{Notes, Operation, Request};

/// A pod's priority is the number behind its priority class (kubernetes/kubernetes,
/// `plugin/pkg/admission/priority/admission.go`).
pub(crate) struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        pod: &mut Value,
        _old: Option<&Value>,
        cluster: &dyn Cluster,
        _notes: &mut Notes,
    ) -> Result<(), Status> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        const TABLE: &str = "priorityclasses.scheduling.k8s.io";
        let class = match str_at(pod, &["spec", "priorityClassName"]) {
            Some(name) => match cluster.get(TABLE, "", name) {
                Some(class) => Some(class),
                None => {
                    return Err(request.forbidden(&format!("no PriorityClass with name {name} was found")));
                }
            },
            None => cluster.list(TABLE).into_iter().find(|class| class["globalDefault"] == true),
        };
        let (value, policy) = match &class {
            Some(class) => (
                class["value"].as_i64().unwrap_or(0),
                str_at(class, &["preemptionPolicy"]).unwrap_or("PreemptLowerPriority"),
            ),
            None => (0, "PreemptLowerPriority"),
        };
        if let Some(asked) = pod["spec"]["priority"].as_i64().filter(|asked| *asked != value) {
            return Err(request.forbidden(&format!(
                "the integer value of priority ({asked}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        let spec = ensure_object(pod, "spec");
        if let Some(class) = &class {
            spec["priorityClassName"] = class["metadata"]["name"].clone();
        }
        spec["priority"] = value.into();
        types::set_default(spec, "preemptionPolicy", policy);
        Ok(())
    }
}
