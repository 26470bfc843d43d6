//! Identity providers: their keys are fetched when a token needs them, and kept.

use std::sync::Arc;
use std::time::Duration;

use auth::{JwtAuthenticator, JwtError, User};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::outbound::{Remote, RemoteError};

/// Keys that did not fit are not asked for again before this long.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// One identity provider.
pub struct Issuer {
    rules: JwtAuthenticator,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    set: Option<Arc<Value>>,
    fetched: Option<Instant>,
}

impl Issuer {
    /// Over its rules.
    pub fn new(rules: JwtAuthenticator) -> Result<Self, RemoteError> {
        // Now, so that a bad authority is told at the start.
        Remote::new(&rules.discovery(), &rules.authority)?;
        Ok(Self { rules, keys: Mutex::default() })
    }

    /// The user a token of this provider speaks for; nothing for tokens of others.
    pub(super) async fn user(&self, token: &str, now: i64) -> Option<Result<User, String>> {
        if !self.rules.claims_to_be(token) {
            return None;
        }
        let mut outcome = match self.keys(false).await {
            Ok(keys) => self.rules.authenticate(token, &keys, now),
            Err(why) => return Some(Err(why)),
        };
        if outcome == Err(JwtError::Signature) {
            // The provider may have changed its keys since.
            match self.keys(true).await {
                Ok(keys) => outcome = self.rules.authenticate(token, &keys, now),
                Err(why) => return Some(Err(why)),
            }
        }
        Some(outcome.map_err(|e| e.to_string()))
    }

    async fn keys(&self, again: bool) -> Result<Arc<Value>, String> {
        let mut keys = self.keys.lock().await;
        let recent = keys.fetched.is_some_and(|at| at.elapsed() < AGAIN_AFTER);
        if let Some(set) = &keys.set
            && (!again || recent)
        {
            return Ok(set.clone());
        }
        if keys.set.is_none() && recent {
            return Err(format!("the keys of {} could not be fetched", self.rules.issuer));
        }
        keys.fetched = Some(Instant::now());
        let fetch = async |url: &str| {
            let remote = Remote::new(url, &self.rules.authority).map_err(|e| e.to_string())?;
            remote.get().await.map_err(|e| e.to_string())
        };
        let about = fetch(&self.rules.discovery()).await?;
        if about["issuer"] != self.rules.issuer.as_str() {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {}",
                self.rules.issuer, about["issuer"]
            ));
        }
        let url = about["jwks_uri"].as_str().ok_or("the provider names no jwks_uri")?;
        let set = Arc::new(fetch(url).await?);
        keys.set = Some(set.clone());
        Ok(set)
    }
}
