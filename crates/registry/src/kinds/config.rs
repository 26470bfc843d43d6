//! ConfigMaps, Secrets and ServiceAccounts (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::protobuf::base64;
use types::{FieldErrors, Path, at, config_map_key, ensure_object, set_default, str_at};

use super::check::*;
use crate::strategy::Strategy;
use crate::table::{self, Column};

/// One MiB, as upstream's `MaxSecretSize`.
const MOST_BYTES: usize = 1024 * 1024;

/// Checks the keys of a map and tells how many bytes its values have.
fn validate_keys(object: &Value, field: &str, is_base64: bool, errors: &mut FieldErrors) -> usize {
    let path = Path::new(field);
    let mut size = 0;
    for (key, value) in entries(object, field) {
        faults(config_map_key(key), key, &path.key(key), errors);
        let text = value.as_str().unwrap_or_default();
        size += if is_base64 { base64_size(text) } else { text.len() };
    }
    size
}

/// How many bytes base64 text stands for.
fn base64_size(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn validate_immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut FieldErrors) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if !same_field(new, old, field) {
            errors.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
        }
    }
}

pub(super) struct ConfigMap;

impl Strategy for ConfigMap {
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let mut size = validate_keys(object, "data", false, errors);
        for (key, _) in entries(object, "data") {
            if object.get("binaryData").is_some_and(|b| b.get(key).is_some()) {
                let why = "duplicate of key present in binaryData";
                errors.invalid(&Path::new("data").key(key), key, why);
            }
        }
        size += validate_keys(object, "binaryData", true, errors);
        if size > MOST_BYTES {
            errors.too_long(&Path::new(""), MOST_BYTES);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        validate_immutable(new, old, &["data", "binaryData"], errors);
        self.validate_create(new, errors);
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

/// A key whose value must be an object in JSON.
fn validate_json(object: &Value, key: &str, errors: &mut FieldErrors) {
    let root = Path::new("data");
    let path = root.key(key);
    let Some(text) = at(object, &["data", key]).and_then(Value::as_str) else {
        return errors.required(&path, "");
    };
    let bytes = decode_base64(text).unwrap_or_default();
    if let Err(fault) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        errors.invalid(&path, "<secret contents redacted>", &fault.to_string());
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
        let path = Path::new("data");
        if validate_keys(object, "data", true, errors) > MOST_BYTES {
            errors.too_long(&path, MOST_BYTES);
        }
        let has_key = |key: &str| object.get("data").is_some_and(|d| d.get(key).is_some());
        match text(object, "type") {
            "kubernetes.io/service-account-token" => {
                const ACCOUNT: &str = "kubernetes.io/service-account.name";
                if annotation(object, ACCOUNT).unwrap_or_default().is_empty() {
                    let meta = Path::new("metadata");
                    errors.required(&meta.child("annotations").key(ACCOUNT), "");
                }
            }
            "kubernetes.io/dockercfg" => validate_json(object, ".dockercfg", errors),
            "kubernetes.io/dockerconfigjson" => validate_json(object, ".dockerconfigjson", errors),
            "kubernetes.io/basic-auth" if !has_key("username") && !has_key("password") => {
                errors.required(&path.key("username"), "");
                errors.required(&path.key("password"), "");
            }
            "kubernetes.io/ssh-auth" if str_at(object, &["data", "ssh-privatekey"]).is_none() => {
                errors.required(&path.key("ssh-privatekey"), "");
            }
            "kubernetes.io/tls" => {
                for key in ["tls.crt", "tls.key"].iter().filter(|k| !has_key(k)) {
                    errors.required(&path.key(key), "");
                }
            }
            _ => {}
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if new["type"] != old["type"] {
            errors.immutable(&Path::new("type"), &new["type"]);
        }
        validate_immutable(new, old, &["data"], errors);
        self.validate_create(new, errors);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
