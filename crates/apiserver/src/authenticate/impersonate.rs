use std::collections::BTreeMap;

use auth::{Attributes, User};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use types::Status;

use crate::state::Inner;
use crate::{audit, authorize};

/// The user that the request wants to be taken for, if it says so and the real user may
/// (kubernetes/kubernetes, `apiserver/pkg/endpoints/filters/impersonation`).
///
/// The wish is taken out of the headers, so that it goes no further.
pub(crate) async fn impersonate(server: &Inner, headers: &mut HeaderMap, user: User) -> Result<User, Status> {
    let Some(wish) = Wish::read(headers)? else { return Ok(user) };
    let core = Attributes { verb: "impersonate", version: "v1", ..Attributes::default() };
    let authentication = Attributes { group: "authentication.k8s.io", ..core };
    let account = service_account(&wish.user);
    match account {
        Some((namespace, name)) => {
            let asked = Attributes { resource: "serviceaccounts", namespace, name, ..core };
            authorize::demand(server, &user, &asked).await?;
        }
        None => {
            let asked = Attributes { resource: "users", name: &wish.user, ..core };
            authorize::demand(server, &user, &asked).await?;
        }
    }
    for group in &wish.groups {
        let asked = Attributes { resource: "groups", name: group, ..core };
        authorize::demand(server, &user, &asked).await?;
    }
    for (key, values) in &wish.extra {
        for value in values {
            let asked =
                Attributes { resource: "userextras", subresource: key, name: value, ..authentication };
            authorize::demand(server, &user, &asked).await?;
        }
    }
    if let Some(uid) = &wish.uid {
        let asked = Attributes { resource: "uids", name: uid, ..authentication };
        authorize::demand(server, &user, &asked).await?;
    }
    let wishes: Vec<_> = headers.keys().filter(|k| k.as_str().starts_with("impersonate-")).cloned().collect();
    for header in wishes {
        headers.remove(header);
    }
    let target = wish.user();
    audit::impersonated(&target);
    Ok(target)
}

/// Whom a request wants to be taken for.
struct Wish {
    user: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
    uid: Option<String>,
}

impl Wish {
    fn read(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        const EXTRA: &str = "impersonate-extra-";
        let texts = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter();
            values.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect()
        };
        let first = |name: &str| texts(name).into_iter().next().filter(|text| !text.is_empty());
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for header in headers.keys() {
            if let Some(key) = header.as_str().strip_prefix(EXTRA) {
                let plain = percent_decode_str(key).decode_utf8();
                let key = plain.map_or_else(|_| key.to_owned(), |plain| plain.into_owned());
                extra.entry(key).or_default().extend(texts(header.as_str()));
            }
        }
        let (groups, uid) = (texts("impersonate-group"), first("impersonate-uid"));
        let Some(user) = first("impersonate-user") else {
            if groups.is_empty() && extra.is_empty() && uid.is_none() {
                return Ok(None);
            }
            let mut asked: Vec<String> = groups.iter().map(|g| format!("group {g:?}")).collect();
            asked.extend(extra.keys().map(|k| format!("extra {k:?}")));
            asked.extend(uid.map(|u| format!("uid {u:?}")));
            let asked = asked.join(", ");
            return Err(Status::internal(format_args!("requested {asked} without impersonating a user")));
        };
        Ok(Some(Self { user, groups, extra, uid }))
    }

    fn user(self) -> User {
        let Self { user: name, mut groups, extra, uid } = self;
        if let (Some((namespace, _)), true) = (service_account(&name), groups.is_empty()) {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        let has = |groups: &[String], group: &str| groups.iter().any(|g| g == group);
        if name == ANONYMOUS {
            if !has(&groups, UNAUTHENTICATED) {
                groups.push(UNAUTHENTICATED.into());
            }
        } else if !has(&groups, User::AUTHENTICATED) && !has(&groups, UNAUTHENTICATED) {
            groups.push(User::AUTHENTICATED.into());
        }
        User { name, uid: uid.unwrap_or_default(), groups, extra }
    }
}

const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Namespace and name of the service account that a user name stands for
/// (`apiserver/pkg/authentication/serviceaccount/util.go`, `SplitUsername`).
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let good = types::dns_label(namespace).is_none() && types::dns_subdomain(name).is_none();
    good.then_some((namespace, name))
}
