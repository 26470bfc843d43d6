//! Who is asking.

use auth::User;
use http::{HeaderMap, header};
use types::Status;

use crate::state::Inner;

/// The user of a request: a bearer token's if there is one, else the connection's, else nobody known.
///
/// A token that is wrong is refused, not taken for anonymity. WebSocket clients in browsers cannot set headers and
/// may bring the token as a protocol name, which is not supported yet.
pub(crate) fn authenticate(
    server: &Inner,
    headers: &HeaderMap,
    connection: Option<&User>,
) -> Result<User, Status> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let user = match (bearer, connection) {
        (_, Some(user)) => user.clone(),
        (Some(token), None) => token_user(server, token, &[]).ok_or_else(Status::unauthorized)?,
        (None, None) => return Ok(User::anonymous()),
    };
    Ok(user)
}

/// The user that a token speaks for, if it is good for one of `audiences` (none means the API itself).
pub(crate) fn token_user(server: &Inner, token: &str, audiences: &[&str]) -> Option<User> {
    if let Some(user) = server.config.static_tokens.user(token) {
        return Some(user.clone());
    }
    let claims = server.config.tokens.verify(token, audiences).ok()?;
    // The token dies with its account and with the pod it was made for.
    let k = &claims.kubernetes;
    let alive = |table: &str, name: &str, uid: &str| {
        use admission::Objects;
        server.get(table, &k.namespace, name).is_some_and(|o| o["metadata"]["uid"] == uid)
    };
    let account = alive("serviceaccounts", &k.serviceaccount.name, &k.serviceaccount.uid);
    let pod = k.pod.as_ref().is_none_or(|pod| alive("pods", &pod.name, &pod.uid));
    (account && pod).then(|| claims.user())
}
