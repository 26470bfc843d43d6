use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::preempt::{Decision, Terms, decide};

fn node(name: &str, cpu: u32, change: Value) -> Node {
    let mut node = serde_json::to_value(testkit::node(name, cpu, 8, 10)).unwrap();
    merge(&mut node, change);
    testkit::object(node)
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            change.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
        }
        (into, change) => *into = change,
    }
}

fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    let mut pod =
        json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"containers": []}});
    merge(&mut pod["spec"], spec);
    Arc::new(PodInfo::new(&testkit::object::<client::PodView>(pod)))
}

fn asks(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]})
}

fn view(nodes: Vec<Node>) -> ClusterView {
    let mut view = ClusterView::new();
    nodes.iter().for_each(|node| view.set_node(node));
    view
}

fn placed(pod: &PodInfo, view: &mut ClusterView) -> String {
    let terms = Terms { budgets: &[], may_preempt: true, bargains: false };
    match decide(pod, view, &terms, &mut |_| {}) {
        Decision::Node(node) => node.to_string(),
        Decision::Preempt { node, .. } => format!("{node}, when others have left"),
        Decision::Bargain { .. } => unreachable!("there are no extenders"),
        Decision::Nowhere { why, .. } => why.to_string(),
    }
}

#[test]
fn reasons_are_worded_as_upstream() {
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let mut view = view(vec![
        node("small", 1, json!({})),
        node("full", 4, json!({})),
        node("tainted", 8, taint),
        node("cordoned", 8, json!({"spec": {"unschedulable": true}})),
    ]);
    view.add_pod("full", &pod("other", asks("3")));
    assert_eq!(
        placed(&pod("p", asks("2")), &mut view),
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient \
         cpu. no new claims to deallocate, preemption: 0/4 nodes are available: 1 No preemption victims found for \
         incoming pod, 3 Preemption is not helpful for scheduling."
    );
    assert_eq!(placed(&pod("p", json!({})), &mut ClusterView::new()), "no nodes available to schedule pods");
}

#[test]
fn pods_go_where_most_is_free_and_where_they_want() {
    let mut view = view(vec![
        node("a", 4, json!({"metadata": {"labels": {"zone": "x"}}})),
        node("b", 4, json!({"metadata": {"labels": {"zone": "y"}}})),
    ]);
    assert_eq!(placed(&pod("p", asks("1")), &mut view), "a", "the first of equals");
    view.add_pod("a", &pod("1", asks("1")));
    assert_eq!(placed(&pod("p", asks("1")), &mut view), "b");
    assert_eq!(placed(&pod("p", json!({"nodeSelector": {"zone": "x"}})), &mut view), "a");
    let term =
        |value: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [value]}]});
    let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    assert_eq!(placed(&pod("p", affinity(json!([term("none"), term("x")]))), &mut view), "a");
    assert!(
        placed(&pod("p", affinity(json!([{}]))), &mut view)
            .contains("2 node(s) didn't match Pod's node affinity")
    );
    let by_name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]);
    assert_eq!(placed(&pod("p", affinity(by_name)), &mut view), "a");
    let prefers = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 10, "preference": term("x")}]}}});
    assert_eq!(placed(&pod("p", prefers), &mut view), "a");
}

#[test]
fn ports_taints_and_counts() {
    let avoid = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let mut view = view(vec![node("a", 9, avoid), node("b", 2, json!({}))]);
    let port = |ip: &str| {
        let ports = json!([{"containerPort": 80, "hostPort": 80, "hostIP": ip}]);
        json!({"containers": [{"name": "c", "ports": ports}]})
    };
    assert_eq!(placed(&pod("p", json!({})), &mut view), "b", "a would rather not");
    view.add_pod("b", &pod("1", port("10.0.0.1")));
    assert_eq!(placed(&pod("p", port("")), &mut view), "a");
    assert_eq!(placed(&pod("p", port("10.0.0.2")), &mut view), "b");
    for n in 0..9 {
        view.add_pod("b", &pod(&format!("x{n}"), json!({})));
    }
    view.remove_node("a");
    assert!(placed(&pod("p", json!({})), &mut view).starts_with("0/1 nodes are available: 1 Too many pods."));
    view.remove_pod("x0");
    assert_eq!(placed(&pod("p", json!({})), &mut view), "b");
    let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"x.io/gpu": "1"}}}]});
    assert!(placed(&pod("p", gpu.clone()), &mut view).contains("1 Insufficient x.io/gpu"));
    view.set_node(&node("b", 2, json!({"status": {"allocatable": {"x.io/gpu": "1"}}})));
    assert_eq!(placed(&pod("p", gpu), &mut view), "b");
}

#[test]
fn images_that_are_there_count_more_the_more_nodes_have_them() {
    let image = |name: &str, megabytes: u64| json!({"names": [name], "sizeBytes": megabytes << 20});
    let images = |list: Value| json!({"status": {"images": list}});
    let mut view = view(vec![
        node("a", 4, json!({})),
        node("b", 4, images(json!([image("app:v1", 700)]))),
        node("c", 4, images(json!([image("app:v1", 700), image("base:latest", 500)]))),
    ]);
    let of = |names: &[&str]| {
        let container = |name: &&str| json!({"name": "c", "image": name});
        pod("p", json!({"containers": names.iter().map(container).collect::<Vec<_>>()}))
    };
    assert_eq!(placed(&of(&["app:v2"]), &mut view), "a");
    assert_eq!(placed(&of(&["app:v1"]), &mut view), "b");
    assert_eq!(placed(&of(&["base"]), &mut view), "c", "without a tag it is the latest");
    view.remove_node("a");
    view.set_node(&node("b", 4, json!({})));
    assert_eq!(placed(&of(&["app:v1"]), &mut view), "c");
}

proptest! {
    /// Whatever comes and goes, in whatever order, no node is ever overfull, and the books are right at the end.
    #[test]
    fn the_books_are_right(steps in proptest::collection::vec((0..6u8, 0..5usize, 0..20usize, 1..9u32), 1..200)) {
        let mut view = ClusterView::new();
        let mut placed: std::collections::HashMap<String, (Arc<str>, i64)> = Default::default();
        for (what, n, p, cpu) in steps {
            let (name, uid) = (format!("n{n}"), format!("p{p}"));
            match what {
                0 => view.set_node(&node(&name, 8, json!({}))),
                1 => {
                    view.remove_node(&name);
                    placed.retain(|uid, (node, _)| {
                        let stays = **node != *name;
                        if !stays {
                            view.remove_pod(uid);
                        }
                        stays
                    });
                }
                2 | 3 => {
                    let pod = pod(&uid, asks(&cpu.to_string()));
                    if !placed.contains_key(&uid) && let Ok(node) = place(&pod, &mut view) {
                        view.add_pod(&node, &pod);
                        placed.insert(uid, (node, i64::from(cpu) * 1000));
                    }
                }
                _ => {
                    view.remove_pod(&uid);
                    placed.remove(&uid);
                }
            }
            for row in 0..view.len() {
                let on = placed.values().filter(|(node, _)| *node == view.names[row]);
                let sum: i64 = on.map(|(_, cpu)| cpu).sum();
                prop_assert_eq!(view.cpu.taken[row], sum);
                prop_assert!(sum <= 8000);
            }
        }
    }
}
