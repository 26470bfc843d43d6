//! ControllerRevisions (kubernetes/kubernetes, `pkg/apis/apps/validation/validation.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path};

use super::super::check::*;
use crate::strategy::Strategy;
use crate::table::{self, Column};

pub(in super::super) struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        if !has(object, "data") {
            errors.required(&Path::new("data"), "data is mandatory");
        }
        if int(object, "revision") < 0 {
            errors.invalid(&Path::new("revision"), int(object, "revision"), NEGATIVE);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if new["data"] != old["data"] {
            errors.immutable(&Path::new("data"), &new["data"]);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::CONTROLLER_REVISION
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::controller_revision_cells(object, now)
    }
}
