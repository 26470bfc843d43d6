//! Tokens of service accounts that live in Secrets: Secrets of their type are filled in, go with their service account,
//! and tell when their token was used last (kubernetes/kubernetes, `pkg/controller/serviceaccount/tokens_controller.go`,
//! `pkg/serviceaccount/legacy.go`). Only the API server has the key that signs them.

use std::collections::BTreeSet;
use std::sync::Arc;

use admission::Objects;
use auth::User;
use serde_json::Value;
use store::EventKind;
use types::{Reason, Status, ensure_object, str_at};

use crate::follow::{Follower, News};
use crate::object;
use crate::state::Inner;
use crate::verbs::{self, Deletion, Edited, Part, Write, rewrite};

const SECRETS: &str = "secrets";
const ACCOUNTS: &str = "serviceaccounts";
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// Looks after all such Secrets, now and after every change.
pub(crate) fn start(server: &Arc<Inner>) {
    let (secrets, accounts) = (Follower::new(server, SECRETS), Follower::from_now(server, ACCOUNTS));
    server.drain.spawn(follow(secrets, accounts));
}

/// Which Secrets have to be looked at.
enum Due {
    All,
    /// These, by namespace and name.
    These(BTreeSet<(String, String)>),
}

async fn follow(mut secrets: Follower, mut accounts: Follower) {
    loop {
        let (next, of_secrets) = tokio::select! {
            next = secrets.next() => (next, true),
            next = accounts.next() => (next, false),
        };
        let Some((server, news)) = next else { return };
        let due = match news {
            News::Everything(_) => Due::All,
            News::Events(events) if of_secrets => Due::These(
                events
                    .iter()
                    .filter(|e| e.kind != EventKind::Deleted && is_token(&e.record.value))
                    .map(|e| owned(object::split_key(&e.record.key)))
                    .collect(),
            ),
            News::Events(events) => {
                let gone = events.iter().filter(|e| e.kind == EventKind::Deleted);
                let spaces: BTreeSet<&str> = gone.map(|e| object::split_key(&e.record.key).0).collect();
                Due::These(if spaces.is_empty() { BTreeSet::new() } else { tokens_in(&server, &spaces) })
            }
        };
        settle(&server, due).await;
    }
}

fn owned((namespace, name): (&str, &str)) -> (String, String) {
    (namespace.to_owned(), name.to_owned())
}

/// Whether a stored Secret is of the type, without reading it first.
fn is_token(bytes: &[u8]) -> bool {
    bytes.windows(TYPE.len()).any(|part| part == TYPE.as_bytes())
}

fn tokens_in(server: &Inner, namespaces: &BTreeSet<&str>) -> BTreeSet<(String, String)> {
    let snapshot = server.store.snapshot(SECRETS);
    let tokens = snapshot.records.values().filter(|r| is_token(&r.value));
    let keys = tokens.map(|r| object::split_key(&r.key));
    keys.filter(|(namespace, _)| namespaces.contains(namespace)).map(owned).collect()
}

async fn settle(server: &Arc<Inner>, due: Due) {
    let keys: BTreeSet<(String, String)> = match due {
        Due::These(keys) => keys,
        Due::All => {
            let snapshot = server.store.snapshot(SECRETS);
            let tokens = snapshot.records.values().filter(|r| is_token(&r.value));
            tokens.map(|r| owned(object::split_key(&r.key))).collect()
        }
    };
    for (namespace, name) in keys {
        match look_after(server, &namespace, &name).await {
            Ok(()) => {}
            Err(status) if matches!(status.reason, Some(Reason::NotFound | Reason::Conflict)) => {}
            Err(error) => {
                tracing::warn!(namespace, name, error = error.message, "cannot look after a token's Secret");
            }
        }
    }
}

async fn look_after(server: &Arc<Inner>, namespace: &str, name: &str) -> Result<(), Status> {
    let Some(secret) = server.get(SECRETS, namespace, name).filter(|s| s["type"] == TYPE) else {
        return Ok(());
    };
    if !secret["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let note = |key: &str| str_at(&secret, &["metadata", "annotations", key]).filter(|t| !t.is_empty());
    let Some(account_name) = note(ACCOUNT_NAME) else { return Ok(()) };
    let account = server.get(ACCOUNTS, namespace, account_name);
    let account = account.filter(|a| note(ACCOUNT_UID).is_none_or(|uid| a["metadata"]["uid"] == uid));
    let registry = server.registry();
    let def = registry.find("", "v1", SECRETS).ok_or_else(Status::no_such_resource)?;
    let Some(account) = account else {
        let uid = str_at(&secret, &["metadata", "uid"]).map(str::to_owned);
        let deletion = Deletion { uid, ..Deletion::default() };
        return verbs::delete_object(server, def, &controller(), namespace, name, &deletion).await.map(drop);
    };
    let account_uid = str_at(&account, &["metadata", "uid"]).unwrap_or_default();
    let has = |key: &str| secret["data"][key].as_str().is_some_and(|t| !t.is_empty());
    let authority = types::encode_base64(server.config.ca_pem.as_bytes());
    if has("token")
        && has("namespace")
        && secret["data"]["ca.crt"] == authority.as_str()
        && note(ACCOUNT_UID).is_some()
    {
        return Ok(());
    }
    let token = server.config.tokens.issue_legacy(namespace, name, account_name, account_uid);
    let token = token.map_err(Status::internal)?;
    let user = controller();
    let write = writer(server, &registry, def, &user, namespace, "kube-controller-manager");
    let fill = |live: &Value| -> Result<Edited, Status> {
        let mut new = live.clone();
        let data = ensure_object(&mut new, "data");
        data["ca.crt"] = authority.as_str().into();
        for (key, value) in [("namespace", namespace), ("token", &token)] {
            if data[key].as_str().is_none_or(str::is_empty) {
                data[key] = types::encode_base64(value.as_bytes()).into();
            }
        }
        let annotations = ensure_object(ensure_object(&mut new, "metadata"), "annotations");
        annotations[ACCOUNT_NAME] = account_name.into();
        annotations[ACCOUNT_UID] = account_uid.into();
        Ok(new.into())
    };
    rewrite(&write, name, Part::Main, fill).await.map(drop)
}

fn controller() -> User {
    User::authenticated("system:serviceaccount:kube-system:token-controller", [User::MASTERS.to_owned()])
}

fn writer<'a>(
    server: &'a Inner,
    registry: &'a Arc<registry::Registry>,
    def: &'a registry::ResourceDef,
    user: &'a User,
    namespace: &'a str,
    manager: &'a str,
) -> Write<'a> {
    let options = admission::Options::default();
    Write {
        server,
        registry,
        def,
        user,
        namespace,
        subresource: "",
        dry_run: false,
        manager,
        options,
        passed: true,
    }
}

/// Notes that the token of a Secret was used today.
pub(crate) async fn used(server: &Inner, namespace: &str, name: &str) {
    let today = server.config.clock.now().strftime("%Y-%m-%d").to_string();
    let Some(secret) = server.get(SECRETS, namespace, name) else { return };
    let auto = str_at(&secret, &["metadata", "annotations", ACCOUNT_NAME])
        .and_then(|account| server.get(ACCOUNTS, namespace, account))
        .is_some_and(|a| a["secrets"].as_array().is_some_and(|s| s.iter().any(|r| r["name"] == name)));
    let key = if auto { "legacy-token-autogenerated-secret" } else { "legacy-token-manual-secret" };
    crate::audit::annotate(&format!("authentication.k8s.io/{key}"), format!("{namespace}/{name}"));
    if secret["metadata"]["labels"][LAST_USED] == today.as_str() {
        return;
    }
    let registry = server.registry();
    let Some(def) = registry.find("", "v1", SECRETS) else { return };
    let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
    let write = writer(server, &registry, def, &user, namespace, "kube-apiserver");
    let note = |live: &Value| -> Result<Edited, Status> {
        let mut new = live.clone();
        ensure_object(ensure_object(&mut new, "metadata"), "labels")[LAST_USED] = today.as_str().into();
        Ok(new.into())
    };
    if let Err(error) = Box::pin(rewrite(&write, name, Part::Main, note)).await {
        tracing::warn!(namespace, name, error = error.message, "cannot note the use of a token");
    }
}
