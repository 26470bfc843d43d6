use serde_json::{Value, json};

use super::reconcile::BindingChange;
use super::{cluster_role_bindings, cluster_roles, reconcile_binding, reconcile_role, role_bindings, roles};
use crate::rbac::Rule;

fn named<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    objects.iter().find(|o| o["metadata"]["name"] == name).unwrap()
}

#[test]
fn every_line_of_the_policy_is_a_whole_rule() {
    let all = cluster_roles();
    assert!(all.len() > 65, "{}", all.len());
    for role in all.iter().chain(&roles()) {
        for rule in Rule::read_all(role) {
            let resource = !rule.groups.is_empty() && !rule.resources.is_empty() && rule.paths.is_empty();
            let path = rule.groups.is_empty() && rule.resources.is_empty() && !rule.paths.is_empty();
            assert!(!rule.verbs.is_empty() && (resource || path), "{role}");
        }
    }
    for binding in cluster_role_bindings() {
        named(&all, binding["roleRef"]["name"].as_str().unwrap());
    }
    let namespaced = roles();
    for binding in role_bindings() {
        named(&namespaced, binding["roleRef"]["name"].as_str().unwrap());
    }
}

#[test]
fn nobody_is_a_node_by_a_binding() {
    assert!(named(&cluster_role_bindings(), "system:node").get("subjects").is_none());
    let have = json!({"metadata": {"name": "system:node", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"kind": "ClusterRole", "name": "system:node"},
        "subjects": [{"kind": "Group", "name": "system:nodes"}]});
    let Some(BindingChange::Update(new)) =
        reconcile_binding(&have, named(&cluster_role_bindings(), "system:node"))
    else {
        panic!("nothing changes")
    };
    assert!(new.get("subjects").is_none());
}

#[test]
fn controllers_have_roles_and_accounts_of_their_own() {
    let bindings = cluster_role_bindings();
    assert_eq!(
        named(&bindings, "system:controller:job-controller")["subjects"],
        json!([{"kind": "ServiceAccount", "name": "job-controller", "namespace": "kube-system"}])
    );
    let roles = cluster_roles();
    let role = named(&roles, "system:controller:job-controller");
    assert_eq!(
        role["rules"][0],
        json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "patch", "update", "watch"]})
    );
}

#[test]
fn what_is_missing_comes_back_and_what_was_added_stays() {
    let roles = cluster_roles();
    let want = named(&roles, "system:basic-user");
    assert_eq!(reconcile_role(want, want), None);
    let extra = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    let mut have = want.clone();
    have["rules"] = json!([extra]);
    have["metadata"]["labels"] = Value::Null;
    let new = reconcile_role(&have, want).unwrap();
    assert_eq!(new["rules"].as_array().unwrap().len(), 3);
    assert_eq!(new["rules"][0]["resources"], json!(["pods"]));
    assert_eq!(new["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    have["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    assert_eq!(reconcile_role(&have, want), None);
    // What an aggregate has taken over is not its own, and not missing.
    let view = named(&roles, "view");
    let mut taken = view.clone();
    taken["rules"] = json!([extra]);
    assert_eq!(reconcile_role(&taken, view), None);
}

#[test]
fn a_binding_to_another_role_is_made_anew() {
    let bindings = cluster_role_bindings();
    let want = named(&bindings, "system:discovery");
    let mut have = want.clone();
    have["subjects"] = json!([{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]);
    let Some(BindingChange::Update(new)) = reconcile_binding(&have, want) else { panic!("nothing changes") };
    assert_eq!(new["subjects"].as_array().unwrap().len(), 2);
    have["roleRef"]["name"] = "cluster-admin".into();
    assert!(matches!(reconcile_binding(&have, want), Some(BindingChange::Recreate(_))));
}
