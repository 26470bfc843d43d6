//! Who is asking.

mod file;
mod front_proxy;
mod impersonate;
mod issuers;
#[cfg(test)]
mod tests;
mod tokens;
mod webhook;

use auth::User;
use http::{HeaderMap, HeaderValue, header};
use types::Status;

use crate::access::Anonymous;
use crate::peer::Peer;
use crate::state::Inner;

pub(crate) use file::{apply as apply_file, read as read_file};
pub use front_proxy::FrontProxy;
pub(crate) use impersonate::impersonate;
pub use issuers::Issuer;
pub(crate) use tokens::{Identified, token_user};
pub use webhook::TokenWebhook;

/// Identity providers, and who may stay unknown; what a file says of them may change.
pub(crate) struct Identities {
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) anonymous: Anonymous,
}

/// The user of a request. What showed it is taken out of the headers, so that it goes no further.
///
/// The order is upstream's (kubernetes/kubernetes, `pkg/kubeapiserver/authenticator/config.go`): a component of this
/// process, a front proxy's word, a client certificate, a token, nobody known. The first that holds counts; if one was
/// shown and none holds, the request is refused and not taken for anonymity.
pub(crate) async fn authenticate(
    server: &Inner,
    headers: &mut HeaderMap,
    connection: Option<&User>,
    peer: Option<&Peer>,
    path: &str,
) -> Result<User, Status> {
    if let Some(user) = connection {
        return Ok(user.clone());
    }
    let access = &server.config.access;
    let mut refused = false;
    let fresh = peer.filter(|peer| peer.ends > server.config.clock.now().as_second());
    if let (Some(proxy), Some(name)) = (&access.front_proxy, fresh.and_then(|peer| peer.proxy.as_deref()))
        && proxy.trusts(name)
        && let Some(user) = proxy.user(headers)
    {
        return Ok(user);
    }
    match peer.and_then(|peer| peer.certificate.as_ref()) {
        Some(Ok(user)) if fresh.is_some() => return Ok(user.clone()),
        Some(_) => refused = true,
        None => {}
    }
    if let Some(token) = take_bearer(headers).or_else(|| take_websocket_token(headers)) {
        match Box::pin(token_user(server, &token, &[])).await {
            Some(Identified { user, .. }) => return Ok(user),
            None => refused = true,
        }
    }
    if refused || !allows_anonymous(&server.identities().anonymous, path) {
        return Err(Status::unauthorized());
    }
    Ok(User::anonymous())
}

fn allows_anonymous(anonymous: &Anonymous, path: &str) -> bool {
    match anonymous {
        Anonymous::Everywhere => true,
        Anonymous::Nowhere => false,
        Anonymous::Paths(paths) => paths.iter().any(|p| p == path),
    }
}

/// The token of `Authorization: Bearer …` (`apiserver/pkg/authentication/request/bearertoken`).
fn take_bearer(headers: &mut HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    // The token ends where white space begins.
    let token = token.split_whitespace().next()?.to_owned();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    headers.remove(header::AUTHORIZATION);
    Some(token)
}

/// Browsers cannot set headers of a WebSocket, and bring the token as the name of a protocol
/// (`apiserver/pkg/authentication/request/websocket/protocol.go`).
fn take_websocket_token(headers: &mut HeaderMap) -> Option<String> {
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    if !headers.get(header::UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return None;
    }
    let mut token = None;
    let mut others: Vec<String> = Vec::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for protocol in value.to_str().ok()?.split(',').map(str::trim) {
            match protocol.strip_prefix(PREFIX) {
                Some(_) if token.is_some() => return None,
                Some(encoded) => {
                    let plain = encoded.trim_end_matches('=').replace('-', "+").replace('_', "/");
                    let padded = format!("{plain}{}", "=".repeat((4 - plain.len() % 4) % 4));
                    token = Some(String::from_utf8(types::decode_base64(&padded)?).ok()?);
                }
                None => others.push(protocol.to_owned()),
            }
        }
    }
    // Without another protocol to agree on, the connection could not begin.
    if token.is_none() || others.is_empty() {
        return None;
    }
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&others.join(",")).ok()?);
    token
}
