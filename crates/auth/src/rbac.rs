use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::user::User;

/// What somebody wants to do.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    /// Such as `get` or `list`.
    pub verb: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// The plural; empty for a path that is no resource.
    pub resource: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Empty for cluster-wide requests.
    pub namespace: &'a str,
    /// Empty where no single object is meant.
    pub name: &'a str,
    /// The URL's path, where it is no resource.
    pub path: &'a str,
}

impl Attributes<'_> {
    fn resource_text(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why; for a refusal, in upstream's words.
    pub reason: String,
}

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    fn read(value: &Value) -> Self {
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

    /// Whether the rule allows it (kubernetes/kubernetes, `plugin/pkg/auth/authorizer/rbac/rbac.go`, `RuleAllows`).
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !any(&self.verbs, a.verb) {
            return false;
        }
        if a.resource.is_empty() {
            return self.paths.iter().any(|p| {
                p == "*" || p == a.path || p.strip_suffix('*').is_some_and(|front| a.path.starts_with(front))
            });
        }
        let resource = self.resources.iter().any(|r| match r.split_once('/') {
            None if a.subresource.is_empty() => r == "*" || r == a.resource,
            None => r == "*",
            Some((parent, sub)) => sub == a.subresource && (parent == "*" || parent == a.resource),
        });
        resource
            && any(&self.groups, a.group)
            && (self.names.is_empty() || self.names.iter().any(|n| n == a.name))
    }
}

/// The objects that roles and bindings are made of.
pub struct RbacObjects<'a> {
    /// Every ClusterRole.
    pub cluster_roles: &'a mut dyn Iterator<Item = Value>,
    /// Every Role.
    pub roles: &'a mut dyn Iterator<Item = Value>,
    /// Every ClusterRoleBinding.
    pub cluster_role_bindings: &'a mut dyn Iterator<Item = Value>,
    /// Every RoleBinding.
    pub role_bindings: &'a mut dyn Iterator<Item = Value>,
}

struct Grant {
    /// Empty for every namespace.
    namespace: String,
    /// For the reason: `ClusterRoleBinding "x" of ClusterRole "y" to Group "z"`.
    why: Arc<str>,
    rules: Arc<[Rule]>,
}

/// Who may do what, looked up by user and group.
///
/// Built from a snapshot of roles and bindings, and built anew when they change.
#[derive(Default)]
pub struct RbacIndex {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

impl RbacIndex {
    /// Resolves bindings to rules. Bindings to roles that do not exist grant nothing.
    pub fn build(objects: RbacObjects<'_>) -> Self {
        let rules = |role: &Value| -> Arc<[Rule]> {
            role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Rule::read).collect()
        };
        let cluster_roles: HashMap<String, Arc<[Rule]>> =
            objects.cluster_roles.map(|role| (meta(&role, "name").to_owned(), rules(&role))).collect();
        let roles: HashMap<(String, String), Arc<[Rule]>> = objects
            .roles
            .map(|role| ((meta(&role, "namespace").to_owned(), meta(&role, "name").to_owned()), rules(&role)))
            .collect();
        let mut index = Self::default();
        let bindings = objects.cluster_role_bindings.map(|b| ("ClusterRoleBinding", b));
        for (kind, binding) in bindings.chain(objects.role_bindings.map(|b| ("RoleBinding", b))) {
            let namespace = meta(&binding, "namespace").to_owned();
            let role = binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned();
            let role_kind = binding["roleRef"]["kind"].as_str().unwrap_or_default();
            let rules = match role_kind {
                "ClusterRole" => cluster_roles.get(&role),
                _ => roles.get(&(namespace.clone(), role.clone())),
            };
            let Some(rules) = rules else { continue };
            let name = meta(&binding, "name");
            let shown = if namespace.is_empty() { name.to_owned() } else { format!("{name}/{namespace}") };
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                index.grant(
                    subject,
                    &namespace,
                    rules,
                    &format!("RBAC: allowed by {kind} \"{shown}\" of {role_kind} \"{role}\""),
                );
            }
        }
        index
    }

    fn grant(&mut self, subject: &Value, namespace: &str, rules: &Arc<[Rule]>, why: &str) {
        let name = subject["name"].as_str().unwrap_or_default();
        let kind = subject["kind"].as_str().unwrap_or_default();
        let own_namespace = subject["namespace"].as_str().unwrap_or(namespace);
        let shown =
            if kind == "ServiceAccount" { format!("{name}/{own_namespace}") } else { name.to_owned() };
        let grant = Grant {
            namespace: namespace.to_owned(),
            why: format!("{why} to {kind} \"{shown}\"").into(),
            rules: rules.clone(),
        };
        match kind {
            "User" => self.users.entry(name.to_owned()).or_default().push(grant),
            "Group" => self.groups.entry(name.to_owned()).or_default().push(grant),
            "ServiceAccount" => {
                let user = format!("system:serviceaccount:{own_namespace}:{name}");
                self.users.entry(user).or_default().push(grant);
            }
            _ => {}
        }
    }

    fn grants<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(&user.name).into_iter().flatten();
        own.chain(user.groups.iter().filter_map(|g| self.groups.get(g)).flatten())
    }

    /// Whether `user` may do it.
    pub fn authorize(&self, user: &User, a: &Attributes<'_>) -> Decision {
        if user.in_group(User::MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        let grant = self
            .grants(user)
            .filter(|g| g.namespace.is_empty() || (g.namespace == a.namespace && !a.resource.is_empty()))
            .find(|g| g.rules.iter().any(|r| r.allows(a)));
        match grant {
            Some(grant) => Decision { allowed: true, reason: grant.why.to_string() },
            None => Decision { allowed: false, reason: refusal(user, a) },
        }
    }

    /// Every rule that holds for `user` in `namespace`.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let everything = || Rule {
            verbs: vec!["*".into()],
            groups: vec!["*".into()],
            resources: vec!["*".into()],
            ..Rule::default()
        };
        let every_path = || Rule { verbs: vec!["*".into()], paths: vec!["*".into()], ..Rule::default() };
        if user.in_group(User::MASTERS) {
            return vec![everything(), every_path()];
        }
        let grants = self.grants(user).filter(|g| g.namespace.is_empty() || g.namespace == namespace);
        grants.flat_map(|g| g.rules.iter().cloned()).collect()
    }
}

/// Upstream's words for a refusal (`apiserver/pkg/endpoints/handlers/responsewriters/errors.go`, `forbiddenMessage`).
fn refusal(user: &User, a: &Attributes<'_>) -> String {
    if a.resource.is_empty() {
        return format!("User \"{}\" cannot {} path \"{}\"", user.name, a.verb, a.path);
    }
    let place = if a.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", a.namespace)
    };
    format!(
        "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
        user.name,
        a.verb,
        a.resource_text(),
        a.group
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index() -> RbacIndex {
        let mut cluster_roles = vec![
            json!({"metadata": {"name": "reader"}, "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]}),
            json!({"metadata": {"name": "paths"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}]}),
        ]
        .into_iter();
        let mut roles = vec![json!({"metadata": {"name": "one", "namespace": "a"},
            "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["x"]}]})]
        .into_iter();
        let mut cluster_role_bindings = vec![
            json!({"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "paths"}, "subjects": [{"kind": "Group", "name": "system:authenticated"}]}),
        ]
        .into_iter();
        let mut role_bindings = vec![
            json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "z"}]}),
            json!({"metadata": {"name": "c", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "one"}, "subjects": [{"kind": "User", "name": "eve"}]}),
        ]
        .into_iter();
        RbacIndex::build(RbacObjects {
            cluster_roles: &mut cluster_roles,
            roles: &mut roles,
            cluster_role_bindings: &mut cluster_role_bindings,
            role_bindings: &mut role_bindings,
        })
    }

    #[test]
    fn grants_what_is_bound_where_it_is_bound() {
        let index = index();
        let web = User::authenticated("system:serviceaccount:z:web", []);
        let eve = User::authenticated("eve", []);
        let get = |resource, namespace| Attributes {
            verb: "get",
            resource,
            namespace,
            name: "x",
            ..Attributes::default()
        };
        assert!(index.authorize(&web, &get("pods", "a")).allowed);
        assert!(!index.authorize(&web, &get("pods", "b")).allowed);
        assert!(index.authorize(&web, &Attributes { subresource: "log", ..get("pods", "a") }).allowed);
        assert!(!index.authorize(&web, &Attributes { subresource: "exec", ..get("pods", "a") }).allowed);
        assert!(index.authorize(&eve, &get("secrets", "a")).allowed);
        assert!(!index.authorize(&eve, &Attributes { name: "y", ..get("secrets", "a") }).allowed);
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        assert!(index.authorize(&eve, &path("/healthz/etcd")).allowed);
        assert!(!index.authorize(&User::anonymous(), &path("/version")).allowed);
        let refused = index.authorize(&eve, &Attributes { name: "", verb: "list", ..get("pods", "") });
        assert_eq!(
            refused.reason,
            "User \"eve\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        );
    }
}
