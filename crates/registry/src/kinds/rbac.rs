//! Roles and bindings (kubernetes/kubernetes, `pkg/apis/rbac/validation/validation.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, dns_subdomain, path_segment};

use super::check::*;
use super::pod_spec::{default_text, each};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) struct Role {
    /// Whether it is a ClusterRole, which can be about URLs and be put together out of others.
    pub(super) of_cluster: bool,
}

impl Role {
    fn validate_rule(&self, rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
        if count(rule, "verbs") == 0 {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        if count(rule, "nonResourceURLs") > 0 {
            let path = path.child("nonResourceURLs");
            if !self.of_cluster {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.invalid(&path, rule["nonResourceURLs"].clone(), why);
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|f| count(rule, f) > 0) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&path, rule["nonResourceURLs"].clone(), why);
            }
            return;
        }
        if count(rule, "apiGroups") == 0 {
            let why = "resource rules must supply at least one api group";
            errors.required(&path.child("apiGroups"), why);
        }
        if count(rule, "resources") == 0 {
            let why = "resource rules must supply at least one resource";
            errors.required(&path.child("resources"), why);
        }
    }
}

impl Strategy for Role {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("rules");
        for (i, rule) in list(object, "rules").enumerate() {
            self.validate_rule(rule, &path.index(i), errors);
        }
        let Some(aggregation) = get(object, "aggregationRule") else { return };
        let root = Path::new("aggregationRule");
        let path = root.child("clusterRoleSelectors");
        if count(aggregation, "clusterRoleSelectors") == 0 {
            let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.required(&path, why);
        }
        for (i, selector) in list(aggregation, "clusterRoleSelectors").enumerate() {
            label_selector(Some(selector), &path.index(i), errors);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for (i, rule) in list(object, "rules").enumerate() {
            for (j, url) in texts(rule, "nonResourceURLs").enumerate() {
                if url != "*" && url.strip_suffix('*').unwrap_or(url).contains('*') {
                    found.push(format!(
                        "rules[{i}].nonResourceURLs[{j}]: wildcards are only allowed at the end"
                    ));
                }
            }
        }
        found
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

pub(super) struct RoleBinding {
    /// Whether it is a ClusterRoleBinding.
    pub(super) of_cluster: bool,
}

impl RoleBinding {
    fn validate_subject(&self, subject: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
        let (kind, name, group) = (text(subject, "kind"), text(subject, "name"), text(subject, "apiGroup"));
        required(subject, "name", path, errors);
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    name_is(name, dns_subdomain, &path.child("name"), errors);
                }
                if !group.is_empty() {
                    errors.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                // Upstream asks for it in namespaced bindings too.
                required(subject, "namespace", path, errors);
            }
            "User" | "Group" if group != GROUP => {
                errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
            "User" | "Group" => {}
            other => {
                errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]);
            }
        }
    }
}

impl Strategy for RoleBinding {
    fn default(&self, object: &mut Value) {
        if let Some(role) = types::at_mut(object, &["roleRef"]) {
            default_text(role, "apiGroup", GROUP);
        }
        for subject in each(object, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                default_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let path = Path::new("roleRef");
        let role = &object["roleRef"];
        let group = text(role, "apiGroup");
        if group != GROUP {
            errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
        }
        let kinds: &[&str] = if self.of_cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        if !kinds.contains(&text(role, "kind")) {
            errors.not_supported(&path.child("kind"), text(role, "kind"), kinds);
        }
        required_name(role, "name", path_segment, &path, errors);
        let path = Path::new("subjects");
        for (i, subject) in list(object, "subjects").enumerate() {
            self.validate_subject(subject, &path.index(i), errors);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wildcards_are_for_the_end_in_any_script() {
        let warnings = |url: &str| {
            let rules = json!({"rules": [{"verbs": ["get"], "nonResourceURLs": [url]}]});
            Role { of_cluster: true }.warnings(&rules).len()
        };
        for (url, found) in [("*", 0), ("/a/*", 0), ("/a*/b", 1), ("**", 1), ("é", 0), ("*é", 1), ("", 0)] {
            assert_eq!(warnings(url), found, "{url}");
        }
    }
}
