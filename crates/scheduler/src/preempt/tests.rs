use serde_json::{Value, json};

use super::*;

fn pod(name: &str, priority: i32, cpu: &str, change: Value) -> Arc<PodInfo> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": name}},
        "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    for (path, value) in change.as_object().into_iter().flatten() {
        let (part, field) = path.split_once('.').unwrap();
        pod[part][field] = value.clone();
    }
    Arc::new(PodInfo::new(&testkit::object::<client::PodView>(pod)))
}

fn view(nodes: &[(&str, u32)]) -> ClusterView {
    let mut view = ClusterView::new();
    nodes.iter().for_each(|(name, cpu)| view.set_node(&testkit::node(name, *cpu, 8, 10)));
    view
}

/// The node, and who must leave it.
fn outcome(pod: &PodInfo, view: &mut ClusterView, budgets: &[&Budget]) -> String {
    let terms = Terms { budgets, may_preempt: true, bargains: false };
    match decide(pod, view, &terms, &mut |_| {}) {
        Decision::Node(node) => node.to_string(),
        Decision::Preempt { node, victims, .. } => {
            let names: Vec<&str> = victims.iter().map(|v| v.key.name()).collect();
            format!("{node} without {}", names.join(", "))
        }
        Decision::Bargain { .. } => unreachable!("there are no extenders"),
        Decision::Nowhere { why, .. } => why.to_string(),
    }
}

fn budget(app: &str, allowed: i32) -> Budget {
    let budget = json!({"metadata": {"name": app, "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"app": app}}}, "status": {"disruptionsAllowed": allowed,
            "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    Budget::new(&testkit::object(budget)).unwrap()
}

#[test]
fn the_least_important_leave_and_no_more_than_needed() {
    let mut view = view(&[("n1", 4)]);
    for (name, priority) in [("low", 1), ("middle", 5), ("lowest", 0)] {
        view.add_pod("n1", &pod(name, priority, "1", json!({})));
    }
    assert_eq!(outcome(&pod("p", 9, "1", json!({})), &mut view, &[]), "n1");
    assert_eq!(outcome(&pod("p", 9, "2", json!({})), &mut view, &[]), "n1 without lowest");
    assert_eq!(outcome(&pod("p", 9, "3", json!({})), &mut view, &[]), "n1 without low, lowest");
    assert_eq!(outcome(&pod("p", 5, "3", json!({})), &mut view, &[]), "n1 without low, lowest");
    let kept = budget("lowest", 0);
    assert_eq!(outcome(&pod("p", 9, "2", json!({})), &mut view, &[&kept]), "n1 without low");
    let spare = budget("lowest", 1);
    assert_eq!(outcome(&pod("p", 9, "2", json!({})), &mut view, &[&spare]), "n1 without lowest");
    let both = [&kept, &budget("low", 0), &budget("middle", 0)];
    assert_eq!(
        outcome(&pod("p", 9, "2", json!({})), &mut view, &both),
        "n1 without lowest",
        "not at any price"
    );
}

#[test]
fn the_node_where_it_hurts_least() {
    let at = |minute: u32| json!({"status.startTime": format!("2026-01-01T00:{minute:02}:00Z")});
    let mut view = view(&[("n1", 2), ("n2", 2), ("n3", 2)]);
    view.add_pod("n1", &pod("a", 1, "2", at(1)));
    view.add_pod("n2", &pod("b", 1, "2", at(9)));
    view.add_pod("n3", &pod("c", 1, "1", at(9)));
    view.add_pod("n3", &pod("d", 1, "1", at(9)));
    let new = pod("p", 9, "2", json!({}));
    assert_eq!(outcome(&new, &mut view, &[]), "n2 without b", "it has run for the shortest time");
    assert_eq!(outcome(&new, &mut view, &[&budget("b", 0)]), "n1 without a");
    view.add_pod("n1", &pod("a", 0, "2", json!({"metadata.labels": {"other": "x"}})));
    assert_eq!(outcome(&new, &mut view, &[]), "n1 without a", "it matters least");
}

#[test]
fn the_search_goes_on_while_all_would_break_budgets() {
    let mut view = view(&[("n1", 2), ("n2", 2), ("n3", 2)]);
    for (node, name) in [("n1", "a"), ("n2", "b"), ("n3", "c")] {
        view.add_pod(node, &pod(name, 1, "2", json!({})));
    }
    let args = json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 1});
    let file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "profiles": [{"pluginConfig": [{"name": "DefaultPreemption", "args": args}]}]});
    let settings = crate::Settings::read(&file).unwrap();
    let new = PodInfo::clone(&pod("p", 9, "2", json!({}))).placed_by(&settings.profiles[0]);
    let [a, b] = [&budget("a", 0), &budget("b", 0)];
    assert_eq!(outcome(&new, &mut view, &[a, b]), "n3 without c");
    assert_eq!(outcome(&new, &mut view, &[a]), "n2 without b");
    assert_eq!(outcome(&new, &mut view, &[]), "n1 without a", "one is enough");
}

#[test]
fn when_nobody_is_to_leave() {
    let mut view = view(&[("n1", 2), ("n2", 1)]);
    view.add_pod("n1", &pod("a", 5, "2", json!({})));
    let said = |preemption: &str| {
        format!(
            "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: {preemption}"
        )
    };
    assert_eq!(
        outcome(&pod("p", 5, "2", json!({})), &mut view, &[]),
        said(
            "0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful \
             for scheduling."
        )
    );
    let never = pod("p", 9, "2", json!({"spec.preemptionPolicy": "Never"}));
    assert_eq!(outcome(&never, &mut view, &[]), said("not eligible due to preemptionPolicy=Never."));
    let leaving = |reason: &str| {
        json!({"metadata.deletionTimestamp": "2026-01-01T00:00:00Z",
            "status.conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]})
    };
    let waits = pod("p", 9, "2", json!({"status.nominatedNodeName": "n1"}));
    view.add_pod("n1", &pod("a", 5, "2", leaving("EvictionByEvictionAPI")));
    assert!(!outcome(&waits, &mut view, &[]).contains("terminating"), "nobody made room for it");
    view.add_pod("n1", &pod("a", 5, "2", leaving("PreemptionByScheduler")));
    assert_eq!(
        outcome(&waits, &mut view, &[]),
        said("not eligible due to a terminating pod on the nominated node.")
    );
}

#[test]
fn a_promised_node_is_left_to_whom_it_is_promised() {
    let mut view = view(&[("n1", 2)]);
    let promised = pod("promised", 5, "2", json!({"status.nominatedNodeName": "n1"}));
    view.promise("n1", &promised);
    assert!(outcome(&pod("p", 5, "1", json!({})), &mut view, &[]).contains("1 Insufficient cpu"));
    assert_eq!(outcome(&pod("p", 6, "1", json!({})), &mut view, &[]), "n1", "it matters more");
    assert_eq!(outcome(&promised, &mut view, &[]), "n1");
    view.withdraw("promised");
    assert_eq!(outcome(&pod("p", 5, "1", json!({})), &mut view, &[]), "n1");
}

#[test]
fn others_leave_for_the_sake_of_spread_and_distance() {
    let mut view = view(&[("n1", 4)]);
    let apart = |app: &str| {
        json!({"spec.affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}]}}})
    };
    view.add_pod("n1", &pod("a", 1, "1", json!({})));
    view.add_pod("n1", &pod("b", 1, "1", apart("p")));
    assert_eq!(outcome(&pod("p", 9, "1", json!({})), &mut view, &[]), "n1 without b");
    assert_eq!(outcome(&pod("q", 9, "1", apart("a")), &mut view, &[]), "n1 without a");
    let near = json!({"spec.affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "none"}}}]}}});
    let why = outcome(&pod("q", 9, "1", near), &mut view, &[]);
    assert_eq!(
        why,
        "0/1 nodes are available: 1 node(s) didn't match pod affinity rules. no new claims to deallocate, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
}
