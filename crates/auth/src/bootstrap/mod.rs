//! The roles and bindings that every cluster starts with (kubernetes/kubernetes,
//! `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).

mod namespaced;
mod reconcile;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub use namespaced::{role_bindings, roles};
pub use reconcile::{BindingChange, reconcile_binding, reconcile_role};

use crate::rbac::Rule;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// A role of the policy files, and whom it is bound to.
struct Role {
    name: String,
    to: Option<&'static str>,
    from: Option<&'static str>,
    rules: Vec<Rule>,
    /// `None` without a binding.
    bound: Option<Vec<&'static str>>,
}

fn list(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for item in text.split(',') {
        match item {
            "read" => items.extend(READ.iter().map(|v| (*v).to_owned())),
            "write" => items.extend(WRITE.iter().map(|v| (*v).to_owned())),
            "rw" => items.extend(READ.iter().chain(WRITE).map(|v| (*v).to_owned())),
            "core" => items.push(String::new()),
            other => items.push(other.to_owned()),
        }
    }
    items.sort();
    items.dedup();
    items
}

fn parse(text: &'static str, prefix: &str) -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let words: Vec<&'static str> = line.split(' ').collect();
        if let ["role", name, options @ ..] = words.as_slice() {
            let option = |key: &str| options.iter().find_map(|o| o.strip_prefix(key));
            roles.push(Role {
                name: format!("{prefix}{name}"),
                to: option("to="),
                from: option("from="),
                rules: Vec::new(),
                bound: None,
            });
            continue;
        }
        let Some(role) = roles.last_mut() else { continue };
        match words.as_slice() {
            ["bind", who @ ..] => role.bound = Some(who.to_vec()),
            ["url", verbs, paths] => {
                role.rules.push(Rule { verbs: list(verbs), paths: list(paths), ..Rule::default() });
            }
            ["events"] => role.rules.push(Rule {
                verbs: list("create,update,patch"),
                groups: list("core,events.k8s.io"),
                resources: list("events"),
                ..Rule::default()
            }),
            [verbs, groups, resources, names @ ..] => role.rules.push(Rule {
                verbs: list(verbs),
                groups: list(groups),
                resources: list(resources),
                names: names.first().map(|n| list(n)).unwrap_or_default(),
                ..Rule::default()
            }),
            _ => {}
        }
    }
    roles
}

fn policy() -> impl Iterator<Item = Role> {
    let controllers = parse(include_str!("controllers.txt"), "system:controller:");
    parse(include_str!("roles.txt"), "").into_iter().chain(controllers)
}

fn metadata(name: &str, namespace: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn object(kind: &str, metadata: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata})
}

fn role_object(kind: &str, namespace: &str, role: &Role) -> Value {
    let mut value = object(kind, metadata(&role.name, namespace));
    let label = |to: &str| format!("rbac.authorization.k8s.io/aggregate-to-{to}");
    if let Some(to) = role.to {
        value["metadata"]["labels"][label(to)] = "true".into();
    }
    if let Some(from) = role.from {
        let mut labels = Map::new();
        labels.insert(label(from), "true".into());
        value["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
    }
    value["rules"] = role.rules.iter().map(Rule::to_json).collect();
    value
}

/// `group:x`, `user:x` or `account:namespace/x`.
fn subject(who: &str) -> Value {
    const GROUP: &str = "rbac.authorization.k8s.io";
    match who.split_once(':') {
        Some(("group", name)) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        Some(("account", name)) => {
            let (namespace, name) = name.split_once('/').unwrap_or(("kube-system", name));
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        _ => json!({"apiGroup": GROUP, "kind": "User", "name": who.trim_start_matches("user:")}),
    }
}

fn binding_object(
    kind: &str,
    namespace: &str,
    name: &str,
    role_kind: &str,
    role: &str,
    who: &[&str],
) -> Value {
    let mut value = object(kind, metadata(name, namespace));
    value["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role});
    if !who.is_empty() {
        value["subjects"] = who.iter().map(|w| subject(w)).collect();
    }
    value
}

/// The ClusterRoles.
pub fn cluster_roles() -> Vec<Value> {
    policy().map(|role| role_object("ClusterRole", "", &role)).collect()
}

/// The ClusterRoleBindings.
pub fn cluster_role_bindings() -> Vec<Value> {
    let bound = policy().filter_map(|role| {
        let account =
            role.name.strip_prefix("system:controller:").map(|n| format!("account:kube-system/{n}"));
        let who = match &account {
            Some(account) => vec![account.as_str()],
            None => role.bound?,
        };
        Some(binding_object("ClusterRoleBinding", "", &role.name, "ClusterRole", &role.name, &who))
    });
    bound.collect()
}

/// The rules of every node, which the Node authorizer grants.
pub(crate) fn node_rules() -> Vec<Rule> {
    policy().find(|role| role.name == "system:node").map(|role| role.rules).unwrap_or_default()
}
