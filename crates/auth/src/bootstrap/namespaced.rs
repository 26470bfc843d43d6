use serde_json::Value;

use super::{Role, binding_object, parse, role_object};

fn namespaced() -> impl Iterator<Item = (&'static str, Role)> {
    parse(include_str!("namespaced.txt"), "").into_iter().map(|mut role| {
        let namespace = if role.name.starts_with("kube-public/") { "kube-public" } else { "kube-system" };
        role.name = role.name.split_once('/').map(|(_, name)| name.to_owned()).unwrap_or_default();
        (namespace, role)
    })
}

/// The Roles.
pub fn roles() -> Vec<Value> {
    namespaced().map(|(namespace, role)| role_object("Role", namespace, &role)).collect()
}

/// The RoleBindings.
pub fn role_bindings() -> Vec<Value> {
    const MANAGER: &str = "user:system:kube-controller-manager";
    const SCHEDULER: &str = "user:system:kube-scheduler";
    let bound: &[(&str, &str, &str, &[&str])] = &[
        (
            "kube-system",
            "system::extension-apiserver-authentication-reader",
            "extension-apiserver-authentication-reader",
            &[MANAGER, SCHEDULER],
        ),
        (
            "kube-system",
            "system::leader-locking-kube-controller-manager",
            "system::leader-locking-kube-controller-manager",
            &[MANAGER, "account:kube-system/kube-controller-manager"],
        ),
        (
            "kube-system",
            "system::leader-locking-kube-scheduler",
            "system::leader-locking-kube-scheduler",
            &[SCHEDULER, "account:kube-system/kube-scheduler"],
        ),
        (
            "kube-system",
            "system:controller:bootstrap-signer",
            "system:controller:bootstrap-signer",
            &["account:kube-system/bootstrap-signer"],
        ),
        (
            "kube-system",
            "system:controller:cloud-provider",
            "system:controller:cloud-provider",
            &["account:kube-system/cloud-provider"],
        ),
        (
            "kube-system",
            "system:controller:token-cleaner",
            "system:controller:token-cleaner",
            &["account:kube-system/token-cleaner"],
        ),
        (
            "kube-public",
            "system:controller:bootstrap-signer",
            "system:controller:bootstrap-signer",
            &["account:kube-system/bootstrap-signer"],
        ),
    ];
    let object = |(namespace, name, role, who): &(&str, &str, &str, &[&str])| {
        binding_object("RoleBinding", namespace, name, "Role", role, who)
    };
    bound.iter().map(object).collect()
}
