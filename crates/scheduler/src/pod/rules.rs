//! What a pod has to say about other pods: affinity, anti-affinity, spread.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use client::{Labels, PodSpecView};
use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use types::Requirement;

/// Which pods are meant. Two that say the same are equal.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// All must hold.
    terms: Vec<PodSelector>,
    text: String,
}

#[derive(Debug)]
struct PodSelector {
    namespaces: Vec<String>,
    /// Namespaces with such labels, too.
    by_labels: Option<types::LabelSelector>,
    labels: types::LabelSelector,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Matcher {}

impl Hash for Matcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Matcher {
    /// Pods of one namespace with such labels.
    pub(crate) fn within(namespace: &str, labels: types::LabelSelector) -> Arc<Self> {
        let term = PodSelector { namespaces: vec![namespace.to_owned()], by_labels: None, labels };
        Arc::new(Self::all_of(vec![term]))
    }

    fn all_of(terms: Vec<PodSelector>) -> Self {
        let text = format!("{terms:?}");
        Self { terms, text }
    }

    /// Whether a pod is meant; `labels_of` knows the labels of namespaces.
    pub(crate) fn matches<'a>(
        &self,
        namespace: &str,
        labels: Option<&Labels>,
        labels_of: &impl Fn(&str) -> Option<&'a Labels>,
    ) -> bool {
        self.terms.iter().all(|term| {
            let there = term.namespaces.iter().any(|n| n == namespace)
                || term.by_labels.as_ref().is_some_and(|selector| {
                    let labels = labels_of(namespace);
                    selector.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
                });
            there && term.labels.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
        })
    }

    /// Whether the labels of namespaces play a part.
    pub(crate) fn asks_namespaces(&self) -> bool {
        self.terms.iter().any(|term| term.by_labels.is_some())
    }
}

/// Such pods, in this sort of place.
#[derive(Clone, Debug)]
pub(crate) struct PodTerm {
    pub(crate) matcher: Arc<Matcher>,
    pub(crate) topology: Arc<str>,
}

/// A topology spread constraint.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pub(crate) matcher: Arc<Matcher>,
    pub(crate) topology: Arc<str>,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: i64,
    /// Only nodes count that the pod's node affinity allows.
    pub(crate) honors_affinity: bool,
    /// Only nodes count whose taints the pod tolerates.
    pub(crate) honors_taints: bool,
}

/// All that a pod says about other pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Pods that all of the required terms mean, and the places where one must be.
    pub(crate) near: Option<(Arc<Matcher>, Vec<Arc<str>>)>,
    /// The same, one by one.
    pub(crate) near_terms: Vec<PodTerm>,
    pub(crate) apart: Vec<PodTerm>,
    /// The weight is below zero for those the pod would rather keep away from.
    pub(crate) preferred: Vec<(PodTerm, i64)>,
    /// `DoNotSchedule`.
    pub(crate) hard: Vec<Spread>,
    /// `ScheduleAnyway`.
    pub(crate) soft: Vec<Spread>,
}

impl Rules {
    pub(super) fn of(spec: &PodSpecView, namespace: &str, labels: Option<&Labels>) -> Self {
        let mut rules = Self::default();
        let affinity = spec.affinity.as_ref();
        if let Some(near) = affinity.and_then(|a| a.pod_affinity.as_ref()) {
            let required = near.required_during_scheduling_ignored_during_execution.iter().flatten();
            let required: Vec<&PodAffinityTerm> = required.collect();
            rules.near_terms = required.iter().map(|t| pod_term(t, namespace, labels)).collect();
            if !required.is_empty() {
                let all = required.iter().map(|t| selector(t, namespace, labels)).collect();
                let mut places: Vec<Arc<str>> =
                    required.iter().map(|t| t.topology_key.as_str().into()).collect();
                places.sort();
                places.dedup();
                rules.near = Some((Arc::new(Matcher::all_of(all)), places));
            }
            for term in near.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                let weight = i64::from(term.weight);
                rules.preferred.push((pod_term(&term.pod_affinity_term, namespace, labels), weight));
            }
        }
        if let Some(apart) = affinity.and_then(|a| a.pod_anti_affinity.as_ref()) {
            let required = apart.required_during_scheduling_ignored_during_execution.iter().flatten();
            rules.apart = required.map(|t| pod_term(t, namespace, labels)).collect();
            for term in apart.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                let weight = -i64::from(term.weight);
                rules.preferred.push((pod_term(&term.pod_affinity_term, namespace, labels), weight));
            }
        }
        for constraint in spec.topology_spread_constraints.iter().flatten() {
            let spread = spread(constraint, namespace, labels);
            match constraint.when_unsatisfiable.as_str() {
                "ScheduleAnyway" => rules.soft.push(spread),
                _ => rules.hard.push(spread),
            }
        }
        rules
    }

    /// Whether other pods have to look at what this one says.
    pub(crate) fn concerns_others(&self) -> bool {
        !(self.near_terms.is_empty() && self.apart.is_empty() && self.preferred.is_empty())
    }
}

fn pod_term(term: &PodAffinityTerm, namespace: &str, labels: Option<&Labels>) -> PodTerm {
    let matcher = Arc::new(Matcher::all_of(vec![selector(term, namespace, labels)]));
    PodTerm { matcher, topology: term.topology_key.as_str().into() }
}

/// Kubernetes/kubernetes, `pkg/scheduler/framework/types.go`, `newAffinityTerm`.
fn selector(term: &PodAffinityTerm, namespace: &str, labels: Option<&Labels>) -> PodSelector {
    let mut namespaces = term.namespaces.clone().unwrap_or_default();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.push(namespace.to_owned());
    }
    namespaces.sort();
    namespaces.dedup();
    let by_labels = term.namespace_selector.as_ref().map(label_selector);
    let mut selector =
        term.label_selector.as_ref().map_or_else(types::LabelSelector::nothing, label_selector);
    // The server has put these into the selector already, if it knows the fields.
    let keys = |keys: &Option<Vec<String>>| keys.clone().unwrap_or_default();
    let mine = |key: &String| Some((key.clone(), vec![labels?.get(key)?.clone()]));
    for (key, value) in keys(&term.match_label_keys).iter().filter_map(mine) {
        selector = and(selector, Requirement::In(key, value));
    }
    for (key, value) in keys(&term.mismatch_label_keys).iter().filter_map(mine) {
        selector = and(selector, Requirement::NotIn(key, value));
    }
    PodSelector { namespaces, by_labels, labels: selector }
}

/// Kubernetes/kubernetes, `pkg/scheduler/framework/plugins/podtopologyspread/common.go`,
/// `filterTopologySpreadConstraints`.
fn spread(constraint: &TopologySpreadConstraint, namespace: &str, labels: Option<&Labels>) -> Spread {
    let selector = constraint.label_selector.as_ref();
    let mut selector = selector.map_or_else(types::LabelSelector::nothing, label_selector);
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = labels.and_then(|l| l.get(key)) {
            selector = and(selector, Requirement::In(key.clone(), vec![value.clone()]));
        }
    }
    Spread {
        matcher: Matcher::within(namespace, selector),
        topology: constraint.topology_key.as_str().into(),
        max_skew: constraint.max_skew.into(),
        min_domains: constraint.min_domains.unwrap_or(1).into(),
        honors_affinity: constraint.node_affinity_policy.as_deref().is_none_or(|p| p == "Honor"),
        honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// One condition more; what selects nothing still does.
fn and(selector: types::LabelSelector, more: Requirement) -> types::LabelSelector {
    if selector == types::LabelSelector::nothing() || selector.requirements().contains(&more) {
        return selector;
    }
    let mut all = selector.requirements().to_vec();
    all.push(more);
    types::LabelSelector::of(all)
}

/// The server lets no selector in that cannot be understood; one that came in nevertheless selects nothing.
fn label_selector(selector: &LabelSelector) -> types::LabelSelector {
    client::selector(selector).unwrap_or_else(|_| types::LabelSelector::nothing())
}
