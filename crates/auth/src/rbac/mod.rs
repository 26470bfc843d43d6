//! Rights by roles (kubernetes/kubernetes, `plugin/pkg/auth/authorizer/rbac`).

mod escalation;
mod objects;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::attributes::{Answer, Attributes};
use crate::user::User;

pub use escalation::{escalation, missing_rules};
pub use objects::{BindingObject, RoleObject};
pub use rule::Rule;

/// What a binding gives to one subject.
struct Grant {
    /// For the reason: `RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y" to Group "z"`.
    why: Box<str>,
    rules: Arc<[Rule]>,
    /// The role is not there; it grants nothing, and this says so.
    missing: Option<Box<str>>,
}

/// What one subject was given.
#[derive(Default)]
struct Grants {
    everywhere: Vec<Grant>,
    by_namespace: HashMap<Box<str>, Vec<Grant>>,
}

/// Who may do what, looked up by subject and namespace.
///
/// Built from all roles and bindings, and built anew when they change.
#[derive(Default)]
pub struct RbacIndex {
    users: HashMap<Box<str>, Grants>,
    groups: HashMap<Box<str>, Grants>,
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

impl RbacIndex {
    /// Resolves bindings to rules.
    pub fn build(roles: &[Arc<RoleObject>], bindings: &[Arc<BindingObject>]) -> Self {
        let mut index = Self::default();
        for role in roles {
            if role.namespace.is_empty() {
                index.cluster_roles.insert(role.name.clone(), role.rules.clone());
            } else {
                index.roles.insert((role.namespace.clone(), role.name.clone()), role.rules.clone());
            }
        }
        let aggregated = aggregate(roles);
        index.cluster_roles.extend(aggregated);
        for binding in bindings {
            let rules = index.rules_of(&binding.role_kind, &binding.namespace, &binding.role);
            let missing = rules.is_none().then(|| missing_role(&binding.role_kind, &binding.role).into());
            let rules = rules.cloned().unwrap_or_default();
            for subject in &binding.subjects {
                index.grant(binding, subject, rules.clone(), &missing);
            }
        }
        index
    }

    /// The rules of a role; those of a ClusterRole with an aggregation rule are put together from the others'.
    pub fn rules_of(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            _ => self.roles.get(&(namespace.to_owned(), name.to_owned())),
        }
    }

    fn grant(
        &mut self,
        binding: &BindingObject,
        subject: &objects::Subject,
        rules: Arc<[Rule]>,
        missing: &Option<Box<str>>,
    ) {
        let BindingObject { namespace, name, role_kind, role, .. } = binding;
        let (kind, shown) = if namespace.is_empty() {
            ("ClusterRoleBinding", name.clone())
        } else {
            ("RoleBinding", format!("{name}/{namespace}"))
        };
        let to = match &*subject.kind {
            "ServiceAccount" => format!("{}/{}", subject.name, subject.namespace),
            _ => subject.name.clone(),
        };
        let why =
            format!("RBAC: allowed by {kind} {shown:?} of {role_kind} {role:?} to {} {to:?}", subject.kind);
        let grants = match &*subject.kind {
            "User" => self.users.entry(subject.name.as_str().into()),
            "Group" => self.groups.entry(subject.name.as_str().into()),
            "ServiceAccount" => self
                .users
                .entry(format!("system:serviceaccount:{}:{}", subject.namespace, subject.name).into()),
            _ => return,
        };
        let grants = grants.or_default();
        let grant = Grant { why: why.into(), rules, missing: missing.clone() };
        if namespace.is_empty() {
            grants.everywhere.push(grant);
        } else {
            grants.by_namespace.entry(namespace.as_str().into()).or_default().push(grant);
        }
    }

    fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let subjects = || {
            let own = self.users.get(&*user.name);
            own.into_iter().chain(user.groups.iter().filter_map(|g| self.groups.get(&**g)))
        };
        let here = move |grants: &'a Grants| {
            let some = if namespace.is_empty() { None } else { grants.by_namespace.get(namespace) };
            some.into_iter().flatten()
        };
        subjects().flat_map(|g| &g.everywhere).chain(subjects().flat_map(here))
    }

    /// Whether `user` may do it.
    pub fn authorize(&self, user: &User, a: &Attributes<'_>) -> Answer {
        let namespace = if a.is_resource() { a.namespace } else { "" };
        if let Some(grant) = self.grants(user, namespace).find(|g| g.rules.iter().any(|rule| rule.allows(a)))
        {
            return Answer::allow(&*grant.why);
        }
        let missing: Vec<&str> = self.grants(user, namespace).filter_map(|g| g.missing.as_deref()).collect();
        Answer::no_opinion(match *missing {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            _ => format!("RBAC: [{}]", distinct(&missing).join(", ")),
        })
    }

    /// Every rule that holds for `user` in `namespace`, and what could not be found out.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let rules = self.grants(user, namespace).flat_map(|g| g.rules.iter().cloned()).collect();
        let missing = self.grants(user, namespace).filter_map(|g| g.missing.as_deref().map(str::to_owned));
        (rules, missing.collect())
    }

    /// What the rules of each ClusterRole with an aggregation rule are.
    pub fn aggregated(roles: &[Arc<RoleObject>]) -> HashMap<String, Arc<[Rule]>> {
        aggregate(roles)
    }
}

fn distinct<'a>(texts: &[&'a str]) -> Vec<&'a str> {
    let mut out: Vec<&str> = Vec::new();
    for text in texts {
        if !out.contains(text) {
            out.push(text);
        }
    }
    out
}

fn missing_role(kind: &str, name: &str) -> String {
    format!("{}.rbac.authorization.k8s.io {name:?} not found", kind.to_lowercase())
}

/// Puts together the rules of aggregated ClusterRoles (kubernetes/kubernetes,
/// `pkg/controller/clusterroleaggregation`). One may take over another: the view of the edit of the admin.
fn aggregate(roles: &[Arc<RoleObject>]) -> HashMap<String, Arc<[Rule]>> {
    let mut sorted: Vec<&RoleObject> =
        roles.iter().filter(|r| r.namespace.is_empty()).map(|r| &**r).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut known: HashMap<&str, Vec<Rule>> = HashMap::new();
    for role in &sorted {
        known.insert(&role.name, if role.is_aggregate() { Vec::new() } else { role.rules.to_vec() });
    }
    // Each round carries rules one step further; there are no more steps than aggregates.
    let aggregates: Vec<&RoleObject> = sorted.iter().copied().filter(|r| r.is_aggregate()).collect();
    for _ in 0..aggregates.len() {
        let mut changed = false;
        for role in &aggregates {
            let mut rules: Vec<Rule> = Vec::new();
            for other in sorted.iter().filter(|other| role.takes(other)) {
                for rule in known.get(&*other.name).into_iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            if known.get(&*role.name) != Some(&rules) {
                known.insert(&role.name, rules);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    aggregates.iter().map(|r| (r.name.clone(), known.remove(&*r.name).unwrap_or_default().into())).collect()
}
