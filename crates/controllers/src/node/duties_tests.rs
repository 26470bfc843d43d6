use client::k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testkit::{Cluster, node};

use crate::Config;
use crate::testing::config;

fn run(cluster: &Cluster, controllers: &str) {
    crate::run(&Config { selected: controllers.parse().unwrap(), ..config(cluster) });
}

#[tokio::test]
async fn who_watches_nodes_and_who_drives_pods_away_can_be_apart() {
    let cluster = Cluster::start().await;
    run(&cluster, "*,-taint-eviction-controller");
    cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
    let nodes = cluster.all::<Node>();
    cluster.create_node(&node("n", 4, 4, 10)).await;
    let mut pod = testkit::pod("p", "app");
    pod.spec.as_mut().unwrap().node_name = Some("n".into());
    cluster.create("default", &pod).await;
    let taint = json!({"spec": {"taints": [{"key": "broken", "effect": "NoExecute"}]}});
    nodes.patch("n", &PatchParams::default(), &Patch::Merge(taint)).await.unwrap();
    // Whoever watches over the node has seen that taint when it puts one of its own beside it.
    let short = json!({"status": {"conditions": [{"type": "MemoryPressure", "status": "True"}]}});
    nodes.patch_status("n", &PatchParams::default(), &Patch::Strategic(short)).await.unwrap();
    let look = || async {
        let node = nodes.get("n").await.unwrap();
        let keys: Vec<String> = super::taints::of(&node).into_iter().map(|taint| taint.key).collect();
        let both = ["broken", "node.kubernetes.io/memory-pressure"];
        both.iter().all(|key| keys.iter().any(|k| k == key)).then_some(())
    };
    cluster.wait_for("both taints", look).await;
    let there = cluster.api::<Pod>("default").get("p").await.unwrap();
    assert!(there.metadata.deletion_timestamp.is_none(), "nobody drives pods away");

    run(&cluster, "taint-eviction-controller");
    // There is no agent that would end it.
    let going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    cluster.wait_until::<Pod>("default", "p", "to be driven away", going).await;
}
