use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, dns_subdomain};

use crate::table::{AGE, Column, NAME};

/// The rules of one kind. Objects come in schema-checked: every field that is there has its type.
///
/// The order of a write is: `default`, admission's mutations, `prepare_*`, `validate_*` (upstream:
/// `apiserver/pkg/registry/rest/create.go`, `update.go`). `status` is set aside and kept by the generic handler;
/// a strategy sees it only in `prepare_create` and `prepare_status_update`.
pub trait Strategy: Send + Sync {
    /// Fills in what the user left out.
    fn default(&self, _object: &mut Value) {}

    /// Sets what only the server may set on a new object. By default a new object has no status.
    fn prepare_create(&self, object: &mut Value) {
        if let Value::Object(map) = object {
            map.remove("status");
        }
    }

    /// Brings over from the old object what the user may not change.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// The same for writes to `status`; everything but `status` and metadata is the old object's already.
    fn prepare_status_update(&self, _new: &mut Value, _old: &Value) {}

    /// What is wrong with a new object, metadata apart.
    fn validate_create(&self, _object: &Value, _errors: &mut FieldErrors) {}

    /// What is wrong with a changed object; by default what would be wrong with a new one.
    fn validate_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
    }

    /// What is wrong with a changed status.
    fn validate_status_update(&self, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// Why `name` is not allowed, if it is not.
    fn validate_name(&self, name: &str) -> Option<String> {
        dns_subdomain(name)
    }

    /// Fields besides `metadata.name` and `metadata.namespace` that lists can select by.
    fn selectable(&self) -> &'static [&'static str] {
        &[]
    }

    /// Those of the selectable fields by whose value objects are found without looking at all of them. Each costs
    /// some 50 bytes an object.
    fn indexed(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether lists can select by a field of that name, besides those of metadata.
    fn is_selectable(&self, name: &str) -> bool {
        self.selectable().contains(&name)
    }

    /// All selectable fields with the values that an object has there.
    fn selectable_values(&self, object: &Value) -> Vec<(Box<str>, Box<str>)> {
        self.selectable().iter().map(|name| ((*name).into(), self.field(object, name).into())).collect()
    }

    /// The value of a selectable field.
    fn field(&self, object: &Value, name: &str) -> String {
        let path: Vec<&str> = name.split('.').collect();
        match types::at(object, &path) {
            Some(Value::String(s)) => s.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    /// Changes an object that a user deletes, before anything else is done to it; `now` is the present moment.
    fn prepare_delete(&self, _object: &mut Value, _now: &str) {}

    /// Seconds that an object of this kind lingers after a delete, when nobody says how long; `None` where
    /// deletion is immediate.
    fn grace(&self, _object: &Value) -> Option<i64> {
        None
    }

    /// Whether a PUT to a name that does not exist creates the object.
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether objects of this kind count generations.
    fn has_generation(&self) -> bool {
        true
    }

    /// The columns of a table of such objects.
    fn columns(&self) -> &'static [Column] {
        const { &[NAME, AGE] }
    }

    /// The columns as a Table describes them.
    fn column_definitions(&self) -> Vec<Value> {
        let describe = |c: &Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": "", "priority": c.priority});
        self.columns().iter().map(describe).collect()
    }

    /// An object's cells, one for each column.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), json!(crate::table::age(object, now))]
    }

    /// Things in a new object that work but should be said.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// Translates between a version and the stored one.
pub trait Convert: Send + Sync {
    /// To the stored version; `apiVersion` and `kind` are set by the caller.
    fn store(&self, object: &mut Value);
    /// From the stored version.
    fn show(&self, object: &mut Value);
}
