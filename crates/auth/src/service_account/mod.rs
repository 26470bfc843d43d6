use std::sync::Arc;

use base::Clock;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::user::User;

/// A service account token that is not accepted, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is none of ours.
    #[error("the token's issuer is not this cluster")]
    Foreign,
    /// Signature, form or time do not hold.
    #[error("cannot verify service account token: {0}")]
    Invalid(jsonwebtoken::errors::Error),
    /// The signing key is unusable.
    #[error("cannot use service account key: {0}")]
    Key(jsonwebtoken::errors::Error),
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// It is for somebody else's ears.
    #[error("token audiences {0:?} are not among those accepted")]
    Audience(Vec<String>),
}

/// The object whose life bounds the token's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    /// Its name.
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a token says (kubernetes/kubernetes, `pkg/serviceaccount/claims.go`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is.
    pub aud: Vec<String>,
    /// When it ends, in seconds since the epoch.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its own identifier.
    #[serde(default)]
    pub jti: String,
    /// The account.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// From when on it holds.
    pub nbf: i64,
    /// The user name.
    pub sub: String,
}

/// The part of the claims that names objects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// The account's namespace.
    pub namespace: String,
    /// The node the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The pod it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// The secret it lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    /// The account.
    pub serviceaccount: BoundObject,
}

impl Claims {
    /// The user that the token speaks for.
    pub fn user(&self) -> User {
        let k = &self.kubernetes;
        let namespace = &k.namespace;
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let mut user = User::authenticated(
            format!("system:serviceaccount:{namespace}:{}", k.serviceaccount.name),
            groups,
        );
        user.uid = k.serviceaccount.uid.clone();
        for (key, object) in [("pod", &k.pod), ("node", &k.node)] {
            if let Some(object) = object {
                user.extra
                    .insert(format!("authentication.kubernetes.io/{key}-name"), vec![object.name.clone()]);
                user.extra
                    .insert(format!("authentication.kubernetes.io/{key}-uid"), vec![object.uid.clone()]);
            }
        }
        user.extra
            .insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={}", self.jti)]);
        user
    }
}

/// A token to be made.
#[derive(Clone, Debug, Default)]
pub struct TokenOrder {
    /// The account's namespace.
    pub namespace: String,
    /// The account.
    pub account: BoundObject,
    /// The pod whose life bounds the token's.
    pub pod: Option<BoundObject>,
    /// The pod's node.
    pub node: Option<BoundObject>,
    /// For whom it is; none means the API itself.
    pub audiences: Vec<String>,
    /// How long it holds, from now.
    pub seconds: i64,
    /// Its own identifier.
    pub id: String,
}

/// Makes and checks service account tokens (ES256).
pub struct TokenIssuer {
    issuer: String,
    key_id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    clock: Arc<dyn Clock>,
}

impl TokenIssuer {
    /// From a PKCS#8 PEM private key on curve P-256 and its public half.
    pub fn new(
        issuer: &str,
        private_pem: &str,
        public_pem: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TokenError> {
        let fingerprint = ring::digest::digest(&ring::digest::SHA256, public_pem.as_bytes());
        let key_id = fingerprint.as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self {
            issuer: issuer.to_owned(),
            key_id,
            encoding: EncodingKey::from_ec_pem(private_pem.as_bytes()).map_err(TokenError::Key)?,
            decoding: DecodingKey::from_ec_pem(public_pem.as_bytes()).map_err(TokenError::Key)?,
            clock,
        })
    }

    /// The name this issuer signs with; also the audience of tokens for the API itself.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs a token; gives it with the second it ends at.
    pub fn issue(&self, order: TokenOrder) -> Result<(String, i64), TokenError> {
        let now = self.clock.now().as_second();
        let claims = Claims {
            aud: if order.audiences.is_empty() { vec![self.issuer.clone()] } else { order.audiences },
            exp: now + order.seconds,
            iat: now,
            iss: self.issuer.clone(),
            jti: order.id,
            sub: format!("system:serviceaccount:{}:{}", order.namespace, order.account.name),
            kubernetes: KubernetesClaims {
                namespace: order.namespace,
                node: order.node,
                pod: order.pod,
                secret: None,
                serviceaccount: order.account,
            },
            nbf: now,
        };
        let header = Header { alg: Algorithm::ES256, kid: Some(self.key_id.clone()), ..Header::default() };
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(TokenError::Key)?;
        Ok((token, claims.exp))
    }

    /// Checks signature, issuer, audience and time; whether the account still exists is the caller's to ask.
    pub fn verify(&self, token: &str, audiences: &[&str]) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        // Time is checked against our own clock below.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(TokenError::Invalid)?
            .claims;
        if claims.iss != self.issuer {
            return Err(TokenError::Foreign);
        }
        let now = self.clock.now().as_second();
        if now >= claims.exp || now + 60 < claims.nbf {
            return Err(TokenError::Expired);
        }
        let accepted =
            |a: &String| a == &self.issuer && audiences.is_empty() || audiences.contains(&a.as_str());
        if !claims.aud.iter().any(accepted) {
            return Err(TokenError::Audience(claims.aud));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ManualClock;
    use std::time::Duration;

    #[test]
    fn tokens_hold_for_their_time_and_audience() {
        let key = rcgen::KeyPair::generate().unwrap();
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let issuer = TokenIssuer::new(
            "https://k",
            &key.serialize_pem(),
            &key.public_key_pem(),
            Arc::new(clock.clone()),
        )
        .unwrap();
        let account = BoundObject { name: "web".into(), uid: "u1".into() };
        let pod = Some(BoundObject { name: "web-0".into(), uid: "p1".into() });
        let order = TokenOrder {
            namespace: "shop".into(),
            account,
            pod,
            seconds: 600,
            id: "j".into(),
            ..Default::default()
        };
        let (token, _) = issuer.issue(order).unwrap();
        let user = issuer.verify(&token, &[]).unwrap().user();
        assert_eq!(user.name, "system:serviceaccount:shop:web");
        assert!(user.in_group("system:serviceaccounts:shop"));
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
        assert!(matches!(issuer.verify(&token, &["vault"]), Err(TokenError::Audience(_))));
        let mut forged = token.clone();
        forged.truncate(token.len() - 6);
        forged.push_str("AAAAAA");
        assert!(matches!(issuer.verify(&forged, &[]), Err(TokenError::Invalid(_))));
        clock.advance(Duration::from_secs(601));
        assert!(matches!(issuer.verify(&token, &[]), Err(TokenError::Expired)));
    }
}
