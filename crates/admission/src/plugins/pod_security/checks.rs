//! What the checks share.

use std::collections::BTreeSet;

use serde_json::Value;
use types::at;

use super::super::common::{containers, text};
use super::Standard;

/// One thing that a pod does and may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) detail: String,
}

impl Fault {
    pub(super) fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into() }
    }
}

/// A pod that is looked at.
pub(super) struct Pod<'a> {
    pub(super) standard: Standard,
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
}

impl<'a> Pod<'a> {
    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> {
        containers(self.spec)
    }

    /// The names of the containers that a condition is true of.
    pub(super) fn those(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| bad(c)).map(|c| text(c, &["name"])).collect()
    }

    pub(super) fn is_windows(&self) -> bool {
        self.standard.since(25) && text(self.spec, &["os", "name"]) == "windows"
    }

    /// Whether users inside the pod are not those of the node.
    pub(super) fn own_users(&self) -> bool {
        self.standard.since(35) && self.spec["hostUsers"] == false
    }

    /// Who sets something bad: the pod itself, or containers (`pod and containers "a", "b"`).
    pub(super) fn setters(&self, bad: impl Fn(&Value) -> bool) -> Option<String> {
        let own = at(self.spec, &["securityContext"]).is_some_and(&bad);
        let those = self.those(|c| at(c, &["securityContext"]).is_some_and(&bad));
        let mut parts = Vec::new();
        if own {
            parts.push("pod".to_owned());
        }
        if !those.is_empty() {
            parts.push(named(&those));
        }
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    /// The values that a field of security contexts has, of the pod and its containers.
    pub(super) fn values(&self, path: &[&str], bad: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let contexts = std::iter::once(self.spec).chain(self.containers());
        let found = contexts.filter_map(|c| at(c, &["securityContext"]).and_then(|s| at(s, path)));
        found.filter_map(Value::as_str).filter(|v| bad(v)).map(str::to_owned).collect()
    }
}

pub(super) fn plural<'w>(one: &'w str, many: &'w str, count: usize) -> &'w str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
pub(super) fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let shown: Vec<String> = names.into_iter().map(|n| format!("{:?}", n.as_ref())).collect();
    shown.join(", ")
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn named(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}
