//! Roles and bindings (kubernetes/kubernetes, `pkg/apis/rbac/validation/validation.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, path_segment, set_default, str_at};

use super::check::list;
use super::pod_spec::each;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) struct Role;

impl Strategy for Role {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("rules");
        for (i, rule) in list(object, "rules").enumerate() {
            let path = path.index(i);
            if list(rule, "verbs").next().is_none() {
                errors.required(&path.child("verbs"), "verbs must contain at least one value");
            }
            if list(rule, "nonResourceURLs").next().is_some() {
                continue;
            }
            if list(rule, "apiGroups").next().is_none() {
                errors
                    .required(&path.child("apiGroups"), "resource rules must supply at least one api group");
            }
            if list(rule, "resources").next().is_none() {
                errors.required(&path.child("resources"), "resource rules must supply at least one resource");
            }
        }
    }

    fn validate_name(&self, name: &str) -> Option<String> {
        path_segment(name)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::ROLE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::role_cells(object, now)
    }
}

pub(super) struct RoleBinding;

impl Strategy for RoleBinding {
    fn default(&self, object: &mut Value) {
        if let Some(role) = types::at_mut(object, &["roleRef"]) {
            set_default(role, "apiGroup", GROUP);
        }
        for subject in each(object, "subjects") {
            let group = if subject["kind"] == "ServiceAccount" { "" } else { GROUP };
            if !group.is_empty() {
                set_default(subject, "apiGroup", group);
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let role = Path::new("roleRef");
        match str_at(object, &["roleRef", "kind"]) {
            Some("Role" | "ClusterRole") => {}
            other => {
                errors.not_supported(&role.child("kind"), other.unwrap_or_default(), &["Role", "ClusterRole"])
            }
        }
        if str_at(object, &["roleRef", "name"]).is_none() {
            errors.required(&role.child("name"), "");
        }
        let path = Path::new("subjects");
        for (i, subject) in list(object, "subjects").enumerate() {
            let path = path.index(i);
            if str_at(subject, &["name"]).is_none() {
                errors.required(&path.child("name"), "");
            }
            match str_at(subject, &["kind"]) {
                Some("ServiceAccount") if str_at(subject, &["namespace"]).is_none() => {
                    if object["kind"] == "ClusterRoleBinding" {
                        errors.required(&path.child("namespace"), "");
                    }
                }
                Some("ServiceAccount" | "User" | "Group") => {}
                other => errors.not_supported(
                    &path.child("kind"),
                    other.unwrap_or_default(),
                    &["ServiceAccount", "User", "Group"],
                ),
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if new["roleRef"] != old["roleRef"] {
            errors.invalid(&Path::new("roleRef"), new["roleRef"].clone(), "cannot change roleRef");
        }
    }

    fn validate_name(&self, name: &str) -> Option<String> {
        path_segment(name)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::ROLE_BINDING
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::role_binding_cells(object, now)
    }
}
