//! Service accounts' tokens (kubernetes/kubernetes, `pkg/serviceaccount`).

mod check;
mod issuer;
mod keys;
mod legacy;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::user::User;

pub use issuer::{TokenIssuer, TokenIssuerOptions};

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
    /// A key file that cannot be used.
    #[error("cannot use service account key: {0}")]
    KeyFile(String),
    /// What it was bound to is gone, or is another by now.
    #[error("{0}")]
    Invalidated(String),
    /// It is for somebody else's ears.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
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
    /// From this second on its use is noted: it lives longer than was asked for, for clients that do not read it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// Where the objects are found that tokens are bound to.
pub trait Lookup {
    /// The object as it is stored.
    fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Value>;
}

impl<F: Fn(&str, &str, &str) -> Option<Value>> Lookup for F {
    fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Value> {
        self(table, namespace, name)
    }
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    /// The user.
    pub user: User,
    /// Those audiences of the token that were asked for.
    pub audiences: Vec<String>,
    /// How many seconds ago it should have been replaced.
    pub stale: Option<i64>,
    /// Namespace and name of the Secret that the token lives in, if it does.
    pub secret: Option<(String, String)>,
}

fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn invalidated(why: impl Into<String>) -> TokenError {
    TokenError::Invalidated(why.into())
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
    /// The pod's node, or the node whose life bounds the token's.
    pub node: Option<BoundObject>,
    /// The secret whose life bounds the token's.
    pub secret: Option<BoundObject>,
    /// For whom it is; none means the API itself.
    pub audiences: Vec<String>,
    /// How long it holds, from now.
    pub seconds: i64,
    /// After how many seconds its use is noted.
    pub warn_after: Option<i64>,
    /// Its own identifier.
    pub id: String,
}
