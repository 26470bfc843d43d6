//! The rules written down once more, as plainly as can be and without any column, count or cache: whatever the scheduler
//! does fast is held against this.

mod choice;
mod filter;
mod gen_cluster;
mod score;
mod storage;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::PodView;
use k8s_openapi::api::core::v1::{Node, PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::prelude::*;

use crate::place::{Ask, place};
use crate::pod::PodInfo;
use crate::preempt::{Decision, Terms, decide};
use crate::score::scores;
use crate::view::ClusterView;

type Labels = BTreeMap<String, String>;

/// Nodes, pods with their nodes' names, and namespaces.
#[derive(Debug, Default)]
struct Model {
    nodes: Vec<Node>,
    placed: Vec<(String, PodView)>,
    namespaces: BTreeMap<String, Labels>,
    /// What the Services of the one namespace select.
    services: Vec<Labels>,
    storage: storage::Storage,
    /// What the scheduler's configuration says.
    choice: choice::Choice,
}

impl Model {
    fn view(&self) -> ClusterView {
        let mut view = ClusterView::new();
        self.storage.tell(&mut view);
        self.nodes.iter().for_each(|node| view.set_node(node));
        for (name, labels) in &self.namespaces {
            view.set_namespace(name, Some(labels.clone()));
        }
        for (n, selector) in self.services.iter().enumerate() {
            view.owners.set_service("a", &n.to_string(), Some(selector.clone()));
        }
        for (node, pod) in &self.placed {
            view.add_pod(node, &Arc::new(PodInfo::new(pod)));
        }
        view
    }

    /// A pod as this configuration has it placed.
    fn info(&self, pod: &PodView) -> PodInfo {
        PodInfo::new(pod).placed_by(&self.choice.profile())
    }

    fn pods_on<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a PodView> {
        self.placed.iter().filter(|(name, _)| *name == name_of(node)).map(|(_, pod)| pod)
    }
}

fn name_of(node: &Node) -> String {
    node.metadata.name.clone().unwrap()
}

fn labels_of(node: &Node) -> Labels {
    node.metadata.labels.clone().unwrap_or_default()
}

fn namespace_of(pod: &PodView) -> String {
    pod.metadata.namespace.clone().unwrap()
}

fn pod_labels(pod: &PodView) -> Labels {
    pod.labels.as_deref().cloned().unwrap_or_default()
}

fn cpu(list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>) -> i64 {
    let text = list.and_then(|l| l.get("cpu"));
    text.map_or(0, |q| q.0.parse::<types::Quantity>().unwrap().millis())
}

/// All containers' cores: the pods of the model have no others.
fn cpu_of(pod: &PodView) -> i64 {
    let containers = pod.spec.containers.iter();
    containers.map(|c| cpu(c.resources.as_ref().and_then(|r| r.requests.as_ref()))).sum()
}

fn cards(list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>) -> i64 {
    list.and_then(|l| l.get("x.io/card")).map_or(0, |q| q.0.parse::<types::Quantity>().unwrap().units())
}

fn cards_of(pod: &PodView) -> i64 {
    let containers = pod.spec.containers.iter();
    containers.map(|c| cards(c.resources.as_ref().and_then(|r| r.requests.as_ref()))).sum()
}

fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    let mut plain = selector.match_labels.iter().flatten();
    plain.all(|(key, value)| labels.get(key) == Some(value))
}

impl Model {
    /// Whether an affinity term of `owner` means `other`.
    fn means(&self, term: &PodAffinityTerm, owner: &PodView, other: &PodView) -> bool {
        let namespace = namespace_of(other);
        let listed = term.namespaces.clone().unwrap_or_default();
        let there = match (&term.namespace_selector, listed.is_empty()) {
            (None, true) => namespace == namespace_of(owner),
            (selector, _) => {
                let empty = Labels::new();
                let labels = self.namespaces.get(&namespace).unwrap_or(&empty);
                listed.contains(&namespace) || selects(selector.as_ref(), labels)
            }
        };
        let (mine, theirs) = (pod_labels(owner), pod_labels(other));
        let alike = |key: &String| mine.get(key).is_none_or(|value| theirs.get(key) == Some(value));
        let unlike = |key: &String| mine.get(key).is_none_or(|value| theirs.get(key) != Some(value));
        there
            && selects(term.label_selector.as_ref(), &theirs)
            && term.match_label_keys.iter().flatten().all(alike)
            && term.mismatch_label_keys.iter().flatten().all(unlike)
    }

    fn spreads(&self, constraint: &TopologySpreadConstraint, owner: &PodView, other: &PodView) -> bool {
        let (mine, theirs) = (pod_labels(owner), pod_labels(other));
        let alike = |key: &String| mine.get(key).is_none_or(|value| theirs.get(key) == Some(value));
        namespace_of(owner) == namespace_of(other)
            && selects(constraint.label_selector.as_ref(), &theirs)
            && constraint.match_label_keys.iter().flatten().all(alike)
    }
}

fn required_near(pod: &PodView) -> Vec<PodAffinityTerm> {
    let affinity = pod.spec.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()).unwrap_or_default()
}

fn required_apart(pod: &PodView) -> Vec<PodAffinityTerm> {
    let affinity = pod.spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()).unwrap_or_default()
}

/// Weights are below zero for what is to be kept away from.
fn preferred(pod: &PodView) -> Vec<(PodAffinityTerm, i64)> {
    let affinity = pod.spec.affinity.clone().unwrap_or_default();
    let near = affinity.pod_affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution);
    let apart =
        affinity.pod_anti_affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution);
    let near = near.into_iter().flatten().map(|t| (t.pod_affinity_term, i64::from(t.weight)));
    let apart = apart.into_iter().flatten().map(|t| (t.pod_affinity_term, -i64::from(t.weight)));
    near.chain(apart).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn filters_and_scores_are_the_models(model in gen_cluster::model(), pod in gen_cluster::pod("new")) {
        let mut view = model.view();
        let info = model.info(&pod);
        view.prepare(&info);
        let ask = Ask::new(&info, &view);
        let mut fitting = Vec::new();
        for (row, node) in model.nodes.iter().enumerate() {
            let mut reasons = Vec::new();
            if let Some(obstacle) = ask.obstacle(row) {
                obstacle.tell(&ask, row, &mut |reason| reasons.push(reason.to_string()));
            } else {
                fitting.push(row);
            }
            let why: Vec<String> = model.why_not(&pod, node).into_iter().map(str::to_owned).collect();
            prop_assert_eq!(reasons, why, "{}", name_of(node));
        }
        prop_assert_eq!(scores(&ask, &fitting), model.scores(&pod, &fitting), "{:?}", model.choice);
        let placed = place(&info, &mut view);
        prop_assert_eq!(placed.is_ok(), !fitting.is_empty());
    }

    /// What is counted as pods come and go is what is counted afresh.
    #[test]
    fn counts_that_are_kept_are_right(
        model in gen_cluster::model(),
        pods in proptest::collection::vec(gen_cluster::pod("x"), 1..6),
        steps in proptest::collection::vec((0..4u8, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..30),
    ) {
        let mut model = model;
        let mut view = model.view();
        // Every question is asked before anything happens.
        pods.iter().for_each(|pod| view.prepare(&model.info(pod)));
        for (n, (what, which, other)) in steps.into_iter().enumerate() {
            match what {
                0 | 1 => {
                    let node = name_of(which.get(&model.nodes));
                    let mut pod = other.get(&pods).clone();
                    pod.metadata.uid = Some(format!("s{n}"));
                    view.add_pod(&node, &Arc::new(PodInfo::new(&pod)));
                    model.placed.push((node, pod));
                }
                2 if !model.placed.is_empty() => {
                    let (_, pod) = model.placed.remove(which.index(model.placed.len()));
                    view.remove_pod(pod.metadata.uid.as_deref().unwrap());
                }
                _ if model.nodes.len() > 1 => {
                    // The last row takes the place of the one that goes.
                    let node = model.nodes.swap_remove(which.index(model.nodes.len()));
                    view.remove_node(&name_of(&node));
                    model.placed.retain(|(name, pod)| {
                        let stays = *name != name_of(&node);
                        if !stays {
                            view.remove_pod(pod.metadata.uid.as_deref().unwrap());
                        }
                        stays
                    });
                }
                _ => {}
            }
        }
        let mut fresh = model.view();
        for pod in &pods {
            let info = model.info(pod);
            view.prepare(&info);
            fresh.prepare(&info);
            let (kept, anew) = (Ask::new(&info, &view), Ask::new(&info, &fresh));
            let rows: Vec<usize> = (0..model.nodes.len()).collect();
            for row in &rows {
                prop_assert_eq!(&view.names[*row], &fresh.names[*row]);
                prop_assert_eq!(
                    kept.obstacle(*row).map(|o| format!("{o:?}")),
                    anew.obstacle(*row).map(|o| format!("{o:?}"))
                );
            }
            prop_assert_eq!(scores(&kept, &rows), scores(&anew, &rows));
        }
    }

    /// Who is evicted is needed to be, less important, and no more are than the model finds.
    #[test]
    fn preemption_evicts_no_more_than_it_must(model in gen_cluster::model(), pod in gen_cluster::pod("new")) {
        let mut view = model.view();
        let info = model.info(&pod);
        let terms = Terms { budgets: &[], may_preempt: true, bargains: false };
        let Decision::Preempt { node, victims, .. } = decide(&info, &mut view, &terms, &mut |_| {}) else {
            // Where nobody is to go, the model finds no node either where it would help.
            let helps = |node: &Node| model.why_not(&pod, node).is_empty() || model.reprieve(&pod, node).is_some();
            let nothing = !model.nodes.iter().any(helps);
            let placed = place(&info, &mut view).is_ok();
            prop_assert!(placed || nothing);
            return Ok(());
        };
        let chosen = model.nodes.iter().find(|n| name_of(n) == *node).unwrap();
        let evicted: Vec<String> = victims.iter().map(|v| v.uid.to_string()).collect();
        prop_assert!(victims.iter().all(|v| v.priority < info.priority));
        prop_assert_eq!(Some(evicted.clone()), model.reprieve(&pod, chosen));
        // No other node would have hurt less.
        let hurt = |uids: &[String]| {
            let of = |uid: &String| model.placed.iter().find(|(_, p)| p.metadata.uid.as_ref() == Some(uid)).unwrap();
            let priorities: Vec<i64> = uids.iter().map(|uid| i64::from(of(uid).1.spec.priority.unwrap())).collect();
            (priorities.iter().max().copied(), priorities.iter().map(|p| p + i64::from(i32::MAX) + 1).sum::<i64>())
        };
        for other in &model.nodes {
            if let Some(uids) = model.reprieve(&pod, other) {
                prop_assert!(hurt(&evicted) <= hurt(&uids), "{}", name_of(other));
            }
        }
    }
}
