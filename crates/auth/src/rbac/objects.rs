use std::sync::Arc;

use serde_json::Value;
use types::LabelSelector;

use super::rule::Rule;

fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// A Role or ClusterRole, as far as decisions need it.
#[derive(Clone, Debug)]
pub struct RoleObject {
    pub(super) name: String,
    /// Empty for a ClusterRole.
    pub(super) namespace: String,
    pub(super) rules: Arc<[Rule]>,
    labels: Value,
    aggregates: Vec<LabelSelector>,
}

impl RoleObject {
    /// Reads a role.
    pub fn read(role: &Value) -> Self {
        let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten();
        Self {
            name: meta(role, "name").to_owned(),
            namespace: meta(role, "namespace").to_owned(),
            rules: Rule::read_all(role).into(),
            labels: role["metadata"]["labels"].clone(),
            aggregates: selectors.filter_map(|s| LabelSelector::from_object(Some(s)).ok()).collect(),
        }
    }

    /// Whether its rules are those of others.
    pub(super) fn is_aggregate(&self) -> bool {
        !self.aggregates.is_empty()
    }

    /// Whether it takes over the rules of `other`.
    pub(super) fn takes(&self, other: &Self) -> bool {
        other.name != self.name && self.aggregates.iter().any(|s| s.matches_labels(Some(&other.labels)))
    }
}

/// Somebody a role is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

/// A RoleBinding or ClusterRoleBinding, as far as decisions need it.
#[derive(Clone, Debug)]
pub struct BindingObject {
    pub(super) name: String,
    /// Empty for a ClusterRoleBinding.
    pub(super) namespace: String,
    pub(super) role_kind: String,
    pub(super) role: String,
    pub(super) subjects: Vec<Subject>,
}

impl BindingObject {
    /// Reads a binding.
    pub fn read(binding: &Value) -> Self {
        let namespace = meta(binding, "namespace");
        let subjects = binding["subjects"].as_array().into_iter().flatten().map(|s| Subject {
            kind: text(s, "kind").to_owned(),
            name: text(s, "name").to_owned(),
            namespace: s["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or(namespace).to_owned(),
        });
        Self {
            name: meta(binding, "name").to_owned(),
            namespace: namespace.to_owned(),
            role_kind: text(&binding["roleRef"], "kind").to_owned(),
            role: text(&binding["roleRef"], "name").to_owned(),
            subjects: subjects.collect(),
        }
    }
}
