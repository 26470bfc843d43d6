use auth::{TokenUser, User};

use crate::state::Inner;

/// Whom a token speaks for, and to whom it may.
pub(crate) struct Identified {
    pub(crate) user: User,
    pub(crate) audiences: Vec<String>,
}

/// The user that a token speaks for, if it is good for one of `audiences` (none means the API itself). Those who know
/// tokens by themselves are asked before those who must ask elsewhere.
pub(crate) async fn token_user(server: &Inner, token: &str, audiences: &[&str]) -> Option<Identified> {
    let config = &server.config;
    let wanted = || match audiences {
        [] => config.tokens.audiences().to_vec(),
        some => some.iter().map(|a| (*a).to_owned()).collect(),
    };
    // These tokens say nothing of whom they are for: they are for the API itself.
    let for_api = || -> Option<Vec<String>> {
        let common: Vec<String> =
            wanted().into_iter().filter(|a| config.tokens.audiences().contains(a)).collect();
        (!common.is_empty()).then_some(common)
    };
    if let Some(user) = config.static_tokens.user(token) {
        return Some(Identified { user: user.clone(), audiences: for_api()? });
    }
    let lookup =
        |table: &str, namespace: &str, name: &str| admission::Objects::get(server, table, namespace, name);
    match config.tokens.authenticate(token, audiences, &lookup) {
        Ok(TokenUser { user, audiences, stale, secret }) => {
            if let Some((namespace, name)) = &secret {
                crate::account_tokens::used(server, namespace, name).await;
            }
            if let Some(seconds) = stale {
                crate::audit::annotate(
                    "authentication.k8s.io/stale-token",
                    format!("subject: {}, seconds after warning threshold: {seconds}", user.name),
                );
            }
            return Some(Identified { user, audiences });
        }
        Err(auth::TokenError::Foreign) => {}
        Err(error) => tracing::debug!(%error, "a service account token is refused"),
    }
    if config.access.bootstrap_tokens
        && let Some(user) = auth::bootstrap_token_user(token, config.clock.now().as_second(), &lookup)
    {
        return Some(Identified { user, audiences: for_api()? });
    }
    for issuer in &server.identities().issuers {
        match issuer.user(token, config.clock.now().as_second()).await {
            Some(Ok(user)) => return Some(Identified { user, audiences: for_api()? }),
            Some(Err(why)) => tracing::debug!(why, "a token of an identity provider is refused"),
            None => {}
        }
    }
    match &config.access.token_webhook {
        None => None,
        Some(webhook) => match webhook.user(token, &wanted()).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "the token webhook cannot be asked");
                None
            }
        },
    }
}
