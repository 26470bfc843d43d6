//! Wishes to have objects stored anew (kubernetes/kubernetes, `pkg/apis/storagemigration/validation/validation.go`).

use serde_json::Value;
use types::{FieldErrors, Path};

use super::check::*;
use crate::strategy::Strategy;

pub(super) struct StorageVersionMigration;

impl Strategy for StorageVersionMigration {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        if text(&object["spec"]["resource"], "resource").is_empty() {
            let path = Path::new("spec");
            let path = path.child("resource");
            errors.required(&path.child("resource"), "resource is required");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        for field in ["group", "resource"] {
            let value = |object: &Value| text(&object["spec"]["resource"], field).to_owned();
            if value(new) != value(old) {
                errors.invalid(&Path::new(field), value(new), IMMUTABLE);
            }
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let status = Path::new("status");
        let path = status.child("resourceVersion");
        let (now, before) =
            (text(&new["status"], "resourceVersion"), text(&old["status"], "resourceVersion"));
        if !now.is_empty() {
            match now.parse::<i64>() {
                Ok(number) if number < 0 => errors.invalid(&path, number, NEGATIVE),
                Ok(_) => {}
                Err(_) => errors.invalid(&path, now, "must be a number"),
            }
        }
        if !before.is_empty() && now != before {
            errors.invalid(&path, now, "cannot be updated");
        }
        let is = |object: &Value, kind: &str| {
            list(&object["status"], "conditions")
                .any(|c| text(c, "type") == kind && text(c, "status") == "True")
        };
        let path = status.child("conditions");
        let mut wrong = |holds: bool, why: &str| {
            if holds {
                errors.invalid(&path, new["status"]["conditions"].clone(), why);
            }
        };
        let (succeeded, failed, running) = (is(new, "Succeeded"), is(new, "Failed"), is(new, "Running"));
        wrong(succeeded && failed, "Both success and failed conditions cannot be true at the same time");
        wrong(succeeded && running, "Running condition cannot be true when success condition is true");
        wrong(failed && running, "Running condition cannot be true when failed condition is true");
        wrong(is(old, "Succeeded") && !succeeded, "Success condition cannot be set to false once it is true");
        wrong(is(old, "Failed") && !failed, "Failed condition cannot be set to false once it is true");
    }
}
