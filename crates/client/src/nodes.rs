//! Which nodes a pod may run on, as far as node selectors, node affinity and taints say it: the scheduler asks, and so
//! do controllers that count the nodes that fit.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, NodeSelectorRequirement, NodeSelectorTerm, Toleration};
use types::Requirement;

use crate::meta::Labels;

/// One alternative of a node affinity: all of its conditions must hold (kubernetes/kubernetes,
/// `component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl NodeTerm {
    /// Reads a term.
    pub fn of(term: &NodeSelectorTerm) -> Self {
        let all = |list: Option<&Vec<NodeSelectorRequirement>>| {
            list.into_iter().flatten().map(requirement).collect()
        };
        Self { labels: all(term.match_expressions.as_ref()), fields: all(term.match_fields.as_ref()) }
    }

    /// Whether the term holds for the node of this name with these labels. One without conditions never does.
    pub fn holds(&self, name: &str, labels: &Labels) -> bool {
        let label = |key: &str| labels.get(key).map(String::as_str);
        let field = |key: &str| (key == "metadata.name").then_some(name);
        !(self.labels.is_empty() && self.fields.is_empty())
            && self.labels.iter().all(|r| r.matches(&label))
            && self.fields.iter().all(|r| r.matches(&field))
    }

    /// The names of nodes that the term is limited to.
    fn names(&self) -> Option<&[String]> {
        self.fields.iter().find_map(|r| match r {
            Requirement::In(key, names) if key == "metadata.name" => Some(names.as_slice()),
            _ => None,
        })
    }
}

fn requirement(r: &NodeSelectorRequirement) -> Requirement {
    let (key, values) = (r.key.clone(), r.values.clone().unwrap_or_default());
    let bound = || values.first().and_then(|v| v.parse().ok());
    match r.operator.as_str() {
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::NotExists(key),
        // A bound that is no number admits nothing.
        "Gt" => Requirement::Gt(key, bound().unwrap_or(i64::MAX)),
        "Lt" => Requirement::Lt(key, bound().unwrap_or(i64::MIN)),
        _ => Requirement::In(key, values),
    }
}

/// What a node must be for a pod to run there: its node selector and the affinity that is required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNeeds {
    selector: Vec<Requirement>,
    /// Any one must hold.
    terms: Option<Vec<NodeTerm>>,
}

impl NodeNeeds {
    /// Reads what a pod's specification says.
    pub fn of(selector: Option<&BTreeMap<String, String>>, affinity: Option<&Affinity>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement::In(key.clone(), vec![value.clone()]);
        let required = affinity
            .and_then(|a| a.node_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: selector.into_iter().flatten().map(equals).collect(),
            terms: required.map(|r| r.node_selector_terms.iter().map(NodeTerm::of).collect()),
        }
    }

    /// The same, and this label with this value besides.
    pub fn and_label(&self, key: &str, value: &str) -> Self {
        let mut all = self.clone();
        all.selector.push(Requirement::In(key.to_owned(), vec![value.to_owned()]));
        all
    }

    /// Whether nothing is said, so that every node will do.
    pub fn is_none(&self) -> bool {
        self.selector.is_empty() && self.terms.is_none()
    }

    /// The nodes that are in question at all, if every term names some (kubernetes/kubernetes,
    /// `pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go`, `PreFilter`).
    pub fn names(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for term in self.terms.as_ref()? {
            all.extend_from_slice(term.names()?);
        }
        all.sort();
        all.dedup();
        Some(all)
    }

    /// Whether the node of this name with these labels will do.
    pub fn admit(&self, name: &str, labels: &Labels) -> bool {
        let label = |key: &str| labels.get(key).map(String::as_str);
        self.selector.iter().all(|r| r.matches(&label))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.holds(name, labels)))
    }
}

/// Whether a toleration is about this taint (kubernetes/kubernetes, `api/core/v1/toleration.go`, `ToleratesTaint`).
pub fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let is = |wanted: Option<&str>, is: &str| wanted.is_none_or(|w| w.is_empty() || w == is);
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let compare = |holds: fn(i64, i64) -> bool| {
        let both = value.parse().ok().zip(wanted.parse().ok());
        both.is_some_and(|(value, bound)| holds(value, bound))
    };
    is(toleration.effect.as_deref(), effect)
        && is(toleration.key.as_deref(), key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => wanted == value,
            Some("Gt") => compare(|value, bound| value > bound),
            Some("Lt") => compare(|value, bound| value < bound),
            Some(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations() {
        for (toleration, want) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "k", "value": "7"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "8"}), false),
            (json!({"key": "k", "operator": "Gt", "value": "6"}), true),
            (json!({"key": "k", "operator": "Lt", "value": "6"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            let read: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&read, "k", "7", "NoSchedule"), want, "{toleration}");
        }
    }

    #[test]
    fn selectors_and_one_of_the_terms_must_hold() {
        let affinity: Affinity = serde_json::from_value(json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]},
            {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["3"]}]},
            {},
        ]}}}))
        .unwrap();
        let selector = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let needs = NodeNeeds::of(Some(&selector), Some(&affinity));
        let labels = |cores: &str, disk: &str| {
            BTreeMap::from([("cores".to_owned(), cores.to_owned()), ("disk".to_owned(), disk.to_owned())])
        };
        assert!(needs.admit("a", &labels("1", "ssd")) && needs.admit("b", &labels("4", "ssd")));
        assert!(!needs.admit("b", &labels("3", "ssd")) && !needs.admit("a", &labels("4", "hdd")));
        assert!(NodeNeeds::default().admit("a", &BTreeMap::new()) && NodeNeeds::default().is_none());
        assert_eq!(needs.names(), None, "one of the terms names no node");
    }
}
