use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{BindingObject, RbacIndex, RoleObject};
use crate::{Attributes, Decision, User};

fn index(roles: &[Value], bindings: &[Value]) -> RbacIndex {
    let roles: Vec<_> = roles.iter().map(|r| Arc::new(RoleObject::read(r))).collect();
    let bindings: Vec<_> = bindings.iter().map(|b| Arc::new(BindingObject::read(b))).collect();
    RbacIndex::build(&roles, &bindings)
}

fn small() -> RbacIndex {
    index(
        &[
            json!({"metadata": {"name": "reader"}, "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]}),
            json!({"metadata": {"name": "paths"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}]}),
            json!({"metadata": {"name": "one", "namespace": "a"},
                "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["x"]}]}),
        ],
        &[
            json!({"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "paths"}, "subjects": [{"kind": "Group", "name": "system:authenticated"}]}),
            json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "z"}]}),
            json!({"metadata": {"name": "c", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "one"}, "subjects": [{"kind": "User", "name": "eve"}]}),
            json!({"metadata": {"name": "d", "namespace": "q"}, "roleRef": {"kind": "Role", "name": "gone"}, "subjects": [{"kind": "User", "name": "eve"}]}),
        ],
    )
}

#[test]
fn grants_what_is_bound_where_it_is_bound() {
    let index = small();
    let web = User::authenticated("system:serviceaccount:z:web", []);
    let eve = User::authenticated("eve", []);
    let get = |resource, namespace| Attributes {
        verb: "get",
        resource,
        namespace,
        name: "x",
        ..Attributes::default()
    };
    let allowed = |user: &User, a: &Attributes<'_>| index.authorize(user, a).is_allowed();
    assert!(allowed(&web, &get("pods", "a")));
    assert!(!allowed(&web, &get("pods", "b")));
    assert!(allowed(&web, &Attributes { subresource: "log", ..get("pods", "a") }));
    assert!(!allowed(&web, &Attributes { subresource: "exec", ..get("pods", "a") }));
    assert!(allowed(&eve, &get("secrets", "a")));
    assert!(!allowed(&eve, &Attributes { name: "y", ..get("secrets", "a") }));
    let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
    assert!(allowed(&eve, &path("/healthz/etcd")));
    assert!(!allowed(&User::anonymous(), &path("/version")));
    assert_eq!(
        index.authorize(&web, &get("pods", "a")).reason,
        "RBAC: allowed by RoleBinding \"b/a\" of ClusterRole \"reader\" to ServiceAccount \"web/z\""
    );
    let lost = index.authorize(&eve, &get("pods", "q"));
    assert_eq!(lost.decision, Decision::NoOpinion);
    assert_eq!(lost.reason, "RBAC: role.rbac.authorization.k8s.io \"gone\" not found");
}

#[test]
fn aggregates_are_put_together_through_each_other() {
    let select = |label: &str| json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    let rules = |resource: &str| json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]);
    let index = index(
        &[
            json!({"metadata": {"name": "admin"}, "aggregationRule": select("to-admin"), "rules": rules("stale")}),
            json!({"metadata": {"name": "edit", "labels": {"to-admin": "true"}}, "aggregationRule": select("to-edit")}),
            json!({"metadata": {"name": "leaf", "labels": {"to-edit": "true"}}, "rules": rules("widgets")}),
        ],
        &[
            json!({"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "User", "name": "eve"}]}),
        ],
    );
    let get = |resource| Attributes { verb: "get", resource, ..Attributes::default() };
    let eve = User::authenticated("eve", []);
    assert!(index.authorize(&eve, &get("widgets")).is_allowed());
    assert!(!index.authorize(&eve, &get("stale")).is_allowed());
}

/// 2,000 roles and bindings: the time a decision takes does not depend on how many there are.
#[test]
fn decisions_stay_cheap() {
    let names: Vec<String> = (0..2000).map(|i| format!("n{i}")).collect();
    let roles: Vec<Value> = names
        .iter()
        .map(|n| json!({"metadata": {"name": "r", "namespace": n}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}))
        .collect();
    let bindings: Vec<Value> = names
        .iter()
        .map(|n| {
            json!({"metadata": {"name": "b", "namespace": n}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "eve"}, {"kind": "Group", "name": "system:authenticated"}]})
        })
        .collect();
    let index = index(&roles, &bindings);
    let eve = User::authenticated("eve", []);
    let begun = Instant::now();
    const TIMES: u32 = 20_000;
    for i in 0..TIMES {
        let namespace = names[i as usize % names.len()].as_str();
        let a = Attributes { verb: "get", resource: "pods", namespace, ..Attributes::default() };
        assert!(index.authorize(&eve, &a).is_allowed());
        assert!(!index.authorize(&eve, &Attributes { verb: "list", ..a }).is_allowed());
    }
    let each = begun.elapsed() / (TIMES * 2);
    println!("{each:?} a decision");
    // Without optimization and on a busy machine.
    assert!(each.as_micros() < 100, "{each:?}");
}
