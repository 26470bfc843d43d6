//! How many pods a second get a node, from creation to binding, through the real API server in this process:
//! `cargo run --release -p scheduler --example bind [nodes] [pods] [plain|rules]`. With `rules`, the pods have constraints
//! on their spread, and would rather not be with others of their sort.

use std::time::{Duration, Instant};

use client::k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use client::kube::ResourceExt;
use client::kube::api::PostParams;
use scheduler::{Config, run};
use serde_json::json;
use testkit::Cluster;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, default: usize| args.get(place).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (nodes, pods) = (number(0, 1000), number(1, 5000));
    let rules = args.get(2).is_some_and(|mode| mode == "rules");
    let cluster = Cluster::start().await;
    let account: ServiceAccount = testkit::object(serde_json::json!({"metadata": {"name": "default"}}));
    cluster.create("default", &account).await;
    for n in 0..nodes {
        let mut node = testkit::node(&format!("node-{n}"), 64, 256, 110);
        let labels = node.metadata.labels.get_or_insert_default();
        labels.insert("topology.kubernetes.io/zone".into(), format!("zone-{}", n % 3));
        cluster.create_node(&node).await;
    }
    // All pods are there before the scheduler begins, so that their creation does not count.
    let api = cluster.api::<Pod>("default");
    let mut creations = tokio::task::JoinSet::new();
    for n in 0..pods {
        let api = api.clone();
        creations.spawn(async move {
            let mut pod = testkit::pod(&format!("pod-{n}"), &format!("app-{}", n % 20));
            if rules {
                add_rules(&mut pod, n % 20);
            }
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
    run(&Config::new(cluster.informers.clone(), cluster.clock.clone(), cluster.drain.clone()));
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

fn add_rules(pod: &mut Pod, app: usize) {
    let own = json!({"matchLabels": {"app": format!("app-{app}")}});
    let (zone, host) = ("topology.kubernetes.io/zone", "kubernetes.io/hostname");
    let spread = |key: &str, when: &str| json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": when, "labelSelector": own});
    let away = json!({"weight": 10, "podAffinityTerm": {"topologyKey": host, "labelSelector": own}});
    let affinity = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [away]}});
    let spec = pod.spec.get_or_insert_default();
    spec.affinity = Some(testkit::object(affinity));
    spec.topology_spread_constraints = Some(vec![
        testkit::object(spread(zone, "DoNotSchedule")),
        testkit::object(spread(host, "ScheduleAnyway")),
    ]);
}
