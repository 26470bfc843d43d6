//! Which nodes a pod wants, by their labels and names.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use types::Requirement;

/// One alternative of a node affinity: all of its conditions must hold.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) labels: Vec<Requirement>,
    pub(crate) fields: Vec<Requirement>,
}

impl Term {
    /// Whether all conditions hold for a node. Without conditions, none is meant.
    pub(crate) fn holds<'a>(&'a self, label: &impl Fn(&str) -> Option<&'a str>, name: &'a str) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(name);
        !(self.labels.is_empty() && self.fields.is_empty())
            && self.labels.iter().all(|r| r.matches(label))
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

/// The nodes that are in question at all, if the terms name them
/// (kubernetes/kubernetes, `pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go`, `PreFilter`).
pub(super) fn pinned(required: Option<&[Term]>) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for term in required? {
        all.extend_from_slice(term.names()?);
    }
    all.sort();
    all.dedup();
    Some(all)
}

pub(super) fn term(term: &NodeSelectorTerm) -> Term {
    let all =
        |list: Option<&Vec<NodeSelectorRequirement>>| list.into_iter().flatten().map(requirement).collect();
    Term { labels: all(term.match_expressions.as_ref()), fields: all(term.match_fields.as_ref()) }
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
