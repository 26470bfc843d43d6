//! `AuthenticationConfiguration`: identity providers and who may stay unknown, in a file.

use auth::JwtAuthenticator;
use serde_json::Value;
use types::{FieldErrors, Path};

use super::{Identities, Issuer};
use crate::access::Anonymous;
use crate::config_file::{self, ConfigFileError, Form};
use crate::state::Inner;

const MAPPING: Form =
    Form::Object(&[("claim", Form::Text), ("prefix", Form::Text), ("expression", Form::Text)]);

const FORM: Form = Form::Object(&[
    ("apiVersion", Form::Text),
    ("kind", Form::Text),
    ("jwt", Form::List(&PROVIDER)),
    (
        "anonymous",
        Form::Object(&[
            ("enabled", Form::Flag),
            ("conditions", Form::List(&Form::Object(&[("path", Form::Text)]))),
        ]),
    ),
]);

const PROVIDER: Form = Form::Object(&[
    (
        "issuer",
        Form::Object(&[
            ("url", Form::Text),
            ("discoveryURL", Form::Text),
            ("certificateAuthority", Form::Text),
            ("audiences", Form::List(&Form::Text)),
            ("audienceMatchPolicy", Form::Text),
        ]),
    ),
    (
        "claimValidationRules",
        Form::List(&Form::Object(&[
            ("claim", Form::Text),
            ("requiredValue", Form::Text),
            ("expression", Form::Text),
            ("message", Form::Text),
        ])),
    ),
    (
        "claimMappings",
        Form::Object(&[
            ("username", MAPPING),
            ("groups", MAPPING),
            ("uid", Form::Object(&[("claim", Form::Text), ("expression", Form::Text)])),
            ("extra", Form::List(&Form::Object(&[("key", Form::Text), ("valueExpression", Form::Text)]))),
        ]),
    ),
    (
        "userValidationRules",
        Form::List(&Form::Object(&[("expression", Form::Text), ("message", Form::Text)])),
    ),
]);

/// Reads the file's text. `own` are the issuers of service accounts' tokens, `flag` what a flag says of those who stay
/// unknown.
pub(crate) fn read(
    text: &str,
    own: &[&str],
    flag: Option<&Anonymous>,
) -> Result<Identities, ConfigFileError> {
    let file = config_file::read(text, "AuthenticationConfiguration", &FORM)?;
    let mut errors = FieldErrors::new();
    let rules = JwtAuthenticator::read_all(&file["jwt"], own, &mut errors);
    let root = Path::new("jwt");
    let mut issuers = Vec::new();
    for (i, rules) in rules.into_iter().enumerate() {
        match Issuer::new(rules) {
            Ok(issuer) => issuers.push(issuer),
            Err(error) => {
                let place = root.index(i);
                errors.add("FieldValueInvalid", place.child("issuer").to_string(), error.to_string());
            }
        }
    }
    let given = file.get("anonymous").filter(|a| a.is_object());
    if given.is_some() && flag.is_some() {
        return Err(ConfigFileError::Together(
            "anonymous is set in the file, so that --anonymous-auth cannot be given, too",
        ));
    }
    let anonymous = match given {
        None => flag.cloned().unwrap_or(Anonymous::Everywhere),
        Some(given) => anonymous(given, &mut errors),
    };
    if errors.is_empty() {
        Ok(Identities { issuers, anonymous })
    } else {
        Err(ConfigFileError::Fields(errors))
    }
}

fn anonymous(given: &Value, errors: &mut FieldErrors) -> Anonymous {
    let path = Path::new("anonymous");
    let list = given["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let paths: Vec<String> = list.iter().map(|c| c["path"].as_str().unwrap_or_default().to_owned()).collect();
    for (i, one) in paths.iter().enumerate() {
        if one.is_empty() {
            errors.required(&path.child("conditions").index(i).child("path"), "");
        }
    }
    match (given["enabled"] == true, paths.is_empty()) {
        (false, true) => Anonymous::Nowhere,
        (false, false) => {
            let why = "enabled should be set to true when conditions are defined";
            errors.invalid(&path.child("conditions"), given["conditions"].clone(), why);
            Anonymous::Nowhere
        }
        (true, true) => Anonymous::Everywhere,
        (true, false) => Anonymous::Paths(paths),
    }
}

/// Takes over what the file says now.
pub(crate) fn apply(server: &Inner, text: &str) -> Result<(), ConfigFileError> {
    let config = &server.config;
    let own: Vec<&str> = config.tokens.issuers().iter().map(String::as_str).collect();
    server.change_identities(read(text, &own, config.access.anonymous.as_ref())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let file =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{text}");
        read(&file, &["https://me"], None).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn files_that_make_no_sense_are_refused() {
        assert_eq!(told(""), "");
        assert_eq!(told("anonymous: {enabled: true, conditions: [{path: /livez}]}"), "");
        for (text, why) in [
            (
                "anonymous: {conditions: [{path: /livez}]}",
                "enabled should be set to true when conditions are defined",
            ),
            ("anonymous: {enabled: 1}", "anonymous.enabled: Invalid value: 1: must be true or false"),
            ("anonymous: {enabled: true, conditions: [{}]}", "anonymous.conditions[0].path: Required value"),
            ("jwt: [{issuers: {}}]", "jwt[0].issuers: unknown field"),
            (
                "jwt: [{issuer: {url: 'https://me', audiences: [a]}}]",
                "URL must not overlap with disallowed issuers",
            ),
            ("jwt: [{}]", "jwt[0].issuer.url: Required value"),
            ("jwt: [{}]", "jwt[0].claimMappings.username: Required value: claim or expression is required"),
        ] {
            assert!(told(text).contains(why), "{text}: {}", told(text));
        }
    }
}
