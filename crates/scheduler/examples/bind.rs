//! How many pods a second get a node, from creation to binding, through the real API server in this process:
//! `cargo run --release -p scheduler --example bind [nodes] [pods]`.

use std::time::{Duration, Instant};

use client::k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use client::kube::ResourceExt;
use client::kube::api::PostParams;
use scheduler::{Config, run};
use testkit::Cluster;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let (nodes, pods): (usize, usize) = (args.next().unwrap_or(1000), args.next().unwrap_or(5000));
    let cluster = Cluster::start().await;
    let account: ServiceAccount = testkit::object(serde_json::json!({"metadata": {"name": "default"}}));
    cluster.create("default", &account).await;
    for n in 0..nodes {
        cluster.create_node(&testkit::node(&format!("node-{n}"), 64, 256, 110)).await;
    }
    // All pods are there before the scheduler begins, so that their creation does not count.
    let api = cluster.api::<Pod>("default");
    let mut creations = tokio::task::JoinSet::new();
    for n in 0..pods {
        let api = api.clone();
        creations.spawn(async move {
            let mut pod = testkit::pod(&format!("pod-{n}"), "app");
            pod.spec.get_or_insert_default().automount_service_account_token = Some(false);
            api.create(&PostParams::default(), &pod).await.map(drop)
        });
        if creations.len() >= 64 {
            creations.join_next().await;
        }
    }
    creations.join_all().await.into_iter().for_each(|outcome| outcome.expect("a pod"));
    let informer = cluster.informers.of::<Pod>();
    informer.ready().await;
    let mut changes = informer.subscribe();
    let begun = Instant::now();
    run(&Config {
        informers: cluster.informers.clone(),
        clock: cluster.clock.clone(),
        drain: cluster.drain.clone(),
    });
    let mut bound = std::collections::HashSet::new();
    while bound.len() < pods {
        let change = tokio::time::timeout(Duration::from_secs(60), changes.recv()).await;
        let Ok(Some(change)) = change else { panic!("only {} of {pods} pods were bound", bound.len()) };
        let pod = change.object();
        if pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()) {
            bound.insert(pod.name_any());
        }
    }
    let took = begun.elapsed();
    println!("{pods} pods on {nodes} nodes in {took:?}: {:.0} pods/s", pods as f64 / took.as_secs_f64());
}
