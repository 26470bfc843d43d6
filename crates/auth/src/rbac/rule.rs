use std::fmt::Write;

use serde_json::{Value, json};

use crate::attributes::Attributes;

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    /// A rule out of a role's JSON.
    pub fn read(value: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            let list = value.get(field).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            paths: texts("nonResourceURLs"),
        }
    }

    /// The rules of a role's JSON.
    pub fn read_all(role: &Value) -> Vec<Self> {
        role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Self::read).collect()
    }

    /// As a role's JSON has it.
    pub fn to_json(&self) -> Value {
        let mut value = json!({"verbs": self.verbs});
        for (field, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                value[field] = json!(list);
            }
        }
        value
    }

    /// Everything on every resource.
    pub fn every_resource() -> Self {
        let all = || vec!["*".to_owned()];
        Self { verbs: all(), groups: all(), resources: all(), ..Self::default() }
    }

    /// Everything on every path.
    pub fn every_path() -> Self {
        Self { verbs: vec!["*".into()], paths: vec!["*".into()], ..Self::default() }
    }

    /// Whether the rule allows it (kubernetes/kubernetes, `plugin/pkg/auth/authorizer/rbac/rbac.go`, `RuleAllows`).
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !any(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource() {
            return self.paths.iter().any(|p| path_matches(p, a.path));
        }
        any(&self.groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| n == a.name))
    }

    /// As refusals show it (kubernetes/kubernetes, `pkg/apis/rbac/v1/helpers.go`, `CompactString`).
    pub fn compact(&self) -> String {
        let mut out = String::from("{");
        for (name, list) in [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                let comma = if out.len() > 1 { ", " } else { "" };
                let _ = write!(out, "{comma}{name}:{}", quoted(list));
            }
        }
        out.push('}');
        out
    }
}

/// A list as Go's `%q` shows it.
pub(crate) fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|i| format!("{i:?}")).collect();
    format!("[{}]", items.join(" "))
}

/// `*`, the resource, or the resource with its subresource (`*/scale` is any resource's).
pub(super) fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        None => rule == "*" || (subresource.is_empty() && rule == resource),
        Some((parent, sub)) => {
            sub == subresource && !subresource.is_empty() && (parent == "*" || parent == resource)
        }
    }
}

/// `*`, the path, or its beginning before a `*`.
pub(super) fn path_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|front| path.starts_with(front))
}
