use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use client::k8s_openapi::api::core::v1::{Container, Pod};
use client::{Controller, Key, Next};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::Cluster;

/// When whatever happens to pods has happened: nothing need be waited for.
const LONG_AGO: &str = "2026-01-01T00:00:00Z";

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Running,
    /// Running, and never ready.
    Unready,
    Succeeded,
    Failed,
    /// Every container has ended with this code.
    Exited(i32),
    /// Nothing is done about the pod.
    Ignored,
}

/// Plays the agents of all nodes at once: each pod becomes what `decide` says, and goes when it is deleted. Pods
/// without a node are run too, so that tests can do without a scheduler.
pub fn run_kubelet(cluster: &Cluster, decide: impl Fn(&Pod) -> Outcome + Send + Sync + 'static) {
    let (pods, client) = (cluster.informers.of::<Pod>(), cluster.client.clone());
    let controller = Controller::new("fake-kubelet").watches(&pods, |pod: &Pod| [Key::of(pod)]);
    let decide = Arc::new(decide);
    let addresses = Arc::new(AtomicU32::new(1));
    cluster.drain.spawn(controller.run(cluster.drain.clone(), move |key| {
        let (pods, client, decide) = (pods.clone(), client.clone(), decide.clone());
        let addresses = addresses.clone();
        async move {
            let Some(pod) = pods.get(&key) else { return Ok(Next::Done) };
            let api: Api<Pod> = Api::namespaced(client, key.namespace());
            let outcome = if pod.metadata.deletion_timestamp.is_some() {
                let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
                api.delete(key.name(), &now).await.map(drop)
            } else {
                let Some(status) = status(&pod, decide(&pod), &addresses) else { return Ok(Next::Done) };
                api.patch_status(key.name(), &PatchParams::default(), &Patch::Strategic(status))
                    .await
                    .map(drop)
            };
            match outcome {
                Err(error) if !client::is_not_found(&error) => Err(error),
                _ => Ok(Next::Done),
            }
        }
    }));
}

fn status(pod: &Pod, outcome: Outcome, addresses: &AtomicU32) -> Option<serde_json::Value> {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let (wanted, ready) = match outcome {
        Outcome::Ignored => return None,
        Outcome::Running => ("Running", "True"),
        Outcome::Unready => ("Running", "False"),
        Outcome::Succeeded => ("Succeeded", "False"),
        Outcome::Failed => ("Failed", "False"),
        Outcome::Exited(0) => ("Succeeded", "False"),
        Outcome::Exited(_) => ("Failed", "False"),
    };
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let is = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str());
    if phase == wanted && is == Some(ready) {
        return None;
    }
    let known = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
    let ip = known.unwrap_or_else(|| {
        let n = addresses.fetch_add(1, Ordering::Relaxed);
        format!("10.{}.{}.{}", 1 + (n >> 16), (n >> 8) & 255, n & 255)
    });
    let mut status = json!({
        "phase": wanted, "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": LONG_AGO}],
    });
    if let Outcome::Exited(code) = outcome {
        let end = json!({"exitCode": code, "startedAt": LONG_AGO, "finishedAt": LONG_AGO});
        let ended = |c: &Container| {
            json!({"name": c.name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": end}})
        };
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        status["containerStatuses"] = containers.map(ended).collect();
    }
    Some(json!({"status": status}))
}
