//! `AuthorizationConfiguration`: who is asked, in a file (kubernetes/kubernetes,
//! `apiserver/pkg/apis/apiserver/validation/validation.go`).

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use types::{FieldErrors, Path, dns_subdomain, str_at};

use super::webhook::{condition, conditions_env};
use super::{AuthorizationWebhook, AuthorizationWebhookOptions, AuthorizerConfig};
use crate::config_file::{self, ConfigFileError, Form};
use crate::outbound::Remote;
use crate::state::Inner;

const FORM: Form = Form::Object(&[
    ("apiVersion", Form::Text),
    ("kind", Form::Text),
    ("authorizers", Form::List(&AUTHORIZER)),
]);

const AUTHORIZER: Form = Form::Object(&[
    ("type", Form::Text),
    ("name", Form::Text),
    (
        "webhook",
        Form::Object(&[
            ("authorizedTTL", Form::Time),
            ("cacheAuthorizedRequests", Form::Flag),
            ("unauthorizedTTL", Form::Time),
            ("cacheUnauthorizedRequests", Form::Flag),
            ("timeout", Form::Time),
            ("subjectAccessReviewVersion", Form::Text),
            ("matchConditionSubjectAccessReviewVersion", Form::Text),
            ("failurePolicy", Form::Text),
            ("connectionInfo", Form::Object(&[("type", Form::Text), ("kubeConfigFile", Form::Text)])),
            ("matchConditions", Form::List(&Form::Object(&[("expression", Form::Text)]))),
        ]),
    ),
]);

const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const MOST_CONDITIONS: usize = 64;

/// Reads the file's text.
pub(crate) fn read(text: &str) -> Result<Vec<AuthorizerConfig>, ConfigFileError> {
    let file = config_file::read(text, "AuthorizationConfiguration", &FORM)?;
    let mut errors = FieldErrors::new();
    let root = Path::new("authorizers");
    let list = file["authorizers"].as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        errors.required(&root, "at least one authorization mode must be defined");
    }
    let (mut kinds, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut authorizers = Vec::new();
    for (i, entry) in list.iter().enumerate() {
        let path = root.index(i);
        let kind = str_at(entry, &["type"]).unwrap_or_default();
        if kind.is_empty() {
            errors.required(&path.child("type"), "");
            continue;
        }
        if !TYPES.contains(&kind) {
            errors.not_supported(&path.child("type"), kind, &TYPES);
            continue;
        }
        if !kinds.insert(kind) && kind != "Webhook" {
            errors.duplicate(&path.child("type"), kind);
            continue;
        }
        let name = str_at(entry, &["name"]).unwrap_or_default();
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        } else if let Some(why) = dns_subdomain(name) {
            errors.invalid(&path.child("name"), name, &format!("authorizer name is invalid: {why}"));
        }
        let hook = entry.get("webhook").filter(|w| !w.is_null());
        let path = path.child("webhook");
        authorizers.extend(match (kind, hook) {
            ("Webhook", None) => {
                errors.required(&path, "required when type=Webhook");
                None
            }
            ("Webhook", Some(hook)) => {
                webhook(hook, &path, &mut errors).map(|w| AuthorizerConfig::Webhook(Arc::new(w)))
            }
            (_, Some(_)) => {
                errors.invalid(&path, "non-null", "may only be specified when type=Webhook");
                None
            }
            ("AlwaysAllow", None) => Some(AuthorizerConfig::AlwaysAllow),
            ("AlwaysDeny", None) => Some(AuthorizerConfig::AlwaysDeny),
            ("Node", None) => Some(AuthorizerConfig::Node),
            (_, None) => Some(AuthorizerConfig::Rbac),
        });
    }
    if errors.is_empty() { Ok(authorizers) } else { Err(ConfigFileError::Fields(errors)) }
}

/// A time that must be positive, and may be given or not.
fn time(
    hook: &Value,
    field: &'static str,
    default: Option<Duration>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) -> Duration {
    let nanos = hook.get(field).and_then(config_file::time).unwrap_or(0);
    match (u64::try_from(nanos), default) {
        (Ok(0), None) => errors.required(&path.child(field), ""),
        (Ok(0), Some(default)) => return default,
        (Ok(nanos), _) => return Duration::from_nanos(nanos),
        (Err(_), _) => errors.invalid(&path.child(field), hook[field].clone(), "must be > 0s"),
    }
    Duration::ZERO
}

fn choice<'a>(
    hook: &'a Value,
    field: &'static str,
    choices: &[&str],
    needed: Option<&str>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) -> &'a str {
    let value = str_at(hook, &[field]).unwrap_or_default();
    if value.is_empty() {
        if let Some(why) = needed {
            errors.required(&path.child(field), why);
        }
    } else if !choices.contains(&value) {
        errors.not_supported(&path.child(field), value, choices);
    }
    value
}

fn webhook(hook: &Value, path: &Path<'_>, errors: &mut FieldErrors) -> Option<AuthorizationWebhook> {
    let before = errors.len();
    let usual = AuthorizationWebhookOptions::default();
    let timeout = time(hook, "timeout", None, path, errors);
    if timeout > Duration::from_secs(30) {
        errors.invalid(&path.child("timeout"), hook["timeout"].clone(), "must be > 0s and <= 30s");
    }
    let allowed = time(hook, "authorizedTTL", Some(usual.allowed), path, errors);
    let denied = time(hook, "unauthorizedTTL", Some(usual.denied), path, errors);
    let version = choice(hook, "subjectAccessReviewVersion", &["v1", "v1beta1"], Some(""), path, errors);
    let list = hook["matchConditions"].as_array().map_or(&[][..], Vec::as_slice);
    let needed = (!list.is_empty()).then_some("required if match conditions are specified");
    choice(hook, "matchConditionSubjectAccessReviewVersion", &["v1"], needed, path, errors);
    let policy = choice(hook, "failurePolicy", &["NoOpinion", "Deny"], Some(""), path, errors);
    let remote = connection(&hook["connectionInfo"], &path.child("connectionInfo"), errors);
    let conditions_path = path.child("matchConditions");
    if list.len() > MOST_CONDITIONS {
        errors.too_many(&conditions_path, list.len(), MOST_CONDITIONS);
        return None;
    }
    let env = conditions_env();
    let (mut seen, mut conditions) = (BTreeSet::new(), Vec::new());
    for (i, entry) in list.iter().enumerate() {
        let place = conditions_path.index(i);
        let path = place.child("expression");
        let source = str_at(entry, &["expression"]).unwrap_or_default();
        if source.trim().is_empty() {
            errors.required(&path, "");
        } else if !seen.insert(source) {
            errors.duplicate(&path, source);
        } else {
            match condition(&env, source) {
                Ok(program) => conditions.push(program),
                Err(why) => errors.invalid(&path, source, &why),
            }
        }
    }
    if errors.len() > before {
        return None;
    }
    let hold = |field: &str, time: Duration| if hook[field] == false { Duration::ZERO } else { time };
    let options = AuthorizationWebhookOptions {
        timeout,
        allowed: hold("cacheAuthorizedRequests", allowed),
        denied: hold("cacheUnauthorizedRequests", denied),
        fail_closed: policy == "Deny",
        beta: version == "v1beta1",
    };
    Some(AuthorizationWebhook::new(remote?, options).with_programs(conditions))
}

fn connection(info: &Value, path: &Path<'_>, errors: &mut FieldErrors) -> Option<Remote> {
    let file = str_at(info, &["kubeConfigFile"]).unwrap_or_default();
    match str_at(info, &["type"]).unwrap_or_default() {
        "" => errors.required(&path.child("type"), ""),
        "KubeConfigFile" => {
            let path = path.child("kubeConfigFile");
            if file.is_empty() {
                errors.required(&path, "");
            } else if !FilePath::new(file).is_absolute() {
                errors.invalid(&path, file, "must be an absolute path");
            } else {
                match kubeconfig(FilePath::new(file)) {
                    Ok(remote) => return Some(remote),
                    Err(why) => errors.invalid(&path, file, &why),
                }
            }
        }
        // The cluster that this server would be in is the one that it serves.
        kind => errors.not_supported(&path.child("type"), kind, &["KubeConfigFile"]),
    }
    None
}

fn kubeconfig(path: &FilePath) -> Result<Remote, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("error loading file: {e}"))?;
    let config: Value = serde_norway::from_str(&text).map_err(|e| format!("it is no YAML: {e}"))?;
    Remote::of_kubeconfig(&config, path.parent().unwrap_or(FilePath::new("/"))).map_err(|e| e.to_string())
}

/// Takes over what the file says now.
pub(crate) fn apply(server: &Inner, text: &str) -> Result<(), ConfigFileError> {
    server.authorization.change(&read(text)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(authorizers: Value) -> Vec<String> {
        let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers});
        match read(&file.to_string()) {
            Ok(_) => Vec::new(),
            Err(ConfigFileError::Fields(errors)) => {
                errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
            }
            Err(other) => vec![other.to_string()],
        }
    }

    #[test]
    fn every_mistake_is_told() {
        assert_eq!(
            told(json!([{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}])).len(),
            0
        );
        assert_eq!(
            told(json!([])),
            ["authorizers: Required value: at least one authorization mode must be defined"]
        );
        let hook = json!({"timeout": "40s", "authorizedTTL": "-1s", "subjectAccessReviewVersion": "v2", "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "x"},
            "matchConditions": [{"expression": "request.user == 'a'"}, {"expression": "request.user == 'a'"}, {"expression": "request.user"}, {"expression": "request.nobody == ''"}, {"expression": " "}]});
        let told = told(json!([{}, {"type": "ABAC"}, {"type": "RBAC", "name": "A"}, {"type": "RBAC", "name": "b"}, {"type": "Webhook", "name": "w", "webhook": hook},
            {"type": "Webhook", "name": "w"}, {"type": "Node", "name": "n", "webhook": {}}]))
        .join("\n");
        for part in [
            "authorizers[0].type: Required value",
            r#"authorizers[1].type: Unsupported value: "ABAC": supported values: "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook""#,
            r#"authorizers[2].name: Invalid value: "A": authorizer name is invalid"#,
            r#"authorizers[3].type: Duplicate value: "RBAC""#,
            r#"authorizers[4].webhook.timeout: Invalid value: "40s": must be > 0s and <= 30s"#,
            r#"authorizers[4].webhook.authorizedTTL: Invalid value: "-1s": must be > 0s"#,
            r#"authorizers[4].webhook.subjectAccessReviewVersion: Unsupported value: "v2": supported values: "v1", "v1beta1""#,
            "authorizers[4].webhook.matchConditionSubjectAccessReviewVersion: Required value: required if match conditions",
            "authorizers[4].webhook.failurePolicy: Required value",
            r#"authorizers[4].webhook.connectionInfo.kubeConfigFile: Invalid value: "x": must be an absolute path"#,
            "authorizers[4].webhook.matchConditions[1].expression: Duplicate value",
            r#"authorizers[4].webhook.matchConditions[2].expression: Invalid value: "request.user": must evaluate to bool"#,
            "authorizers[4].webhook.matchConditions[3].expression: Invalid value: \"request.nobody == ''\": compilation failed",
            "authorizers[4].webhook.matchConditions[4].expression: Required value",
            r#"authorizers[5].name: Duplicate value: "w""#,
            "authorizers[5].webhook: Required value: required when type=Webhook",
            "authorizers[6].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
        ] {
            assert!(told.contains(part), "{part}\nin\n{told}");
        }
        let odd =
            super::tests::told(json!([{"type": 1, "nme": "x", "webhook": {"timeout": "soon"}}])).join("\n");
        assert!(odd.contains("authorizers[0].type: Invalid value: 1: must be a text"), "{odd}");
        assert!(odd.contains("authorizers[0].nme: unknown field"), "{odd}");
        assert!(
            odd.contains("authorizers[0].webhook.timeout: Invalid value: \"soon\": must be a duration"),
            "{odd}"
        );
        assert!(
            read("kind: Pod").unwrap_err().to_string().starts_with("it is no AuthorizationConfiguration")
        );
        assert!(read("{").unwrap_err().to_string().starts_with("it is no YAML"));
    }

    proptest! {
        #[test]
        fn no_file_is_too_odd(text in "\\PC{0,120}") {
            let file = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {text}");
            let _ = read(&file);
        }
    }
}
