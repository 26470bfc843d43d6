//! Service account tokens (kubernetes/kubernetes, `pkg/kubelet/token/token_manager.go`): bound to the pod, and
//! replaced when four fifths of their life are over, or after a day.

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;

use crate::error::Fault;

const A_DAY: i64 = 24 * 3600;
/// The life of a token whose request names none.
const DEFAULT_LIFE: i64 = 3600;

/// Whose token, by pod UID, volume and path.
type Id = (String, String, String);

pub(crate) struct Tokens {
    client: Client,
    held: Mutex<HashMap<Id, Token>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    refresh: Timestamp,
    expires: Option<Timestamp>,
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, held: Mutex::default() }
    }

    /// A token that is good for now, and when to ask again.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        volume: &str,
        wanted: &core::ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Duration), Fault> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let id = (uid, volume.to_owned(), wanted.path.clone());
        let held = self.held.lock().get(&id).cloned();
        let token = match held {
            Some(token) if token.refresh > now => token,
            held => match self.request(pod, wanted, now).await {
                Ok(token) => {
                    self.held.lock().insert(id, token.clone());
                    token
                }
                Err(error) => kept(held, &error, &wanted.path, now)?,
            },
        };
        let wait = token.refresh.duration_since(now).try_into().unwrap_or(Duration::ZERO);
        Ok((token.text.into_bytes(), wait))
    }

    async fn request(
        &self,
        pod: &Pod,
        wanted: &core::ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<Token, Fault> {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref());
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<core::ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let life = wanted.expiration_seconds.unwrap_or(DEFAULT_LIFE);
        let audiences: Vec<&String> = wanted.audience.iter().filter(|a| !a.is_empty()).collect();
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {
            "audiences": audiences,
            "expirationSeconds": life,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid},
        }});
        let request: TokenRequest = serde_json::from_value(request).map_err(kube::Error::SerdeError)?;
        let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
        let status = answer.status.unwrap_or_default();
        let expires = status.expiration_timestamp.map(|t| t.0);
        let refresh = refresh_at(now, expires, life);
        Ok(Token { text: status.token.unwrap_or_default(), refresh, expires })
    }

    /// A pod that is gone needs none.
    pub(crate) fn release(&self, uid: &str) {
        self.held.lock().retain(|(holder, _, _), _| holder != uid);
    }
}

/// What is left when there is no new token: the old one is good for a while, and no longer.
fn kept(held: Option<Token>, error: &Fault, path: &str, now: Timestamp) -> Result<Token, Fault> {
    let why = match error {
        Fault::Api(error) => client::message(error),
        error => error.to_string(),
    };
    match held {
        None => Err(Fault::Token(format!("failed to fetch token: {why}"))),
        Some(token) if token.expires.is_some_and(|at| at <= now) => {
            Err(Fault::Token(format!("token {path:?} expired and refresh failed: {why}")))
        }
        Some(token) => {
            tracing::warn!(why, "cannot refresh a service account token; will try again");
            Ok(Token { refresh: now.checked_add(Duration::from_secs(30)).unwrap_or(now), ..token })
        }
    }
}

/// When four fifths of the life of a token are over, or a day.
fn refresh_at(now: Timestamp, expires: Option<Timestamp>, life: i64) -> Timestamp {
    let life = expires.map_or(life, |at| at.as_second() - now.as_second()).max(0);
    let wait = (life / 5 * 4).clamp(1, A_DAY);
    now.checked_add(Duration::from_secs(wait as u64)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_is_kept_until_it_is_no_good() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let expires = at("2026-01-01T01:00:00Z");
        let held = Token { text: "t".into(), refresh: at("2026-01-01T00:48:00Z"), expires: Some(expires) };
        let missing = || Fault::Late { kind: "secret" };
        let kept = |held: Option<Token>, now: &str| {
            super::kept(held, &missing(), "token", at(now)).map(|t| t.refresh).map_err(|e| e.to_string())
        };
        assert_eq!(kept(Some(held.clone()), "2026-01-01T00:50:00Z"), Ok(at("2026-01-01T00:50:30Z")));
        let why = missing().to_string();
        let gone = kept(Some(held), "2026-01-01T01:00:00Z");
        assert_eq!(gone, Err(format!("token \"token\" expired and refresh failed: {why}")));
        assert_eq!(kept(None, "2026-01-01T01:00:00Z"), Err(format!("failed to fetch token: {why}")));
    }

    #[test]
    fn four_fifths_of_a_life() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(refresh_at(now, Some(at("2026-01-01T01:00:00Z")), 0), at("2026-01-01T00:48:00Z"));
        assert_eq!(refresh_at(now, None, 600), at("2026-01-01T00:08:00Z"));
        assert_eq!(refresh_at(now, Some(at("2027-01-01T00:00:00Z")), 0), at("2026-01-02T00:00:00Z"));
    }
}
