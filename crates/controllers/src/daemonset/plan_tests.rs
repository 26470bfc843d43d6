use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::common::history::REVISION;

const NOW: &str = "2026-01-01T01:00:00Z";

fn set(rolling: Value) -> DaemonSet {
    testkit::object(json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "template": {},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}}))
}

/// A pod such as `new ready a`: its revision, state and node.
fn pod(name: &str, what: &str) -> Arc<PodView> {
    let words: Vec<&str> = what.split(' ').collect();
    let [hash, is, node] = words[..] else { panic!("{what}") };
    let phase = match is {
        "failed" => "Failed",
        "pending" => "Pending",
        _ => "Running",
    };
    let ready = if matches!(is, "ready" | "going") { "True" } else { "False" };
    Arc::new(testkit::object(json!({
        "metadata": {"name": name, "uid": name, "labels": {REVISION: hash},
            "deletionTimestamp": (is == "going").then_some(NOW)},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    })))
}

fn pods(all: &[&str]) -> Vec<Arc<PodView>> {
    all.iter().enumerate().map(|(n, what)| pod(&format!("p{n}"), what)).collect()
}

fn told(plan: &Plan) -> Vec<String> {
    let name = |pod: &Arc<PodView>| pod.metadata.name.clone().unwrap();
    let created = plan.create.iter().map(|node| format!("+{node}"));
    let deleted = plan.delete.iter().map(|pod| format!("-{}", name(pod)));
    let ended = plan.ended.iter().map(|(_, pod)| format!("ended {}", name(pod)));
    created.chain(deleted).chain(ended).collect()
}

fn scene<'a>(set: &'a DaemonSet, nodes: &[(&'static str, Verdict)], pods: &'a [Arc<PodView>]) -> Scene<'a> {
    Scene::new(set, "new", nodes.iter().copied().collect(), pods, NOW.parse().unwrap())
}

const ABC: [(&str, Verdict); 3] = [("a", Verdict::Run), ("b", Verdict::Run), ("c", Verdict::Run)];

#[test]
fn each_node_has_the_pod_that_it_shall_have() {
    use Verdict::*;
    let set = set(json!({"maxUnavailable": 1}));
    let nodes = [("a", Run), ("b", Run), ("c", Keep), ("d", Avoid), ("e", Keep)];
    let pods =
        pods(&["new ready b", "new ready b", "new ready c", "new ready d", "new failed b", "old going d"]);
    let plan = scene(&set, &nodes, &pods).manage(false);
    assert_eq!(told(&plan), ["+a", "-p1", "-p3", "ended p4"]);
    // Until a pod is gone, no other comes.
    let going = self::pods(&["new going a"]);
    assert!(told(&scene(&set, &[("a", Run)], &going).manage(false)).is_empty());
}

#[test]
fn pods_for_nodes_that_are_gone_go() {
    let set = set(json!({"maxUnavailable": 1}));
    let unbound: PodView =
        testkit::object(json!({"metadata": {"name": "p"}, "spec": {"affinity": {"nodeAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["x"]}]}]}}}}}));
    let bound = pod("q", "new ready y");
    assert_eq!(told(&scene(&set, &[], &[Arc::new(unbound), bound]).manage(false)), ["-p"]);
}

#[test]
fn as_many_are_replaced_as_may_be_missing() {
    let one = set(json!({"maxUnavailable": 1, "maxSurge": 0}));
    let old = pods(&["old ready a", "old ready b", "old ready c"]);
    assert_eq!(told(&scene(&one, &ABC, &old).roll()), ["-p0"]);
    let two = set(json!({"maxUnavailable": "50%", "maxSurge": 0}));
    assert_eq!(told(&scene(&two, &ABC, &old).roll()), ["-p0", "-p1"]);
    let under_way = pods(&["new pending a", "old ready b", "old ready c"]);
    assert!(told(&scene(&one, &ABC, &under_way).roll()).is_empty());
    let broken = pods(&["old unready a", "old ready b", "old unready c"]);
    assert_eq!(told(&scene(&one, &ABC, &broken).roll()), ["-p0", "-p2"]);
}

#[test]
fn with_surge_the_successor_comes_first() {
    let set = set(json!({"maxUnavailable": 0, "maxSurge": 1}));
    let old = pods(&["old ready a", "old ready b", "old ready c"]);
    assert_eq!(told(&scene(&set, &ABC, &old).roll()), ["+a"]);
    let both = pods(&["old ready a", "new pending a", "old ready b", "old ready c"]);
    assert!(told(&scene(&set, &ABC, &both).roll()).is_empty());
    assert!(told(&scene(&set, &ABC, &both).manage(true)).is_empty());
    let over = pods(&["old ready a", "new ready a", "old ready b", "old ready c"]);
    assert_eq!(told(&scene(&set, &ABC, &over).manage(true)), ["-p0"]);
    let unready = pods(&["old unready a", "new pending a"]);
    assert_eq!(told(&scene(&set, &ABC[..1], &unready).manage(true)), ["-p0"]);
    assert_eq!(told(&scene(&set, &ABC[..1], &pods(&["new failed a"])).manage(true)), ["+a", "ended p0"]);
}

proptest! {
    #[test]
    fn never_more_are_missing_than_may_be(
        states in prop::collection::vec((any::<bool>(), 0..4_usize), 0..9),
        max in 1..4_usize,
    ) {
        const NODES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let set = set(json!({"maxUnavailable": max, "maxSurge": 0}));
        let is = ["ready", "unready", "pending", "going"];
        let pods: Vec<_> = states.iter().zip(NODES).map(|((new, state), node)| {
            pod(node, &format!("{} {} {node}", if *new { "new" } else { "old" }, is[*state]))
        }).collect();
        let nodes: Vec<_> = NODES[..states.len()].iter().map(|node| (*node, Verdict::Run)).collect();
        let scene = scene(&set, &nodes, &pods);
        let serves = |pod: &Arc<PodView>| scene.is_available(pod) && !is_deleting(&pod.metadata);
        let missing = pods.iter().filter(|pod| !serves(pod)).count();
        let plan = scene.roll();
        let taken = plan.delete.iter().filter(|pod| serves(pod)).count();
        prop_assert!(taken == 0 || missing + taken <= max);
        prop_assert!(plan.delete.iter().all(|pod| !scene.is_new(pod) && !is_deleting(&pod.metadata)));
        prop_assert!(plan.create.is_empty());
        // There is always a way on.
        let old = pods.iter().any(|pod| !scene.is_new(pod) && !is_deleting(&pod.metadata));
        prop_assert!(!plan.delete.is_empty() || !old || missing >= max);
    }

    #[test]
    fn a_surge_leaves_no_node_without_a_pod(
        states in prop::collection::vec((0..4_usize, 0..4_usize), 0..6),
        max in 1..3_i32,
    ) {
        const NODES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let set = set(json!({"maxUnavailable": 0, "maxSurge": max}));
        let is = ["ready", "unready", "pending"];
        let mut pods = Vec::new();
        for ((old, new), node) in states.iter().zip(NODES) {
            pods.extend(is.get(*old).map(|is| pod(&format!("{node}-old"), &format!("old {is} {node}"))));
            pods.extend(is.get(*new).map(|is| pod(&format!("{node}-new"), &format!("new {is} {node}"))));
        }
        let nodes: Vec<_> = NODES[..states.len()].iter().map(|node| (*node, Verdict::Run)).collect();
        let scene = scene(&set, &nodes, &pods);
        for plan in [scene.manage(true), scene.roll()] {
            for gone in &plan.delete {
                let node = node_of(gone);
                prop_assert!(!scene.is_new(gone));
                prop_assert!(pods.iter().any(|pod| node_of(pod) == node && scene.is_new(pod)));
            }
            for node in &plan.create {
                prop_assert!(!pods.iter().any(|pod| node_of(pod) == Some(node) && scene.is_new(pod)));
            }
        }
    }
}
