use std::collections::HashMap;
use std::sync::Arc;

use base::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::keys::VerifyKey;
use super::legacy::{self, LegacyClaims};
use super::{Claims, KubernetesClaims, Lookup, TokenError, TokenOrder, TokenUser};

/// How many checked signatures are remembered.
const REMEMBERED: usize = 8192;

/// What else a cluster may want of its tokens.
#[derive(Clone, Debug, Default)]
pub struct TokenIssuerOptions {
    /// Other issuers whose tokens hold; the first one signs. None means the one that was given.
    pub issuers: Vec<String>,
    /// More public keys (PEM) that tokens may be signed with: those of before and after.
    pub keys: Vec<String>,
    /// Whom tokens for the API itself are for; none means the issuers.
    pub audiences: Vec<String>,
    /// Where the set of keys is found, if not at the API's own address.
    pub jwks_uri: String,
}

/// Makes and checks service account tokens.
pub struct TokenIssuer {
    issuers: Vec<String>,
    audiences: Vec<String>,
    jwks_uri: String,
    key_id: String,
    algorithm: Algorithm,
    encoding: EncodingKey,
    keys: Vec<VerifyKey>,
    clock: Arc<dyn Clock>,
    checked: Mutex<HashMap<[u8; 32], Arc<Payload>>>,
}

/// What a token with a good signature says.
enum Payload {
    Bound(Box<Claims>),
    Legacy(LegacyClaims),
}

impl TokenIssuer {
    /// From a PKCS#8 PEM private key and its public half.
    pub fn new(
        issuer: &str,
        private_pem: &str,
        public_pem: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TokenError> {
        Self::with(issuer, private_pem, public_pem, TokenIssuerOptions::default(), clock)
    }

    /// The same with more wishes.
    pub fn with(
        issuer: &str,
        private_pem: &str,
        public_pem: &str,
        options: TokenIssuerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TokenError> {
        let mut keys = VerifyKey::read_all(public_pem)?;
        for pem in &options.keys {
            for key in VerifyKey::read_all(pem)? {
                if keys.iter().all(|k| k.id != key.id) {
                    keys.push(key);
                }
            }
        }
        let Some(own) = keys.first() else { return Err(TokenError::KeyFile("there is no key".into())) };
        let encoding = match own.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(private_pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(private_pem.as_bytes()),
        };
        let issuers = match options.issuers.is_empty() {
            true => vec![issuer.to_owned()],
            false => options.issuers,
        };
        Ok(Self {
            audiences: if options.audiences.is_empty() { issuers.clone() } else { options.audiences },
            issuers,
            jwks_uri: options.jwks_uri,
            key_id: own.id.clone(),
            algorithm: own.algorithm,
            encoding: encoding.map_err(TokenError::Key)?,
            keys,
            clock,
            checked: Mutex::default(),
        })
    }

    /// The names whose tokens hold; the first one signs.
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// The name this issuer signs with.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// Whom tokens for the API itself are for.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Signs a token; gives it with the second it ends at.
    pub fn issue(&self, order: TokenOrder) -> Result<(String, i64), TokenError> {
        let now = self.clock.now().as_second();
        let claims = Claims {
            aud: if order.audiences.is_empty() { self.audiences.clone() } else { order.audiences },
            exp: now.saturating_add(order.seconds),
            iat: now,
            iss: self.issuer().to_owned(),
            jti: order.id,
            sub: format!("system:serviceaccount:{}:{}", order.namespace, order.account.name),
            kubernetes: KubernetesClaims {
                namespace: order.namespace,
                node: order.node,
                pod: order.pod,
                secret: order.secret,
                serviceaccount: order.account,
                warnafter: order.warn_after.map(|after| now.saturating_add(after)),
            },
            nbf: now,
        };
        Ok((self.sign(&claims)?, claims.exp))
    }

    /// Signs a token that lives in a Secret and never ends.
    pub fn issue_legacy(
        &self,
        namespace: &str,
        secret: &str,
        account: &str,
        uid: &str,
    ) -> Result<String, TokenError> {
        self.sign(&LegacyClaims {
            iss: legacy::ISSUER.into(),
            sub: format!("system:serviceaccount:{namespace}:{account}"),
            namespace: namespace.into(),
            secret: secret.into(),
            account: account.into(),
            uid: uid.into(),
        })
    }

    fn sign(&self, claims: &impl serde::Serialize) -> Result<String, TokenError> {
        let header = Header { alg: self.algorithm, kid: Some(self.key_id.clone()), ..Header::default() };
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(TokenError::Key)
    }

    /// Checks signature, issuer, audience and time, and that all the token is bound to is there still. Without
    /// `audiences` it must be for the API itself.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: &[&str],
        lookup: &dyn Lookup,
    ) -> Result<TokenUser, TokenError> {
        match &*self.payload(token)? {
            Payload::Legacy(claims) => {
                let user = claims.user(token, lookup)?;
                let audiences = self.common(&self.audiences, audiences)?;
                Ok(TokenUser { user, audiences, stale: None, secret: Some(claims.place()) })
            }
            Payload::Bound(claims) => {
                let now = self.clock.now().as_second();
                if now >= claims.exp || now.saturating_add(60) < claims.nbf {
                    return Err(TokenError::Expired);
                }
                let audiences = self.common(&claims.aud, audiences)?;
                let user = claims.user(now, lookup)?;
                let stale = claims.kubernetes.warnafter.map(|after| now - after).filter(|s| *s > 0);
                Ok(TokenUser { user, audiences, stale, secret: None })
            }
        }
    }

    fn common(&self, of: &[String], wanted: &[&str]) -> Result<Vec<String>, TokenError> {
        let own: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        let wanted = if wanted.is_empty() { &own } else { wanted };
        let common: Vec<String> = of.iter().filter(|a| wanted.contains(&a.as_str())).cloned().collect();
        if common.is_empty() {
            let wanted = wanted.iter().map(|w| (*w).to_owned()).collect();
            return Err(TokenError::Audience(of.to_vec(), wanted));
        }
        Ok(common)
    }

    /// What the token says, if one of the keys signed it.
    fn payload(&self, token: &str) -> Result<Arc<Payload>, TokenError> {
        let mut print = [0; 32];
        print.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.checked.lock().get(&print) {
            return Ok(known.clone());
        }
        let payload = match self.unchecked_issuer(token).ok_or(TokenError::Foreign)? {
            iss if iss == legacy::ISSUER => Payload::Legacy(self.decode(token)?),
            iss if self.issuers.contains(&iss) => Payload::Bound(Box::new(self.decode(token)?)),
            _ => return Err(TokenError::Foreign),
        };
        let payload = Arc::new(payload);
        let mut checked = self.checked.lock();
        if checked.len() >= REMEMBERED {
            checked.clear();
        }
        checked.insert(print, payload.clone());
        Ok(payload)
    }

    fn unchecked_issuer(&self, token: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        let payload = token.split('.').nth(1)?;
        let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
        serde_json::from_slice::<Issuer>(&bytes).ok().map(|i| i.iss)
    }

    fn decode<T: DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(TokenError::Invalid)?;
        let named = self.keys.iter().filter(|k| Some(&k.id) == header.kid.as_ref());
        let others = self.keys.iter().filter(|k| Some(&k.id) != header.kid.as_ref());
        let mut last = None;
        for key in named.chain(others).filter(|k| k.algorithm == header.alg) {
            let mut validation = Validation::new(key.algorithm);
            // Time and audience are looked at by whoever asks, each time.
            (validation.validate_exp, validation.validate_aud) = (false, false);
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<T>(token, &key.decoding, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => last = Some(error),
            }
        }
        Err(TokenError::Invalid(
            last.unwrap_or_else(|| jsonwebtoken::errors::ErrorKind::InvalidAlgorithm.into()),
        ))
    }

    /// The public keys, as `/openid/v1/jwks` shows them.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(|k| &k.jwk).collect::<Vec<_>>()})
    }

    /// What `/.well-known/openid-configuration` says; `own` is where the API itself is reached.
    pub fn discovery(&self, own: &str) -> Value {
        let default = format!("{own}/openid/v1/jwks");
        let uri = if self.jwks_uri.is_empty() { &default } else { &self.jwks_uri };
        let mut algorithms: Vec<&Value> = self.keys.iter().map(|k| &k.jwk["alg"]).collect();
        algorithms.sort_by_key(|a| a.as_str());
        algorithms.dedup();
        json!({
            "issuer": self.issuer(),
            "jwks_uri": uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }
}
