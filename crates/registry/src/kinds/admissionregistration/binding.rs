//! What binds policies to where they hold (kubernetes/kubernetes,
//! `pkg/apis/admissionregistration/validation/validation.go`, `validateValidatingAdmissionPolicyBindingSpec`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain, ensure_object};

use super::super::check::*;
use super::{SPEC, default_match, validate_match};
use crate::strategy::Strategy;
use crate::table::{self, Column};

/// What binds a policy to where it holds.
pub(in super::super) struct PolicyBinding {
    /// Whether the policy changes objects.
    pub(in super::super) mutating: bool,
}

impl Strategy for PolicyBinding {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        if let Some(rules) = types::at_mut(spec, &["matchResources"]) {
            default_match(rules);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        required_name(spec, "policyName", dns_subdomain, &SPEC, errors);
        if let Some(param) = get(spec, "paramRef") {
            param_ref(param, &SPEC.child("paramRef"), errors);
        }
        if let Some(rules) = get(spec, "matchResources") {
            validate_match(rules, &SPEC.child("matchResources"), errors);
        }
        if self.mutating {
            return;
        }
        const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
        let path = SPEC.child("validationActions");
        if count(spec, "validationActions") == 0 {
            errors.required(&path, "at least one validation action is required");
        }
        for (i, action) in texts(spec, "validationActions").enumerate() {
            if !ACTIONS.contains(&action) {
                errors.not_supported(&path.index(i), action, ACTIONS);
            }
            if repeats(texts(spec, "validationActions").take(i), action) {
                errors.duplicate(&path.index(i), action);
            }
        }
        let both = ["Deny", "Warn"].iter().all(|a| texts(spec, "validationActions").any(|x| x == *a));
        if both {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
            errors.invalid(&path, spec["validationActions"].clone(), why);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::ADMISSION_POLICY_BINDING
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::admission_policy_binding_cells(object, now)
    }
}

fn param_ref(param: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let name = text(param, "name");
    if !name.is_empty() {
        name_is(name, types::path_segment, &path.child("name"), errors);
        if has(param, "selector") {
            let why = "name and selector are mutually exclusive";
            errors.forbidden(&path.child("name"), why);
        }
    }
    if let Some(selector) = get(param, "selector") {
        label_selector(Some(selector), &path.child("selector"), errors);
    } else if name.is_empty() {
        errors.required(path, "one of name or selector must be specified");
    }
    optional_name(param, "namespace", dns_label, path, errors);
    match text(param, "parameterNotFoundAction") {
        "" => errors.required(&path.child("parameterNotFoundAction"), ""),
        "Allow" | "Deny" => {}
        other => {
            errors.not_supported(&path.child("parameterNotFoundAction"), other, &["Allow", "Deny"]);
        }
    }
}
