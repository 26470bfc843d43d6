//! Who is asking.

use auth::{Attributes, User};
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

/// The user that the request wants to be taken for, if it says so and the real user may
/// (kubernetes/kubernetes, `apiserver/pkg/endpoints/filters/impersonation/impersonation.go`).
pub(crate) fn impersonate(server: &Inner, headers: &HeaderMap, user: User) -> Result<User, Status> {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let (groups, uid) = (texts("impersonate-group"), texts("impersonate-uid").pop());
    let Some(name) = texts("impersonate-user").pop() else {
        return if groups.is_empty() && uid.is_none() {
            Ok(user)
        } else {
            Err(Status::bad_request("requested impersonation without impersonating a user"))
        };
    };
    let rbac = server.rbac();
    let check = |group: &str, resource: &str, namespace: &str, name: &str| {
        let attributes =
            Attributes { verb: "impersonate", group, resource, namespace, name, ..Attributes::default() };
        let decision = rbac.authorize(&user, &attributes);
        decision
            .allowed
            .then_some(())
            .ok_or_else(|| Status::forbidden(group, resource, name, &decision.reason))
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let mut target = match account {
        Some((namespace, account)) => {
            check("", "serviceaccounts", namespace, account)?;
            let own = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            User::authenticated(&*name, if groups.is_empty() { own.to_vec() } else { groups.clone() })
        }
        None => {
            check("", "users", "", &name)?;
            if name == User::anonymous().name {
                User::anonymous()
            } else {
                User::authenticated(&*name, groups.clone())
            }
        }
    };
    for group in &groups {
        check("", "groups", "", group)?;
    }
    if let Some(uid) = uid {
        check("authentication.k8s.io", "uids", "", &uid)?;
        target.uid = uid;
    }
    for header in headers.keys() {
        let Some(key) = header.as_str().strip_prefix("impersonate-extra-") else { continue };
        let values = texts(header.as_str());
        for value in &values {
            check("authentication.k8s.io", "userextras", "", value)?;
        }
        target.extra.insert(key.to_owned(), values);
    }
    Ok(target)
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
