//! Pods that nobody will ever end: on nodes that are gone, or deleted before they had one; and those that have ended, when
//! there are too many of them (kubernetes/kubernetes, `pkg/controller/podgc/gc_controller.go`).

use std::sync::Arc;
use std::time::Duration;

use client::{Change, Controller, Index, Informer, Key, Next, PodView, is_deleting};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::common::pods::is_finished;
use crate::context::Context;
use crate::error::{Attempt, Error};

/// A node that is gone may be back soon (upstream: `quarantineTime`).
const QUARANTINE: Duration = Duration::from_secs(40);

/// The taint of a node that is down, and will not come back with its pods running.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// In the queue, all pods that have ended; no node has such a name.
const ENDED: &str = "pods that have ended";

/// Whether too many have ended is looked at this often (upstream: `gcCheckPeriod`).
const PERIOD: Duration = Duration::from_secs(20);

struct State {
    ctx: Context,
    /// How many pods that have ended are kept, if not all.
    kept: Option<usize>,
    nodes: Informer<Node>,
    pods: Informer<PodView>,
    pods_on: Index<PodView>,
}

fn node_of(pod: &PodView) -> Option<&str> {
    pod.node_name.as_deref()
}

/// Keeps `kept` pods that have ended; 0 keeps all.
pub(crate) fn start(ctx: &Context, kept: usize) {
    let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<PodView>());
    let pods_on = pods.index("node", |pod: &PodView| node_of(pod).map(str::to_owned));
    let known = nodes.clone();
    // Nodes and pods share the queue: a pod's key has a namespace.
    let controller = Controller::new("pod-garbage-collector")
        .watches_changes(&nodes, |change, queue| {
            if matches!(change, Change::Deleted(_)) {
                queue.add_after(Key::of(&**change.object()), QUARANTINE);
            } else if is_out_of_service(change.object()) {
                queue.add(Key::of(&**change.object()));
            }
        })
        .watches_changes(&pods, move |change, queue| {
            let pod = change.object();
            if is_finished(pod) {
                queue.add_after(Key::new("", ENDED), PERIOD);
            }
            let is_down = |node: &str| known.store().by_name("", node).is_some_and(|n| is_out_of_service(&n));
            match node_of(pod) {
                _ if matches!(change, Change::Deleted(_)) => {}
                Some(node) if known.store().by_name("", node).is_none() => {
                    queue.add_after(Key::new("", node), QUARANTINE);
                }
                None if is_deleting(&pod.metadata) => queue.add(Key::of(&**pod)),
                Some(node) if is_deleting(&pod.metadata) && is_down(node) => queue.add(Key::new("", node)),
                _ => {}
            }
        });
    let kept = (kept > 0).then_some(kept);
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), kept, nodes, pods, pods_on }), look);
}

/// Whether somebody has said that a node is down for good, and it is not heard of: what is to end on it has ended.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
        && !conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    if !key.namespace().is_empty() {
        let pod = state.pods.get(&key).filter(|pod| node_of(pod).is_none() && is_deleting(&pod.metadata));
        if let Some(pod) = pod {
            // Somebody may wait for it to end, and hold it until it has.
            state.fail(&pod, &[]).await?;
            state.end(&pod, "unscheduled").await?;
        }
        return Ok(Next::Done);
    }
    if key.name() == ENDED {
        let ended = state.pods.store().list().into_iter().filter(|pod| is_finished(pod)).collect();
        for pod in state.kept.map(|kept| surplus(ended, kept)).unwrap_or_default() {
            state.end(&pod, "terminated").await?;
        }
        return Ok(Next::Done);
    }
    if let Some(node) = state.nodes.get(&key) {
        if is_out_of_service(&node) {
            for pod in state.pods_on.get(key.name()).iter().filter(|pod| is_deleting(&pod.metadata)) {
                state.fail(pod, &[]).await?;
                state.end(pod, "out-of-service").await?;
            }
        }
        return Ok(Next::Done);
    }
    let api: Api<Node> = Api::all(state.ctx.client());
    let there = api.get_metadata_opt(key.name()).await.attempt(|| format!("look at node {key}"))?;
    if there.is_some() {
        return Ok(Next::Done);
    }
    for pod in state.pods_on.get(key.name()) {
        state.orphaned(&pod).await?;
        state.end(&pod, "orphaned").await?;
    }
    Ok(Next::Done)
}

/// Which of the pods that have ended go, so that no more than `kept` stay: pure. Those that were evicted go first, and
/// then the oldest.
fn surplus(mut ended: Vec<Arc<PodView>>, kept: usize) -> Vec<Arc<PodView>> {
    let evicted = |pod: &PodView| pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
    ended.sort_by_cached_key(|pod| {
        (
            !evicted(pod),
            pod.metadata.creation_timestamp.as_ref().map(|at| at.0),
            pod.namespace(),
            pod.name_any(),
        )
    });
    ended.truncate(ended.len().saturating_sub(kept));
    ended
}

impl State {
    /// The pod's node is gone, and with it whatever the pod was doing.
    async fn orphaned(&self, pod: &PodView) -> Result<(), Error> {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "observedGeneration": pod.metadata.generation, "lastTransitionTime":
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.ctx.now())});
        self.fail(pod, &[condition]).await
    }

    async fn fail(&self, pod: &PodView, conditions: &[serde_json::Value]) -> Result<(), Error> {
        if is_finished(pod) {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": pod.metadata.uid},
            "status": {"phase": "Failed", "conditions": conditions}});
        let api = self.ctx.api::<PodView>(&pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("mark pod {} as failed", pod.name_any())),
        }
    }

    async fn end(&self, pod: &PodView, reason: &str) -> Result<(), Error> {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let only = Preconditions { uid: pod.metadata.uid.clone(), ..Default::default() };
        let params =
            DeleteParams { preconditions: Some(only), grace_period_seconds: Some(0), ..Default::default() };
        let outcome = self.ctx.api::<PodView>(&namespace).delete(&name, &params).await;
        crate::metrics::pod_forced(&namespace, reason, outcome.is_ok());
        match outcome {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("delete pod {namespace}/{name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
    use testkit::{Outcome, node, object, run_kubelet};

    use super::*;
    use crate::testing::cluster;

    #[test]
    fn the_evicted_and_the_oldest_go_first() {
        let pod = |name: &str, second: u32, reason: &str| -> Arc<PodView> {
            Arc::new(object(json!({
                "metadata": {"name": name, "namespace": "default",
                    "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
                "status": {"phase": "Failed", "reason": reason}})))
        };
        let all = vec![
            pod("young", 9, "Error"),
            pod("old", 1, "Error"),
            pod("evicted", 5, "Evicted"),
            pod("mid", 4, "Error"),
        ];
        let gone = |kept| surplus(all.clone(), kept).iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        assert_eq!(gone(2), ["evicted", "old"]);
        assert_eq!(gone(0), ["evicted", "old", "mid", "young"]);
        assert!(gone(4).is_empty() && gone(5).is_empty());
    }

    #[tokio::test]
    async fn too_many_that_have_ended_are_thinned() {
        let cluster = testkit::Cluster::start().await;
        crate::run(&crate::Config { terminated_pods: 2, ..crate::testing::config(&cluster) });
        cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
        cluster.create_node(&node("n", 4, 4, 10)).await;
        for name in ["a", "b", "c"] {
            let mut pod = testkit::pod(name, "app");
            pod.spec.as_mut().unwrap().node_name = Some("n".into());
            cluster.create("default", &pod).await;
            let ended = json!({"status": {"phase": "Succeeded"}});
            let params = PatchParams::default();
            let pods = cluster.api::<Pod>("default");
            pods.patch_status(name, &params, &Patch::Merge(ended)).await.unwrap();
        }
        let pods = cluster.api::<Pod>("default");
        let mut left = 3;
        for _ in 0..600 {
            // Only the queue's waiting is cut short; requests take the time that they take.
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::time::resume();
            left = pods.list(&Default::default()).await.unwrap().items.len();
            if left < 3 {
                break;
            }
        }
        assert_eq!(left, 2);
    }

    #[tokio::test]
    async fn what_is_to_end_on_a_node_out_of_service_has_ended() {
        let cluster = cluster().await;
        run_kubelet(&cluster, |_| Outcome::Running);
        for name in ["down", "up"] {
            cluster.create_node(&node(name, 4, 4, 10)).await;
            let condition = json!({"type": "Ready", "status": if name == "up" { "True" } else { "Unknown" }});
            let ill = Patch::Merge(json!({"status": {"conditions": [condition]}}));
            cluster.all::<Node>().patch_status(name, &PatchParams::default(), &ill).await.unwrap();
            for pod in ["leaves", "stays"] {
                let mut pod = testkit::pod(&format!("{pod}-{name}"), "app");
                pod.spec.as_mut().unwrap().node_name = Some(name.into());
                // Nobody confirms its end: its agent is gone.
                pod.metadata.finalizers = Some(vec!["example.com/watched".into()]);
                cluster.create("default", &pod).await;
            }
        }
        let pods = cluster.api::<Pod>("default");
        for name in ["leaves-down", "leaves-up"] {
            pods.delete(name, &DeleteParams::default()).await.unwrap();
        }
        let taint = json!({"spec": {"taints": [{"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoSchedule"}]}});
        for name in ["down", "up"] {
            let params = PatchParams::default();
            cluster.all::<Node>().patch(name, &params, &Patch::Merge(taint.clone())).await.unwrap();
        }
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        cluster
            .wait_until::<Pod>("default", "leaves-down", "to have failed", |pod| phase(pod) == "Failed")
            .await;
        for name in ["stays-down", "leaves-up", "stays-up"] {
            assert_ne!(phase(&pods.get(name).await.unwrap()), "Failed", "{name}");
        }
    }
}
