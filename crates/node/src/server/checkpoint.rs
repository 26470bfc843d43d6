//! A running container as a file (kubernetes/kubernetes, `pkg/kubelet/server/server.go`, `checkpoint`): what takes it is
//! the container runtime, and ours cannot.

use std::time::Duration;

use http::Response;
use k8s_openapi::api::core::v1::Pod;
use types::{Reason, Status};

use super::{Body, Server, json};
use crate::engine::Engine;

impl Server {
    /// Has the runtime write a container into the folder `checkpoints`, and gives the file's name.
    pub(super) async fn checkpoint(
        &self,
        pod: &Pod,
        container: &str,
        query: &[(String, String)],
    ) -> Result<Response<Body>, Status> {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        let failed = |why: String| {
            let why = format!("checkpointing of {namespace}/{name}/{container} failed ({why})");
            Status::new(Reason::InternalError, why)
        };
        let limit = query.iter().find(|(key, _)| key == "timeout").map(|(_, seconds)| seconds.parse::<u64>());
        let limit = match limit {
            None | Some(Ok(0)) => None,
            Some(Ok(seconds)) => Some(Duration::from_secs(seconds)),
            Some(Err(_)) => return Err(Status::bad_request("cannot parse value of timeout parameter")),
        };
        let id = self.running(pod, container)?;
        let Engine::Cri(cri) = &self.runtime else {
            let why = "the built-in container runtime takes no checkpoints, which would need CRIU";
            return Err(failed(why.to_owned()));
        };
        let folder = self.data_dir.join("checkpoints");
        let time = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let file = folder.join(format!("checkpoint-{name}_{namespace}-{container}-{time}.tar"));
        std::fs::create_dir_all(&folder).map_err(|error| failed(error.to_string()))?;
        cri.checkpoint(&id, &file, limit).await.map_err(|error| failed(error.to_string()))?;
        Ok(json(&serde_json::json!({"items": [file]})))
    }
}
