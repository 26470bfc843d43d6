//! A token dies with what it is bound to (kubernetes/kubernetes, `pkg/serviceaccount/claims.go`, `Validate`).

use serde_json::Value;

use super::{BoundObject, Claims, Lookup, TokenError, invalidated, uid_of};
use crate::user::User;

/// How long ago something must have been deleted for its tokens to end.
const LEEWAY: i64 = 60;

fn deleted_before(object: &Value, limit: i64) -> bool {
    let deleted = object["metadata"]["deletionTimestamp"].as_str();
    deleted.and_then(|d| d.parse::<base::Timestamp>().ok()).is_some_and(|d| d.as_second() < limit)
}

impl Claims {
    /// The user that the token speaks for, if all that it is bound to is there still.
    pub fn user(&self, now: i64, lookup: &dyn Lookup) -> Result<User, TokenError> {
        let k = &self.kubernetes;
        let (namespace, name) = (&k.namespace, &k.serviceaccount.name);
        let limit = now - LEEWAY;
        if self.sub != format!("system:serviceaccount:{namespace}:{name}") {
            return Err(invalidated("sub claim is invalid"));
        }
        let account = lookup.get("serviceaccounts", namespace, name);
        let account = account.ok_or_else(|| invalidated(format!("serviceaccounts {name:?} not found")))?;
        if deleted_before(&account, limit) {
            return Err(invalidated("service account has been deleted"));
        }
        if uid_of(&account) != k.serviceaccount.uid {
            return Err(invalidated(format!(
                "service account UID ({}) does not match claim ({})",
                uid_of(&account),
                k.serviceaccount.uid
            )));
        }
        let alive = |table: &str, namespace: &str, what: &str, bound: &Option<BoundObject>| {
            let Some(bound) = bound else { return Ok(()) };
            let object = lookup.get(table, namespace, &bound.name).filter(|o| !deleted_before(o, limit));
            let object = object.ok_or_else(|| invalidated("service account token has been invalidated"))?;
            if uid_of(&object) == bound.uid {
                return Ok(());
            }
            Err(invalidated(format!(
                "{what} UID ({}) does not match service account {what} ref claim ({})",
                uid_of(&object),
                bound.uid
            )))
        };
        alive("secrets", namespace, "secret", &k.secret)?;
        alive("pods", namespace, "pod", &k.pod)?;
        if k.pod.is_none() {
            // With a pod, the node is only told.
            alive("nodes", "", "node", &k.node)?;
        }
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let mut user = User::authenticated(self.sub.clone(), groups);
        user.uid.clone_from(&k.serviceaccount.uid);
        for (key, object) in [("pod", &k.pod), ("node", &k.node)] {
            if let Some(object) = object {
                let key = format!("authentication.kubernetes.io/{key}");
                user.extra.insert(format!("{key}-name"), vec![object.name.clone()]);
                user.extra.insert(format!("{key}-uid"), vec![object.uid.clone()]);
            }
        }
        if !self.jti.is_empty() {
            user.extra.insert(User::CREDENTIAL_ID.into(), vec![format!("JTI={}", self.jti)]);
        }
        Ok(user)
    }
}
