//! Whether the agent is well, and what runs.

use http::Response;
use serde_json::{Value, json};
use types::Status;

use super::{Body, Server, text};
use runtime::{ContainerState, SandboxState};

use crate::worker::KEY;

/// `/healthz` and its single checks. Who gets an answer has reached an agent whose loop runs: when it does not, the
/// process ends (`pkg/kubelet/server/server.go`, `InstallAuthNotRequiredHandlers`).
pub(super) fn health(which: &[&str]) -> Result<Response<Body>, Status> {
    match which {
        [] | [""] | ["ping" | "log" | "syncloop"] => Ok(text("ok")),
        _ => Err(Status::no_such_resource()),
    }
}

impl Server {
    /// The pods that the runtime has, whatever the API says: names, and containers with their images
    /// (`pkg/kubelet/server/server.go`, `getRunningPods`).
    pub(super) fn running_pods(&self) -> Value {
        let pods = self.runtime.sandboxes().into_iter().filter(|s| s.state == SandboxState::Ready);
        let items = pods.filter_map(|sandbox| {
            let (namespace, name) = sandbox.spec.labels.get(KEY)?.split_once('/')?;
            let containers = self.runtime.containers(&sandbox.spec.id).into_iter();
            let running = containers.filter(|c| matches!(c.state, ContainerState::Running { .. }));
            let containers: Vec<Value> =
                running.map(|c| json!({"name": c.name, "image": c.image, "resources": {}})).collect();
            Some(json!({
                "metadata": {"name": name, "namespace": namespace, "uid": sandbox.spec.id},
                "spec": {"containers": containers},
                "status": {},
            }))
        });
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items.collect::<Vec<_>>()})
    }
}
