//! Tokens that live in Secrets and never end (kubernetes/kubernetes, `pkg/serviceaccount/legacy.go`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Lookup, TokenError, invalidated, uid_of};
use crate::static_tokens::same_secret;
use crate::user::User;

/// Who makes them.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";

/// What they say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LegacyClaims {
    #[serde(default)]
    pub(super) iss: String,
    #[serde(default)]
    pub(super) sub: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    pub(super) namespace: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    pub(super) secret: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub(super) account: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub(super) uid: String,
}

impl LegacyClaims {
    /// Where the token lives.
    pub(super) fn place(&self) -> (String, String) {
        (self.namespace.clone(), self.secret.clone())
    }

    pub(super) fn user(&self, token: &str, lookup: &dyn Lookup) -> Result<User, TokenError> {
        let Self { namespace, secret: secret_name, account, uid, sub, .. } = self;
        for (claim, value) in [
            ("namespace", namespace),
            ("serviceAccountName", account),
            ("serviceAccountUID", uid),
            ("secretName", secret_name),
        ] {
            if value.is_empty() {
                return Err(invalidated(format!("{claim} claim is missing")));
            }
        }
        if *sub != format!("system:serviceaccount:{namespace}:{account}") {
            return Err(invalidated("sub claim is invalid"));
        }
        let secret = lookup.get("secrets", namespace, secret_name);
        let secret = secret.filter(|s| s["metadata"]["deletionTimestamp"].is_null());
        let secret = secret.ok_or_else(|| invalidated("service account token has been invalidated"))?;
        let stored = secret["data"]["token"].as_str().and_then(types::decode_base64).unwrap_or_default();
        if !same_secret(&stored, token.as_bytes()) {
            return Err(invalidated("token does not match server's copy"));
        }
        let since = &secret["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"];
        if !since.is_null() {
            return Err(invalidated(format!(
                "the token in secret {namespace}/{secret_name} for service account {namespace}/{account} has been \
                 marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or \
                 remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow \
                 use of this token"
            )));
        }
        let object = lookup.get("serviceaccounts", namespace, account);
        let object = object.filter(|o: &Value| o["metadata"]["deletionTimestamp"].is_null());
        let object = object.ok_or_else(|| invalidated(format!("serviceaccounts {account:?} not found")))?;
        if uid_of(&object) != *uid {
            return Err(invalidated(format!(
                "service account UID ({}) does not match claim ({uid})",
                uid_of(&object)
            )));
        }
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Ok(User { uid: uid.clone(), ..User::authenticated(sub.clone(), groups) })
    }
}
