//! ConfigMaps, Secrets, ServiceAccounts and quotas.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::protobuf::base64;
use types::{FieldErrors, Path, at, ensure_object, set_default, str_at};

use crate::strategy::Strategy;
use crate::table::{self, Column};

/// One MiB, as upstream's `MaxSecretSize`.
const MOST_BYTES: usize = 1024 * 1024;

fn validate_keys(object: &Value, fields: &[&str], errors: &mut FieldErrors) {
    let mut size = 0;
    for field in fields {
        let path = Path::new(field);
        for (key, value) in at(object, &[field]).and_then(Value::as_object).into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if key.len() > 253 {
                errors.invalid(&path.key(key), key.as_str(), "must be no more than 253 bytes");
            }
            if key.is_empty() || !key.chars().all(legal) {
                errors.invalid(&path.key(key), key.as_str(), "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')");
            } else if key == "." || key == ".." || key.starts_with("..") {
                errors.invalid(&path.key(key), key.as_str(), &format!("must not be '{key}'"));
            }
        }
    }
    if size > MOST_BYTES {
        errors.too_long(&Path::new(fields[0]), MOST_BYTES);
    }
}

fn validate_immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut FieldErrors) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if new[field] != old[field] {
            errors.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
        }
    }
}

pub(super) struct ConfigMap;

impl Strategy for ConfigMap {
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_keys(object, &["data", "binaryData"], errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        validate_immutable(new, old, &["data", "binaryData"], errors);
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::CONFIG_MAP
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::config_map_cells(object, now)
    }
}

pub(super) struct Secret;

impl Strategy for Secret {
    /// `stringData` is for writing only: it goes into `data`.
    fn default(&self, object: &mut Value) {
        set_default(object, "type", "Opaque");
        let Some(Value::Object(plain)) = object.as_object_mut().and_then(|o| o.remove("stringData")) else {
            return;
        };
        let data = ensure_object(object, "data");
        for (key, value) in plain {
            data[&key] = base64(value.as_str().unwrap_or_default().as_bytes()).into();
        }
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_keys(object, &["data"], errors);
        let path = Path::new("data");
        let needed: &[&str] = match str_at(object, &["type"]).unwrap_or_default() {
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            _ => &[],
        };
        for key in needed {
            if at(object, &["data", key]).is_none() {
                errors.required(&path.key(key), "");
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        if new["type"] != old["type"] {
            errors.immutable(&Path::new("type"), &new["type"]);
        }
        validate_immutable(new, old, &["data"], errors);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::SECRET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::secret_cells(object, now)
    }
}

pub(super) struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn prepare_create(&self, _object: &mut Value) {}

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::SERVICE_ACCOUNT
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::service_account_cells(object, now)
    }
}

pub(super) struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn columns(&self) -> &'static [Column] {
        table::RESOURCE_QUOTA
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::resource_quota_cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut object = json!({"stringData": {"a": "hello", "b": "hi", "c": "foobar"}});
        Secret.default(&mut object);
        assert_eq!(
            object,
            json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "aGk=", "c": "Zm9vYmFy"}})
        );
    }

    #[test]
    fn immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let mut errors = FieldErrors::new();
        ConfigMap.validate_update(&json!({"immutable": true, "data": {"a": "2"}}), &old, &mut errors);
        assert_eq!(errors.to_string(), "data: Forbidden: field is immutable when `immutable` is set");
    }
}
