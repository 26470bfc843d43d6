//! How long agents may keep what they have read of ConfigMaps and Secrets: an annotation of each node that grows with the
//! cluster (kubernetes/kubernetes, `pkg/controller/ttl/ttl_controller.go`). Ours are told of changes and need it not;
//! upstream's kubelets go by it if they are set to.

use std::sync::Arc;

use client::{Change, Controller, Informer, Key, Next, storage};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::error::{Attempt, Error};

const TTL: &str = "node.alpha.kubernetes.io/ttl";

/// From how many nodes, up to how many, and for how many seconds then. Sizes overlap, so that one node more or less does
/// not change all.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1_000, 30), (900, 2_000, 60), (1_800, usize::MAX, 300)];

struct State {
    ctx: Context,
    nodes: Informer<Node>,
    step: Arc<Mutex<usize>>,
}

pub(crate) fn start(ctx: &Context) {
    let nodes = ctx.informers.of::<Node>();
    let step = Arc::new(Mutex::new(0));
    let (all, stepping) = (nodes.clone(), step.clone());
    let controller = Controller::new("ttlcontroller").watches_changes(&nodes, move |change, queue| {
        if !matches!(change, Change::Updated { .. }) {
            let mut step = stepping.lock();
            let next = next(*step, all.store().len());
            if next != *step {
                *step = next;
                all.store().keys().into_iter().for_each(|key| queue.add(key));
            }
        }
        queue.add(Key::of(&**change.object()));
    });
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), nodes, step }), look);
}

/// The step for so many nodes, coming from another one.
fn next(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(node) = state.nodes.get(&key) else { return Ok(Next::Done) };
    let seconds = STEPS[*state.step.lock()].2;
    let has = storage::annotation(&node.metadata, TTL).and_then(|text| text.parse().ok());
    if has == Some(seconds) {
        return Ok(Next::Done);
    }
    let api: Api<Node> = Api::all(state.ctx.client());
    let patch = json!({"metadata": {"annotations": {TTL: seconds.to_string()}}});
    match api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if client::is_not_found(&error) => Ok(Next::Done),
        outcome => {
            outcome.map(|_| Next::Done).attempt(|| format!("write the annotation {TTL} of node {key}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cluster;

    #[test]
    fn steps_overlap() {
        let seconds = |step, nodes| STEPS[next(step, nodes)].2;
        assert_eq!((seconds(0, 0), seconds(0, 100), seconds(0, 101)), (0, 0, 15));
        assert_eq!((seconds(1, 90), seconds(1, 89)), (15, 0));
        assert_eq!((seconds(0, 5_000), seconds(4, 1_799), seconds(4, 3)), (300, 60, 0));
    }

    #[tokio::test]
    async fn each_node_is_told() {
        let cluster = cluster().await;
        let has = |wanted: &'static str| {
            move |node: &Node| storage::annotation(&node.metadata, TTL) == Some(wanted)
        };
        cluster.create_node(&testkit::node("n", 4, 8, 10)).await;
        let api = cluster.all::<Node>();
        let wait = |wanted: &'static str| {
            let (cluster, api) = (&cluster, api.clone());
            async move {
                let look = || async { api.get("n").await.ok().filter(has(wanted)) };
                cluster.wait_for(&format!("the time to be {wanted}"), look).await
            }
        };
        wait("0").await;
        let wrong = Patch::Merge(json!({"metadata": {"annotations": {TTL: "for ever"}}}));
        api.patch("n", &PatchParams::default(), &wrong).await.unwrap();
        wait("0").await;
    }
}
