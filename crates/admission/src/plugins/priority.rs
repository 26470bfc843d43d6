use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use types::{Status, at, ensure_object, str_at};

use crate::cluster::Cluster;
use crate::plugin::{Draft, Final, Plugin};
use crate::request::Operation;

/// A pod's priority is the number behind its priority class (kubernetes/kubernetes,
/// `plugin/pkg/admission/priority/admission.go`).
#[derive(Default)]
pub(crate) struct Priority {
    /// The default class, as of a revision of the table: every pod that is made asks for it.
    default: Mutex<(u64, Option<Arc<Value>>)>,
}

impl Priority {
    /// The class of pods that name none: of several, the lowest.
    fn default_class(&self, cluster: &dyn Cluster) -> Option<Arc<Value>> {
        let version = cluster.last_change(TABLE);
        let mut known = self.default.lock();
        if known.0 != version {
            let marked = cluster.list(TABLE).into_iter().filter(|class| class["globalDefault"] == true);
            *known = (version, marked.min_by_key(|class| class["value"].as_i64()).map(Arc::new));
        }
        known.1.clone()
    }
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit(&self, Draft { request, object: pod, old, cluster, .. }: Draft<'_>) -> Result<(), Status> {
        if !request.is("", "pods") {
            return Ok(());
        }
        if let (Operation::Update, Some(old)) = (request.operation, old) {
            // Older clients leave out what they do not know.
            for field in ["priority", "preemptionPolicy"] {
                if let Some(value) = at(old, &["spec", field]).filter(|_| at(pod, &["spec", field]).is_none())
                {
                    ensure_object(pod, "spec")[field] = value.clone();
                }
            }
            return Ok(());
        }
        if request.operation != Operation::Create {
            return Ok(());
        }
        let class = match str_at(pod, &["spec", "priorityClassName"]) {
            Some(name) => match cluster.get(TABLE, "", name) {
                Some(class) => Some(Arc::new(class)),
                None => {
                    return Err(request.forbidden(&format!("no PriorityClass with name {name} was found")));
                }
            },
            None => self.default_class(cluster),
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

    fn validate(&self, Final { request, object, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if !written || !request.is("scheduling.k8s.io", "priorityclasses") {
            return Ok(());
        }
        if object.is_none_or(|class| class["globalDefault"] != true) {
            return Ok(());
        }
        match self.default_class(cluster) {
            Some(other) if other["metadata"]["name"] != request.name => {
                let name = str_at(&other, &["metadata", "name"]).unwrap_or_default();
                Err(request.forbidden(&format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                )))
            }
            _ => Ok(()),
        }
    }
}

const TABLE: &str = "priorityclasses.scheduling.k8s.io";
