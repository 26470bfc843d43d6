//! Classes of devices (kubernetes/kubernetes, `pkg/apis/resource/validation/validation.go`, `ValidateDeviceClass`).

use serde_json::Value;
use types::FieldErrors;

use super::super::check::*;
use super::super::pod_spec::resources::is_extended;
use super::{SPEC, at_most, configuration, selectors};
use crate::strategy::Strategy;

pub(in super::super) struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        selectors(&object["spec"], &SPEC, errors);
        self.validate_rest(&object["spec"], errors);
    }

    /// Expressions that are stored are as good as they were.
    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if !same_field(&new["spec"], &old["spec"], "selectors") {
            selectors(&new["spec"], &SPEC, errors);
        }
        self.validate_rest(&new["spec"], errors);
    }
}

impl DeviceClass {
    fn validate_rest(&self, spec: &Value, errors: &mut FieldErrors) {
        at_most(spec, "config", 32, &SPEC, errors);
        for (i, config) in list(spec, "config").enumerate() {
            configuration(config, &SPEC.child("config").index(i), errors);
        }
        if let Some(name) = spec.get("extendedResourceName").and_then(Value::as_str)
            && !is_extended(name)
        {
            let why = "must be a valid extended resource name";
            errors.invalid(&SPEC.child("extendedResourceName"), name, why);
        }
    }
}
