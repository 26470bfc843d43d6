//! An identity provider's configuration, and all that can be wrong with it (kubernetes/kubernetes,
//! `apiserver/pkg/apis/apiserver/validation/validation.go`).

use std::collections::BTreeSet;

use cel::{Decl, Env, Program, Type};
use serde_json::Value;
use types::{FieldErrors, Path, validate_domain_prefixed_path};

use super::{ALGORITHMS, JwtAuthenticator, Mapping};
use crate::ClientAuthority;

const MOST_PROVIDERS: usize = 64;

fn claims_env() -> Env {
    Env::builder().variable("claims", Type::map(Type::String, Type::Dyn)).build()
}

fn user_env() -> Env {
    let texts = || Type::list(Type::String);
    let user = Type::record(
        "kubernetes.UserInfo",
        [
            ("username".to_owned(), Decl::new(Type::String)),
            ("uid".to_owned(), Decl::new(Type::String)),
            ("groups".to_owned(), Decl::new(texts())),
            ("extra".to_owned(), Decl::new(Type::map(Type::String, texts()))),
        ],
    );
    Env::builder().variable("user", user).build()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn each<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().enumerate()
}

/// Compiles an expression; rules must be true or false.
fn compile(
    env: &Env,
    source: &str,
    rule: bool,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) -> Option<Program> {
    match env.compile(source) {
        Ok(program) if rule && *program.result_type() != Type::Bool => {
            errors.invalid(path, source, "must evaluate to bool");
            None
        }
        Ok(program) => Some(program),
        Err(error) => {
            errors.invalid(path, source, &format!("compilation failed: {error}"));
            None
        }
    }
}

/// Whether an expression reads a claim by its name, as `claims.name` or `claims.?name`.
fn reads(source: &str, claim: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    source.match_indices("claims").any(|(at, found)| {
        let before = source[..at].chars().next_back();
        let rest = source[at + found.len()..].trim_start();
        let rest = rest.strip_prefix('.').map(|r| r.strip_prefix('?').unwrap_or(r).trim_start());
        let after = rest.and_then(|r| r.strip_prefix(claim));
        !before.is_some_and(|c| part(c) || c == '.') && after.is_some_and(|a| !a.starts_with(part))
    })
}

impl JwtAuthenticator {
    /// The providers of `jwt` in an `AuthenticationConfiguration`; `own` are issuers that no provider may be. What is
    /// wrong is told of each.
    pub fn read_all(list: &Value, own: &[&str], errors: &mut FieldErrors) -> Vec<Self> {
        let root = Path::new("jwt");
        let entries: Vec<&Value> = list.as_array().into_iter().flatten().collect();
        if entries.len() > MOST_PROVIDERS {
            errors.too_many(&root, entries.len(), MOST_PROVIDERS);
            return Vec::new();
        }
        let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
        let mut providers = Vec::new();
        for (i, entry) in entries.into_iter().enumerate() {
            let path = root.index(i);
            providers.extend(Self::read_at(entry, own, &path, errors));
            let issuer = path.child("issuer");
            for (field, seen) in [("url", &mut urls), ("discoveryURL", &mut discoveries)] {
                let value = text(&entry["issuer"], field);
                if !value.is_empty() && !seen.insert(value) {
                    errors.duplicate(&issuer.child(field), value);
                }
            }
        }
        providers
    }

    /// One entry of that list.
    pub fn read(config: &Value) -> Result<Self, super::JwtConfigError> {
        let mut errors = FieldErrors::new();
        let read = Self::read_at(config, &[], &Path::new("jwt"), &mut errors);
        read.ok_or(super::JwtConfigError::Fields(errors))
    }

    fn read_at(config: &Value, own: &[&str], path: &Path<'_>, errors: &mut FieldErrors) -> Option<Self> {
        let before = errors.len();
        check_issuer(&config["issuer"], own, &path.child("issuer"), errors);
        let issuer = &config["issuer"];
        let env = claims_env();
        let mut required = Vec::new();
        let mut claim_rules = Vec::new();
        let rules = path.child("claimValidationRules");
        let (mut seen_claims, mut seen_sources) = (BTreeSet::new(), BTreeSet::new());
        let mut verified = false;
        for (i, rule) in each(config, "claimValidationRules") {
            let path = rules.index(i);
            let (claim, source) = (text(rule, "claim"), text(rule, "expression"));
            let (value, message) = (text(rule, "requiredValue"), text(rule, "message"));
            match (claim.is_empty(), source.is_empty()) {
                (false, false) => errors.invalid(&path, claim, "claim and expression can't both be set"),
                (true, true) => errors.required(&path, "claim or expression is required"),
                (false, true) => {
                    if !message.is_empty() {
                        errors.invalid(
                            &path.child("message"),
                            message,
                            "may not be specified when claim is set",
                        );
                    }
                    if !seen_claims.insert(claim) {
                        errors.duplicate(&path.child("claim"), claim);
                    }
                    required.push((claim.to_owned(), value.to_owned()));
                }
                (true, false) => {
                    if !value.is_empty() {
                        let why = "may not be specified when expression is set";
                        errors.invalid(&path.child("requiredValue"), value, why);
                    }
                    if !seen_sources.insert(source) {
                        errors.duplicate(&path.child("expression"), source);
                        continue;
                    }
                    verified |= reads(source, "email_verified");
                    let program = compile(&env, source, true, &path.child("expression"), errors);
                    claim_rules.extend(program.map(|p| (p, message.to_owned())));
                }
            }
        }
        let mappings = path.child("claimMappings");
        let given = &config["claimMappings"];
        let username = mapping(given, "username", Prefix::Needed, &env, &mappings, errors);
        if text(&given["username"], "claim").is_empty() && text(&given["username"], "expression").is_empty() {
            errors.required(&mappings.child("username"), "claim or expression is required");
        }
        let groups = mapping(given, "groups", Prefix::Needed, &env, &mappings, errors);
        let uid = mapping(given, "uid", Prefix::Unknown, &env, &mappings, errors);
        let extra = extra(given, &env, &mappings, &mut verified, errors);
        let name = text(&given["username"], "expression");
        verified |= reads(name, "email_verified");
        if reads(name, "email") && !verified {
            let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
            errors.invalid(&mappings.child("username").child("expression"), name, why);
        }
        let users = user_env();
        let mut user_rules = Vec::new();
        let rules = path.child("userValidationRules");
        let mut seen = BTreeSet::new();
        for (i, rule) in each(config, "userValidationRules") {
            let (place, source) = (rules.index(i), text(rule, "expression"));
            let path = place.child("expression");
            if source.is_empty() {
                errors.required(&path, "");
            } else if !seen.insert(source) {
                errors.duplicate(&path, source);
            } else {
                let program = compile(&users, source, true, &path, errors);
                user_rules.extend(program.map(|p| (p, text(rule, "message").to_owned())));
            }
        }
        if errors.len() > before {
            return None;
        }
        Some(Self {
            issuer: text(issuer, "url").to_owned(),
            discovery_url: Some(text(issuer, "discoveryURL")).filter(|u| !u.is_empty()).map(str::to_owned),
            authority: text(issuer, "certificateAuthority").to_owned(),
            audiences: each(issuer, "audiences").filter_map(|(_, a)| a.as_str()).map(str::to_owned).collect(),
            algorithms: ALGORITHMS.to_vec(),
            username: username?,
            groups,
            uid,
            extra,
            required,
            claim_rules,
            user_rules,
        })
    }
}

fn check_url(url: &str, own: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    if own.contains(&url) {
        errors.invalid(path, url, &format!("URL must not overlap with disallowed issuers: {own:?}"));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return errors.invalid(path, url, "URL scheme must be https");
    };
    if scheme != "https" {
        errors.invalid(path, url, "URL scheme must be https");
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        errors.invalid(path, url, "URL must have a host");
    }
    if host.contains('@') {
        errors.invalid(path, url, "URL must not contain a username or password");
    }
    if !query.is_empty() {
        errors.invalid(path, url, "URL must not contain a query");
    }
    if !fragment.is_empty() {
        errors.invalid(path, url, "URL must not contain a fragment");
    }
}

fn check_issuer(issuer: &Value, own: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    let (url, discovery) = (text(issuer, "url"), text(issuer, "discoveryURL"));
    if url.is_empty() {
        errors.required(&path.child("url"), "");
    } else {
        check_url(url, own, &path.child("url"), errors);
    }
    if !discovery.is_empty() {
        let path = path.child("discoveryURL");
        if url.trim_end_matches('/') == discovery.trim_end_matches('/') {
            errors.invalid(&path, discovery, "discoveryURL must be different from URL");
        }
        check_url(discovery, &[], &path, errors);
    }
    let audiences = path.child("audiences");
    let list: Vec<&str> = each(issuer, "audiences").map(|(_, a)| a.as_str().unwrap_or_default()).collect();
    if list.is_empty() {
        errors.required(&audiences, &format!("at least one {audiences} is required"));
    }
    for (i, audience) in list.iter().enumerate() {
        if audience.is_empty() {
            errors.required(&audiences.index(i), "");
        } else if list[..i].contains(audience) {
            errors.duplicate(&audiences.index(i), *audience);
        }
    }
    let policy = text(issuer, "audienceMatchPolicy");
    let matching = path.child("audienceMatchPolicy");
    if list.len() > 1 && policy != "MatchAny" {
        errors.invalid(&matching, policy, "audienceMatchPolicy must be MatchAny for multiple audiences");
    }
    if list.len() == 1 && !matches!(policy, "" | "MatchAny") {
        errors.invalid(
            &matching,
            policy,
            "audienceMatchPolicy must be empty or MatchAny for single audience",
        );
    }
    let authority = text(issuer, "certificateAuthority");
    if !authority.is_empty()
        && let Err(error) = ClientAuthority::new(authority)
    {
        errors.invalid(&path.child("certificateAuthority"), "<omitted>", &error.to_string());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    /// Where there is a claim.
    Needed,
    /// There is no such thing here.
    Unknown,
}

fn mapping(
    mappings: &Value,
    name: &str,
    prefix: Prefix,
    env: &Env,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) -> Option<Mapping> {
    let (value, path) = (&mappings[name], path.child(name));
    let (claim, source) = (text(value, "claim"), text(value, "expression"));
    let prefixed = value.get("prefix").is_some_and(|p| !p.is_null());
    match (claim.is_empty(), source.is_empty()) {
        (false, false) => {
            errors.invalid(&path, "", "claim and expression can't both be set");
            None
        }
        (true, true) => None,
        (false, true) => {
            if prefix == Prefix::Needed && !prefixed {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.required(&path.child("prefix"), why);
            }
            Some(Mapping::Claim { claim: claim.to_owned(), prefix: text(value, "prefix").to_owned() })
        }
        (true, false) => {
            if prefixed {
                let why = "may not be specified when expression is set";
                errors.invalid(&path.child("prefix"), text(value, "prefix"), why);
            }
            compile(env, source, false, &path.child("expression"), errors).map(Mapping::Expression)
        }
    }
}

fn extra(
    mappings: &Value,
    env: &Env,
    path: &Path<'_>,
    verified: &mut bool,
    errors: &mut FieldErrors,
) -> Vec<(String, Program)> {
    let list = path.child("extra");
    let (mut seen, mut programs) = (BTreeSet::new(), Vec::new());
    for (i, entry) in each(mappings, "extra") {
        let place = list.index(i);
        let (key, source) = (text(entry, "key"), text(entry, "valueExpression"));
        let path = place.child("key");
        validate_domain_prefixed_path(key, &path, errors);
        if key != key.to_lowercase() {
            errors.invalid(&path, key, "must be lowercase");
        }
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        if ["kubernetes.io", "k8s.io"].iter().any(|d| domain == *d || domain.ends_with(&format!(".{d}"))) {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.invalid(&path, key, why);
        }
        if !seen.insert(key) {
            errors.duplicate(&path, key);
            continue;
        }
        let path = place.child("valueExpression");
        if source.is_empty() {
            errors.required(&path, "");
            continue;
        }
        *verified |= reads(source, "email_verified");
        programs.extend(compile(env, source, false, &path, errors).map(|p| (key.to_owned(), p)));
    }
    programs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(list: &Value) -> Vec<String> {
        let mut errors = FieldErrors::new();
        let read = JwtAuthenticator::read_all(list, &["https://me"], &mut errors);
        let faults: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        assert_eq!(
            read.len() == list.as_array().unwrap().len(),
            faults.iter().all(|f| f.contains("Duplicate"))
        );
        faults
    }

    #[test]
    fn every_mistake_is_told() {
        let good = json!({"issuer": {"url": "https://a", "audiences": ["x"]},
            "claimMappings": {"username": {"claim": "sub", "prefix": ""}}});
        assert_eq!(faults(&json!([good])), Vec::<String>::new());
        assert_eq!(faults(&json!([good, good])), [r#"jwt[1].issuer.url: Duplicate value: "https://a""#]);
        let bad = json!({
            "issuer": {"url": "http://u@me?q#f", "discoveryURL": "http://u@me?q#f", "audiences": ["x", "x", ""], "certificateAuthority": "?"},
            "claimMappings": {"username": {"claim": "sub"}, "groups": {"expression": "claims.", "prefix": "x"}, "uid": {"claim": "a", "expression": "b"},
                "extra": [{"key": "A/b", "valueExpression": ""}, {"key": "k8s.io/x", "valueExpression": "'x'"}]},
            "claimValidationRules": [{"claim": "a", "message": "m"}, {"expression": "claims.x == 1", "requiredValue": "v"}, {}, {"expression": "'text'"}],
            "userValidationRules": [{"expression": "user.nothing"}, {}],
        });
        let told = faults(&json!([bad])).join("\n");
        for part in [
            "jwt[0].issuer.url: Invalid value: \"http://u@me?q#f\": URL scheme must be https",
            "jwt[0].issuer.url: Invalid value: \"http://u@me?q#f\": URL must not contain a username or password",
            "URL must not contain a query",
            "URL must not contain a fragment",
            "jwt[0].issuer.discoveryURL: Invalid value: \"http://u@me?q#f\": discoveryURL must be different from URL",
            "jwt[0].issuer.audiences[1]: Duplicate value: \"x\"",
            "jwt[0].issuer.audiences[2]: Required value",
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny",
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\"",
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set",
            "jwt[0].claimMappings.groups.prefix: Invalid value: \"x\": may not be specified when expression is set",
            "jwt[0].claimMappings.groups.expression: Invalid value: \"claims.\": compilation failed",
            "jwt[0].claimMappings.uid: Invalid value: \"\": claim and expression can't both be set",
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"A/b\": must be lowercase",
            "jwt[0].claimMappings.extra[0].valueExpression: Required value",
            "jwt[0].claimMappings.extra[1].key: Invalid value: \"k8s.io/x\": k8s.io, kubernetes.io and their subdomains",
            "jwt[0].claimValidationRules[0].message: Invalid value: \"m\": may not be specified when claim is set",
            "jwt[0].claimValidationRules[1].requiredValue: Invalid value: \"v\": may not be specified when expression",
            "jwt[0].claimValidationRules[2]: Required value: claim or expression is required",
            "jwt[0].claimValidationRules[3].expression: Invalid value: \"'text'\": must evaluate to bool",
            "jwt[0].userValidationRules[0].expression: Invalid value: \"user.nothing\": compilation failed",
            "jwt[0].userValidationRules[1].expression: Required value",
        ] {
            assert!(told.contains(part), "{part}\nin\n{told}");
        }
        let mut own = good.clone();
        own["issuer"]["url"] = "https://me".into();
        assert!(faults(&json!([own]))[0].contains("must not overlap with disallowed issuers"));
    }

    #[test]
    fn an_address_must_be_a_verified_one() {
        let by = |username: &str, rules: Value| {
            json!([{"issuer": {"url": "https://a", "audiences": ["x"]}, "claimValidationRules": rules,
                "claimMappings": {"username": {"expression": username}}}])
        };
        assert!(faults(&by("claims.email", json!([])))[0].contains("claims.email_verified must be used"));
        assert_eq!(faults(&by("claims.email_verified ? claims.email : claims.sub", json!([]))).len(), 0);
        let rule = json!([{"expression": "claims.?email_verified.orValue(true) == true"}]);
        assert_eq!(faults(&by("claims.email", rule)).len(), 0);
        assert_eq!(faults(&by("claims.emails", json!([]))).len(), 0);
    }
}
