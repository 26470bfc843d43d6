//! Tokens of identity providers (kubernetes/kubernetes, `apiserver/plugin/pkg/authenticator/token/oidc`).
//!
//! This part is pure: who fetches the providers' keys hands them in.

mod config;

use std::collections::BTreeMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cel::{Activation, Budget, Program};
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value, json};

use crate::user::User;

/// An identity provider's configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwtConfigError {
    /// What is wrong with its fields.
    #[error("{0}")]
    Fields(types::FieldErrors),
    /// A field that is missing or makes no sense.
    #[error("{field}: {why}")]
    Field {
        /// Which.
        field: String,
        /// Why.
        why: String,
    },
}

/// A provider's token that lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Another provider's, or none at all.
    #[error("the token is not this issuer's")]
    Foreign,
    /// None of the provider's keys signed it; they may be known no longer, or not yet.
    #[error("oidc: verify token: failed to verify signature")]
    Signature,
    /// Anything else.
    #[error("oidc: {0}")]
    Refused(String),
}

fn refused(why: impl Into<String>) -> JwtError {
    JwtError::Refused(why.into())
}

/// Where a part of the user comes from.
enum Mapping {
    /// A claim, with something before it.
    Claim { claim: String, prefix: String },
    /// An expression over all claims.
    Expression(Program),
}

/// One identity provider.
pub struct JwtAuthenticator {
    /// Its name in tokens.
    pub issuer: String,
    /// Where it describes itself, if not below its name.
    pub discovery_url: Option<String>,
    /// Who signs its server's certificate (PEM); none means the public authorities.
    pub authority: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    username: Mapping,
    groups: Option<Mapping>,
    uid: Option<Mapping>,
    extra: Vec<(String, Program)>,
    /// Claims that must have a value.
    required: Vec<(String, String)>,
    claim_rules: Vec<(Program, String)>,
    user_rules: Vec<(Program, String)>,
}

/// The signatures that are accepted where nothing else is said.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

fn fault(field: impl Into<String>, why: impl Into<String>) -> JwtConfigError {
    JwtConfigError::Field { field: field.into(), why: why.into() }
}

impl JwtAuthenticator {
    /// Accepts only these signatures.
    pub fn with_algorithms(mut self, names: &[String]) -> Result<Self, JwtConfigError> {
        self.algorithms = Vec::new();
        for name in names {
            let known = Algorithm::from_str(name).ok().filter(|a| ALGORITHMS.contains(a));
            self.algorithms.push(
                known.ok_or_else(|| {
                    fault("signing algorithms", format!("unsupported signing alg: {name:?}"))
                })?,
            );
        }
        Ok(self)
    }

    /// Where the provider describes itself.
    pub fn discovery(&self) -> String {
        let issuer = self.issuer.trim_end_matches('/');
        self.discovery_url.clone().unwrap_or_else(|| format!("{issuer}/.well-known/openid-configuration"))
    }

    /// Whether the token says that it is of this provider. Nothing has been checked then.
    pub fn claims_to_be(&self, token: &str) -> bool {
        let payload = token.split('.').nth(1).and_then(|p| URL_SAFE_NO_PAD.decode(p).ok());
        let claims = payload.and_then(|p| serde_json::from_slice::<Value>(&p).ok());
        claims.is_some_and(|c| c["iss"] == self.issuer.as_str())
    }

    /// The user a token speaks for. `keys` is the provider's set of keys, `now` in seconds.
    pub fn authenticate(&self, token: &str, keys: &Value, now: i64) -> Result<User, JwtError> {
        if !self.claims_to_be(token) {
            return Err(JwtError::Foreign);
        }
        let claims = self.verified(token, keys)?;
        self.check_standard(&claims, now)?;
        let claims = Value::Object(claims);
        for (claim, value) in &self.required {
            match claims.get(claim) {
                None => return Err(refused(format!("required claim {claim} not present in ID token"))),
                Some(have) if have != value.as_str() => {
                    return Err(refused(format!(
                        "required claim {claim} value does not match. Got = {have}, want = {value}"
                    )));
                }
                Some(_) => {}
            }
        }
        let mut budget = Budget::new(cel::RUNTIME_COST_BUDGET);
        for (rule, message) in &self.claim_rules {
            hold(rule, "claims", &claims, message, &mut budget)?;
        }
        let user = self.user(&claims, &mut budget)?;
        if !self.user_rules.is_empty() {
            let seen =
                json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
            for (rule, message) in &self.user_rules {
                hold(rule, "user", &seen, message, &mut budget)?;
            }
        }
        let User { name, uid, groups, extra } = user;
        Ok(User { uid, extra, ..User::authenticated(name, groups) })
    }

    fn verified(&self, token: &str, keys: &Value) -> Result<Map<String, Value>, JwtError> {
        let header =
            jsonwebtoken::decode_header(token).map_err(|e| refused(format!("malformed jwt: {e}")))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(refused(format!(
                "verify token: id token signed with unsupported algorithm {:?}",
                header.alg
            )));
        }
        for key in keys["keys"].as_array().into_iter().flatten() {
            // Keys of kinds that are unknown here are none of our business.
            let Ok(set) = serde_json::from_value::<JwkSet>(json!({"keys": [key]})) else { continue };
            let Some(jwk) = set.keys.first() else { continue };
            if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
                continue;
            }
            if header.kid.is_some() && jwk.common.key_id.is_some() && header.kid != jwk.common.key_id {
                continue;
            }
            let Ok(decoding) = DecodingKey::from_jwk(jwk) else { continue };
            let mut validation = Validation::new(header.alg);
            (validation.validate_exp, validation.validate_aud) = (false, false);
            validation.required_spec_claims.clear();
            if let Ok(data) = jsonwebtoken::decode::<Map<String, Value>>(token, &decoding, &validation) {
                return Ok(data.claims);
            }
        }
        Err(JwtError::Signature)
    }

    fn check_standard(&self, claims: &Map<String, Value>, now: i64) -> Result<(), JwtError> {
        let number = |name: &str| claims.get(name).and_then(|v| v.as_i64().or(v.as_f64().map(|f| f as i64)));
        let end = number("exp").ok_or_else(|| refused("verify token: token has no expiry"))?;
        if now >= end {
            return Err(refused("verify token: oidc: token is expired"));
        }
        if number("nbf").is_some_and(|begin| now.saturating_add(300) < begin) {
            return Err(refused("verify token: current time is before the nbf (not before) time"));
        }
        let audience: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.audiences.iter().any(|a| audience.contains(&a.as_str())) {
            return Err(refused(format!(
                "verify token: expected audience in {:?} got {audience:?}",
                self.audiences
            )));
        }
        Ok(())
    }

    fn user(&self, claims: &Value, budget: &mut Budget) -> Result<User, JwtError> {
        let one = |value: Value, what: &str| match value {
            Value::String(text) => Ok(text),
            other => Err(refused(format!("parse {what} claims: {other} is no text"))),
        };
        let name = match &self.username {
            Mapping::Claim { claim, prefix } => {
                let value = claims
                    .get(claim)
                    .cloned()
                    .ok_or_else(|| refused(format!("parse username claims {claim:?}: claim not present")))?;
                // An address that is not verified is anybody's.
                if claim == "email" && claims.get("email_verified").is_some_and(|v| *v != true) {
                    return Err(refused("email not verified"));
                }
                format!("{prefix}{}", one(value, "username")?)
            }
            Mapping::Expression(program) => one(evaluate(program, claims, budget)?, "username")?,
        };
        if name.is_empty() {
            return Err(refused("the username is empty"));
        }
        let groups = match &self.groups {
            None => Vec::new(),
            Some(Mapping::Claim { claim, prefix }) => match claims.get(claim) {
                None => Vec::new(),
                Some(value) => texts(value, "groups")?.into_iter().map(|g| format!("{prefix}{g}")).collect(),
            },
            Some(Mapping::Expression(program)) => texts(&evaluate(program, claims, budget)?, "groups")?,
        };
        let uid = match &self.uid {
            None => String::new(),
            Some(Mapping::Claim { claim, .. }) => {
                let value = claims.get(claim).cloned().ok_or_else(|| {
                    refused(format!("error unmarshaling UID claim {claim:?}: claim not present"))
                })?;
                one(value, "uid")?
            }
            Some(Mapping::Expression(program)) => one(evaluate(program, claims, budget)?, "uid")?,
        };
        let mut extra = BTreeMap::new();
        for (key, program) in &self.extra {
            let values = texts(&evaluate(program, claims, budget)?, "extra")?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(User::CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        Ok(User { name, uid, groups, extra })
    }
}

/// One text or a list of texts; empty ones and nothing are left out.
fn texts(value: &Value, what: &str) -> Result<Vec<String>, JwtError> {
    let wrong = || refused(format!("parse {what} claims: neither a text nor a list of texts"));
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(Some(one.clone()).filter(|t| !t.is_empty()).into_iter().collect()),
        Value::Array(many) => many
            .iter()
            .map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong))
            .filter(|t| t.as_ref().map_or(true, |t| !t.is_empty()))
            .collect(),
        _ => Err(wrong()),
    }
}

fn evaluate(program: &Program, claims: &Value, budget: &mut Budget) -> Result<Value, JwtError> {
    let activation = Activation::new().json("claims", claims);
    let value = program.evaluate(&activation, budget).map_err(|e| refused(e.to_string()))?;
    to_json(&value).ok_or_else(|| refused("the expression's value is neither a text nor a list of texts"))
}

/// A value of an expression, as far as users are made of such.
fn to_json(value: &cel::Value<'_>) -> Option<Value> {
    if let Some(text) = value.as_str() {
        return Some(text.into());
    }
    match value {
        cel::Value::Null => Some(Value::Null),
        cel::Value::List(list) => list.iter().map(|item| to_json(&item)).collect(),
        _ => None,
    }
}

fn hold(
    rule: &Program,
    name: &str,
    value: &Value,
    message: &str,
    budget: &mut Budget,
) -> Result<(), JwtError> {
    let activation = Activation::new().json(name, value);
    let outcome = rule.evaluate(&activation, budget).map_err(|e| refused(e.to_string()))?;
    if outcome.as_bool() == Some(true) {
        return Ok(());
    }
    let why = if message.is_empty() {
        format!("validation expression '{}' failed", rule.source())
    } else {
        message.to_owned()
    };
    Err(refused(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use proptest::prelude::*;

    struct Provider {
        key: EncodingKey,
        keys: Value,
    }

    fn provider() -> Provider {
        let key = rcgen::KeyPair::generate().unwrap();
        let raw = key.public_key_raw().to_vec();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&raw[1..33]), URL_SAFE_NO_PAD.encode(&raw[33..]));
        Provider {
            key: EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap(),
            keys: json!({"keys": [{"kty": "weird"}, {"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "use": "sig", "x": x, "y": y}]}),
        }
    }

    fn token(provider: &Provider, claims: &Value) -> String {
        let header = Header { kid: Some("k".into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &provider.key).unwrap()
    }

    fn config(mappings: Value, rules: Value, users: Value) -> Value {
        json!({"issuer": {"url": "https://idp", "audiences": ["me"]}, "claimMappings": mappings,
            "claimValidationRules": rules, "userValidationRules": users})
    }

    /// Facts of upstream's `oidc_test.go`.
    #[test]
    fn claims_make_users() {
        let provider = provider();
        let claims = json!({"iss": "https://idp", "aud": ["me", "you"], "exp": 1000, "username": "jane", "sub": "s",
            "email": "j@x", "email_verified": false, "groups": ["a", "b"], "jti": "1", "n": {"uid": "u9"}, "hd": "example.com"});
        let plain = json!({"username": {"claim": "username", "prefix": ""}});
        let none = json!([]);
        let ask = |config: &Value, changes: Value, now: i64| {
            let mut claims = claims.clone();
            for (key, value) in changes.as_object().into_iter().flatten() {
                claims[key] = value.clone();
            }
            let authenticator = JwtAuthenticator::read(config).unwrap();
            authenticator.authenticate(&token(&provider, &claims), &provider.keys, now)
        };
        let simple = config(plain.clone(), none.clone(), none.clone());
        let user = ask(&simple, json!({}), 10).unwrap();
        assert_eq!(user.name, "jane");
        assert_eq!(user.extra[User::CREDENTIAL_ID], ["JTI=1"]);
        assert_eq!(user.groups, [User::AUTHENTICATED]);
        assert_eq!(ask(&simple, json!({"iss": "https://other"}), 10), Err(JwtError::Foreign));
        for (changes, now) in [
            (json!({}), 1000),
            (json!({"aud": "you"}), 10),
            (json!({"nbf": 900}), 10),
            (json!({"exp": "x"}), 10),
        ] {
            assert!(matches!(ask(&simple, changes.clone(), now), Err(JwtError::Refused(_))), "{changes}");
        }
        let email =
            config(json!({"username": {"claim": "email", "prefix": "p:"}}), none.clone(), none.clone());
        assert_eq!(ask(&email, json!({}), 10), Err(refused("email not verified")));
        assert_eq!(ask(&email, json!({"email_verified": true}), 10).unwrap().name, "p:j@x");
        let groups = config(
            json!({"username": {"claim": "sub", "prefix": "s#"}, "groups": {"claim": "groups", "prefix": "g:"}}),
            none.clone(),
            none.clone(),
        );
        let user = ask(&groups, json!({}), 10).unwrap();
        assert_eq!((user.name.as_str(), user.in_group("g:a"), user.in_group("a")), ("s#s", true, false));
        assert!(ask(&groups, json!({"groups": "one"}), 10).unwrap().in_group("g:one"));
        assert!(ask(&groups, json!({"groups": 7}), 10).is_err());
        let expressions = config(
            json!({"username": {"expression": "claims.username + ':x'"}, "groups": {"expression": "claims.groups.filter(g, g != 'b')"},
                "uid": {"expression": "claims.n.uid"}, "extra": [{"key": "example.org/hd", "valueExpression": "claims.hd"}]}),
            json!([{"expression": "claims.hd == 'example.com'", "message": "wrong domain"}, {"claim": "sub", "requiredValue": "s"}]),
            json!([{"expression": "!user.username.startsWith('system:')", "message": "reserved"}]),
        );
        let user = ask(&expressions, json!({}), 10).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane:x", "u9"));
        assert_eq!(user.groups, ["a", User::AUTHENTICATED]);
        assert_eq!(user.extra["example.org/hd"], ["example.com"]);
        assert_eq!(ask(&expressions, json!({"hd": "evil"}), 10), Err(refused("wrong domain")));
        assert_eq!(ask(&expressions, json!({"username": "system:y"}), 10), Err(refused("reserved")));
        assert!(ask(&expressions, json!({"sub": "t"}), 10).is_err());
        // Somebody else's key.
        let authenticator = JwtAuthenticator::read(&simple).unwrap();
        let other = super::tests::provider();
        assert_eq!(
            authenticator.authenticate(&token(&other, &claims), &provider.keys, 10),
            Err(JwtError::Signature)
        );
    }

    #[test]
    fn configurations_that_make_no_sense_are_refused() {
        let name = json!({"username": {"claim": "sub", "prefix": ""}});
        let good = config(name, json!([]), json!([]));
        assert!(JwtAuthenticator::read(&good).is_ok());
        for (path, value) in [
            ("/issuer/url", json!("http://x")),
            ("/issuer/url", Value::Null),
            ("/issuer/audiences", json!([])),
            ("/issuer/audiences", json!(["a", "b"])),
            ("/claimMappings/username", json!({"claim": "sub"})),
            ("/claimMappings/username", json!({})),
            ("/claimMappings/username", json!({"expression": "claims."})),
            ("/claimMappings/username", json!({"claim": "sub", "prefix": "", "expression": "claims.sub"})),
            ("/claimValidationRules", json!([{}])),
            ("/userValidationRules", json!([{"expression": "user.nothing == 1"}])),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value.clone();
            assert!(JwtAuthenticator::read(&bad).is_err(), "{path} {value}");
        }
    }

    proptest! {
        #[test]
        fn no_token_is_too_odd(text in ".{0,200}", parts in "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}") {
            let authenticator = JwtAuthenticator::read(&config(json!({"username": {"claim": "sub", "prefix": ""}}), json!([]), json!([]))).unwrap();
            for token in [text, parts] {
                let keys = json!({"keys": [{}]});
                let outcome = authenticator.authenticate(&token, &keys, 0);
                prop_assert!(outcome.is_err());
            }
        }
    }
}
