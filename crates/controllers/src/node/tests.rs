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

/// Lets time pass in which all of these are heard.
async fn pass_with_all(cluster: &Cluster, clock: &ManualClock, alive: &[&str], seconds: u64) {
    const STEP: u64 = 20;
    for step in 0..seconds.div_ceil(STEP) {
        pass(clock, STEP.min(seconds - step * STEP)).await;
        for name in alive {
            beat(cluster, clock, name).await;
        }
    }
}

#[tokio::test]
async fn nodes_of_a_zone_are_emptied_one_after_the_other_unless_many_are_lost() {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    crate::run(&config(&cluster));
    let names = ["n0", "n1", "n2", "n3", "n4"];
    for name in names {
        cluster.create_global(&node(name, 4, 4, 10)).await;
        beat(&cluster, &clock, name).await;
    }
    // Each of them is known to be well before any is not.
    for name in names {
        node_until(&cluster, name, "no taint", |n| taints(n).is_empty()).await;
    }
    let driven = |all: Vec<Node>| -> Vec<String> {
        let is = |n: &Node| taints(n).contains(&"node.kubernetes.io/unreachable:NoExecute".to_owned());
        all.iter().filter(|n| is(n)).map(|n| n.metadata.name.clone().unwrap()).collect()
    };
    let api = cluster.all::<Node>();
    let count = async |expected: usize| {
        cluster
            .wait_for(&format!("{expected} nodes to be emptied"), || async {
                let found = driven(api.list(&Default::default()).await.unwrap().items);
                (found.len() == expected).then_some(found)
            })
            .await
    };
    pass_with_all(&cluster, &clock, &names[2..], 55).await;
    for name in &names[..2] {
        let key = "node.kubernetes.io/unreachable:NoSchedule".to_owned();
        node_until(&cluster, name, "no new pods", |n| taints(n).contains(&key)).await;
    }
    count(1).await;
    pass_with_all(&cluster, &clock, &names[2..], 10).await;
    count(2).await;

    // Three of five: it is not the nodes. Those that were emptied already stay so.
    pass_with_all(&cluster, &clock, &names[3..], 120).await;
    let key = "node.kubernetes.io/unreachable:NoSchedule".to_owned();
    node_until(&cluster, "n2", "no new pods", |n| taints(n).contains(&key)).await;
    pass_with_all(&cluster, &clock, &names[3..], 60).await;
    assert_eq!(count(2).await, names[..2]);
    // One is back, and it is the nodes again.
    beat(&cluster, &clock, "n0").await;
    cluster
        .wait_for("the other two to be emptied", || async {
            let found = driven(api.list(&Default::default()).await.unwrap().items);
            (found == names[1..3]).then_some(())
        })
        .await;
}

#[tokio::test]
async fn pods_stay_when_the_taint_goes_in_time_and_labels_follow() {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    crate::run(&config(&cluster));
    cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
    run_kubelet(&cluster, |_| Outcome::Running);
    let mut one = node("one", 4, 4, 10);
    one.metadata.labels.get_or_insert_default().insert("kubernetes.io/os".into(), "linux".into());
    cluster.create_global(&one).await;
    beat(&cluster, &clock, "one").await;
    let label = "beta.kubernetes.io/os";
    node_until(&cluster, "one", "the old label", |n| {
        n.metadata.labels.as_ref().is_some_and(|l| l.get(label).is_some_and(|v| v == "linux"))
    })
    .await;
    let mut pod = testkit::pod("p", "app");
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = Some("one".into());
    spec.tolerations = Some(vec![testkit::object(
        json!({"key": "mine", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}),
    )]);
    cluster.create("default", &pod).await;
    cluster.wait_until("default", "p", "to be ready", crate::common::pods::is_ready).await;
    let taint = |taints: serde_json::Value| Patch::Merge(json!({"spec": {"taints": taints}}));
    let api = cluster.all::<Node>();
    let on = taint(json!([{"key": "mine", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]));
    api.patch("one", &PatchParams::default(), &on).await.unwrap();
    pass_with(&cluster, &clock, "one", 30).await;
    api.patch("one", &PatchParams::default(), &taint(json!(null))).await.unwrap();
    let events = cluster.api::<Event>("default");
    let said = cluster
        .wait_for("the event that it stays", || async {
            let all = events.list(&Default::default()).await.unwrap().items;
            all.into_iter().find(|e| e.reason.as_deref() == Some("TaintManagerEviction"))
        })
        .await;
    assert_eq!(said.message.as_deref(), Some("Cancelling deletion of Pod default/p"));
    pass_with(&cluster, &clock, "one", 60).await;
    let p = cluster.api::<Pod>("default").get("p").await.unwrap();
    assert!(p.metadata.deletion_timestamp.is_none());
    // As `kubectl taint` does it, without a time.
    let on = taint(json!([{"key": "mine", "effect": "NoExecute"}]));
    api.patch("one", &PatchParams::default(), &on).await.unwrap();
    // Its time begins when the controller looks, which nobody sees: it passes until it is over.
    let pods = cluster.api::<Pod>("default");
    let mut rounds = 0;
    while pods.get_opt("p").await.unwrap().is_some_and(|p| p.metadata.deletion_timestamp.is_none()) {
        pass_with(&cluster, &clock, "one", 30).await;
        rounds += 1;
        assert!(rounds < 200, "p stays for ever");
    }
    assert!(rounds > 1, "p goes at once");
}

#[tokio::test]
async fn a_clock_that_steps_loses_no_node() {
    let clock = ManualClock::new("2026-01-01T12:00:00Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    crate::run(&config(&cluster));
    for name in ["loud", "silent"] {
        cluster.create_global(&node(name, 4, 4, 10)).await;
        beat(&cluster, &clock, name).await;
    }
    // The time that people read jumps, and no time passes.
    for step in ["2026-01-01T17:00:00Z", "2026-01-01T08:00:00Z"] {
        clock.set(step.parse().unwrap());
        for name in ["loud", "silent"] {
            beat(&cluster, &clock, name).await;
            node_until(&cluster, name, "no taint", |n| taints(n).is_empty()).await;
        }
    }
    // Silence still counts, by the time that passes.
    pass_with(&cluster, &clock, "loud", 55).await;
    node_until(&cluster, "silent", "the silent node to be tainted", |n| taints(n).len() == 2).await;
    assert!(taints(&cluster.all::<Node>().get("loud").await.unwrap()).is_empty());
}

#[tokio::test]
async fn people_are_told_which_nodes_come_and_go() {
    let cluster = Cluster::start().await;
    crate::run(&config(&cluster));
    let node = cluster.create_global(&node("one", 4, 4, 10)).await;
    let events = cluster.api::<Event>("default");
    let said = |reason: &'static str| {
        let events = events.clone();
        move || {
            let events = events.clone();
            async move {
                let all = events.list(&Default::default()).await.unwrap().items;
                all.into_iter().find(|e| e.reason.as_deref() == Some(reason))
            }
        }
    };
    let came = cluster.wait_for("the node to be registered", said("RegisteredNode")).await;
    assert_eq!(came.message.as_deref(), Some("Node one event: Registered Node one in Controller"));
    assert_eq!(came.involved_object.uid, node.metadata.uid, "kubectl looks for it there");
    cluster.all::<Node>().delete("one", &DeleteParams::default()).await.unwrap();
    let went = cluster.wait_for("the node to be removed", said("RemovingNode")).await;
    assert_eq!(went.message.as_deref(), Some("Node one event: Removing Node one from Controller"));
}

#[tokio::test]
async fn a_clock_that_is_set_back_holds_no_eviction_back() {
    let clock = ManualClock::new("2026-01-01T12:00:00Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    crate::run(&config(&cluster));
    cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create_global(&node("one", 4, 4, 10)).await;
    beat(&cluster, &clock, "one").await;
    let mut pod = testkit::pod("p", "app");
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = Some("one".into());
    spec.tolerations = Some(vec![testkit::object(
        json!({"key": "mine", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
    )]);
    cluster.create("default", &pod).await;
    cluster.wait_until("default", "p", "to be ready", crate::common::pods::is_ready).await;
    let on = json!({"spec": {"taints": [{"key": "mine", "effect": "NoExecute", "timeAdded": base::Clock::now(&clock)}]}});
    cluster.all::<Node>().patch("one", &PatchParams::default(), &Patch::Merge(on)).await.unwrap();
    node_until(&cluster, "one", "the taint", |n| taints(n).contains(&"mine:NoExecute".to_owned())).await;
    let pods = cluster.api::<Pod>("default");
    let (mut rounds, there) = (0, |p: Pod| p.metadata.deletion_timestamp.is_none());
    while pods.get_opt("p").await.unwrap().is_some_and(there) {
        if rounds == 3 {
            clock.set("2026-01-01T06:00:00Z".parse().unwrap());
        }
        pass_with(&cluster, &clock, "one", 30).await;
        rounds += 1;
        assert!(rounds < 200, "p stays for hours");
    }
    assert!(rounds >= 10, "p goes after {rounds} rounds");
}
