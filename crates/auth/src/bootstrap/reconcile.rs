//! What an upgrade makes of a bootstrap object that is there already (kubernetes/kubernetes,
//! `pkg/registry/rbac/reconciliation`): what is missing is added, what others added stays, and nothing is touched
//! that is annotated so.

use serde_json::Value;

use crate::rbac::{Rule, missing_rules};

/// Objects with this annotation are left alone if it is `false`.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn is_left_alone(have: &Value) -> bool {
    have["metadata"]["annotations"][AUTOUPDATE] == "false"
}

/// Adds labels and annotations that are missing. Existing ones keep their values.
fn merge_metadata(have: &mut Value, want: &Value) -> bool {
    let mut changed = false;
    for field in ["labels", "annotations"] {
        for (key, value) in want["metadata"][field].as_object().into_iter().flatten() {
            let place = &mut have["metadata"][field];
            if place.get(key).is_none() {
                if !place.is_object() {
                    *place = Value::Object(serde_json::Map::new());
                }
                place[key] = value.clone();
                changed = true;
            }
        }
    }
    changed
}

/// The role as it shall be, if it must change. A role that takes over others' rules keeps what it has taken.
pub fn reconcile_role(have: &Value, want: &Value) -> Option<Value> {
    if is_left_alone(have) {
        return None;
    }
    let mut new = have.clone();
    let mut changed = merge_metadata(&mut new, want);
    if want.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
        let wanted = want["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten();
        let here = have["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default();
        let missing: Vec<Value> = wanted.filter(|s| !here.contains(s)).cloned().collect();
        if !missing.is_empty() {
            new["aggregationRule"]["clusterRoleSelectors"] = here.into_iter().chain(missing).collect();
            changed = true;
        }
        return changed.then_some(new);
    }
    let (owned, wanted) = (Rule::read_all(have), Rule::read_all(want));
    let missing: Vec<&Rule> =
        wanted.iter().filter(|rule| !missing_rules(&owned, std::slice::from_ref(rule)).is_empty()).collect();
    if !missing.is_empty() {
        new["rules"] = owned.iter().chain(missing).map(Rule::to_json).collect();
        changed = true;
    }
    changed.then_some(new)
}

/// What becomes of a binding.
#[derive(Debug, PartialEq)]
pub enum BindingChange {
    /// It gets more subjects or labels.
    Update(Value),
    /// It binds another role, which cannot be changed: it must be made anew.
    Recreate(Value),
}

/// What must become of a binding, if anything must.
pub fn reconcile_binding(have: &Value, want: &Value) -> Option<BindingChange> {
    if is_left_alone(have) {
        return None;
    }
    if have["roleRef"]["kind"] != want["roleRef"]["kind"]
        || have["roleRef"]["name"] != want["roleRef"]["name"]
    {
        return Some(BindingChange::Recreate(want.clone()));
    }
    let mut new = have.clone();
    let mut changed = merge_metadata(&mut new, want);
    let same = |a: &Value, b: &Value| {
        ["kind", "name", "namespace"]
            .iter()
            .all(|f| a[f].as_str().unwrap_or("") == b[f].as_str().unwrap_or(""))
    };
    let here = have["subjects"].as_array().cloned().unwrap_or_default();
    let wanted = want["subjects"].as_array().into_iter().flatten();
    let missing: Vec<Value> = wanted.filter(|w| !here.iter().any(|h| same(h, w))).cloned().collect();
    if !missing.is_empty() {
        new["subjects"] = here.into_iter().chain(missing).collect();
        changed = true;
    }
    // The only binding that loses subjects: nodes have their own authorizer.
    if have["metadata"]["name"] == "system:node" && want["subjects"].is_null() && !have["subjects"].is_null()
    {
        new.as_object_mut().and_then(|map| map.remove("subjects"));
        changed = true;
    }
    changed.then_some(BindingChange::Update(new))
}
