use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;
use client::k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::{Cluster, Outcome, node, run_kubelet};

use crate::testing::config;

/// Lets time pass for everybody at once.
async fn pass(clock: &ManualClock, seconds: u64) {
    clock.advance(Duration::from_secs(seconds));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Lets time pass while a node goes on to be heard, so often that a slow machine does not make it fall silent.
async fn pass_with(cluster: &Cluster, clock: &ManualClock, alive: &str, seconds: u64) {
    const STEP: u64 = 20;
    for step in 0..seconds.div_ceil(STEP) {
        pass(clock, STEP.min(seconds - step * STEP)).await;
        beat(cluster, clock, alive).await;
    }
}

async fn beat(cluster: &Cluster, clock: &ManualClock, name: &str) {
    let time = base::Clock::now(clock).to_string();
    let patch =
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": time}]}});
    let api = cluster.all::<Node>();
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let seen = cluster.informers.of::<Node>();
    cluster
        .wait_for("the heartbeat to be seen", || async {
            let node = seen.store().by_name("", name)?;
            (super::health::heartbeat(&node)?.to_string() == time).then_some(())
        })
        .await;
}

fn taints(node: &Node) -> Vec<String> {
    super::taints::of(node).iter().map(|t| format!("{}:{}", t.key, t.effect)).collect()
}

async fn node_until(cluster: &Cluster, name: &str, what: &str, wish: impl Fn(&Node) -> bool) -> Node {
    let api = cluster.all::<Node>();
    cluster.wait_for(what, || async { Some(api.get(name).await.unwrap()).filter(|n| wish(n)) }).await
}

#[tokio::test]
async fn a_silent_node_loses_its_pods_and_gets_well_again() {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    crate::run(&config(&cluster));
    cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
    run_kubelet(&cluster, |_| Outcome::Running);
    for name in ["loud", "silent"] {
        cluster.create_global(&node(name, 4, 4, 10)).await;
        beat(&cluster, &clock, name).await;
    }
    let mut pod = testkit::pod("p", "app");
    pod.spec.as_mut().unwrap().node_name = Some("silent".into());
    cluster.create("default", &pod).await;
    let is_ready = |p: &client::PodView| crate::common::pods::is_ready(p);
    cluster.wait_until("default", "p", "to be ready", is_ready).await;

    pass_with(&cluster, &clock, "loud", 55).await;
    let silent =
        node_until(&cluster, "silent", "the silent node to be tainted", |n| taints(n).len() == 2).await;
    let key = "node.kubernetes.io/unreachable";
    assert_eq!(taints(&silent), [format!("{key}:NoSchedule"), format!("{key}:NoExecute")]);
    let ready = super::health::condition(&silent, "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
    let alive = cluster.all::<Node>().get("loud").await.unwrap();
    assert!(taints(&alive).is_empty());

    // Pods put up with it for five minutes, unless they say otherwise.
    pass_with(&cluster, &clock, "loud", 280).await;
    let p = cluster.api::<Pod>("default").get("p").await.unwrap();
    assert!(p.metadata.deletion_timestamp.is_none());
    pass_with(&cluster, &clock, "loud", 30).await;
    cluster.wait_gone::<Pod>("default", "p").await;
    let events = cluster.api::<Event>("default");
    let why = cluster
        .wait_for("the event that says why", || async {
            let all = events.list(&Default::default()).await.unwrap().items;
            all.into_iter().find(|e| e.reason.as_deref() == Some("TaintManagerEviction"))
        })
        .await;
    assert_eq!(why.message.as_deref(), Some("Marking for deletion Pod default/p"));
    assert_eq!(why.involved_object.kind.as_deref(), Some("Pod"));

    beat(&cluster, &clock, "silent").await;
    node_until(&cluster, "silent", "the node to be well", |n| taints(n).is_empty()).await;
    cluster.all::<Node>().delete("silent", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn nobody_is_evicted_when_every_node_is_silent() {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    crate::run(&config(&cluster));
    cluster.create_global(&node("only", 4, 4, 10)).await;
    beat(&cluster, &clock, "only").await;
    pass(&clock, 55).await;
    // A new node is tainted as not ready until its first word is heard, which may be seen here still.
    let unreachable = ["node.kubernetes.io/unreachable:NoSchedule"];
    node_until(&cluster, "only", "that taint alone", |n| taints(n) == unreachable).await;
}

#[tokio::test]
async fn a_blackout_begins_the_time_of_grace_anew() {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    crate::run(&config(&cluster));
    for name in ["loud", "silent"] {
        cluster.create_global(&node(name, 4, 4, 10)).await;
        beat(&cluster, &clock, name).await;
    }
    let driven_since = |node: &Node| {
        let taint = super::taints::of(node).into_iter().find(|t| t.effect == "NoExecute");
        taint.map(|t| t.time_added.unwrap().0)
    };
    pass_with(&cluster, &clock, "loud", 55).await;
    let silent = node_until(&cluster, "silent", "the taint", |n| driven_since(n).is_some()).await;
    assert_eq!(driven_since(&silent), Some("2026-01-01T00:00:55Z".parse().unwrap()));

    // Nobody is heard any longer: it is not the nodes.
    pass(&clock, 60).await;
    node_until(&cluster, "silent", "the truce", |n| driven_since(n).is_none()).await;

    // What was counted before the blackout does not count.
    beat(&cluster, &clock, "loud").await;
    let silent = node_until(&cluster, "silent", "the taint again", |n| driven_since(n).is_some()).await;
    assert_eq!(driven_since(&silent), Some("2026-01-01T00:01:55Z".parse().unwrap()));
}
