//! Bootstrap tokens go when their time is over (kubernetes/kubernetes, `pkg/controller/bootstrap/tokencleaner.go`).

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Controller, Informer, Key, Next, Selection, is_deleting};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Preconditions};

use crate::context::Context;
use crate::error::{Attempt, Error};

pub(crate) const TYPE: &str = "bootstrap.kubernetes.io/token";
pub(crate) const NAMESPACE: &str = "kube-system";
const EXPIRATION: &str = "expiration";

struct State {
    ctx: Context,
    tokens: Informer<Secret>,
}

pub(crate) fn start(ctx: &Context) {
    let tokens = ctx.informers.select::<Secret>(Selection::fields(format!("type={TYPE}")));
    let controller = Controller::new("token-cleaner").watches(&tokens, |token: &Secret| {
        (token.metadata.namespace.as_deref() == Some(NAMESPACE)).then(|| Key::of(token))
    });
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), tokens }), look);
}

/// How long a token is still good; `None` if that is for ever. A time that cannot be read is over.
pub(crate) fn remaining(token: &Secret, now: Timestamp) -> Option<Duration> {
    let text = token.data.as_ref()?.get(EXPIRATION).filter(|text| !text.0.is_empty())?;
    let end = std::str::from_utf8(&text.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
    Some(end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()).unwrap_or(Duration::ZERO))
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(token) = state.tokens.get(&key).filter(|token| !is_deleting(&token.metadata)) else {
        return Ok(Next::Done);
    };
    match remaining(&token, state.ctx.now()) {
        None => return Ok(Next::Done),
        Some(left) if !left.is_zero() => return Ok(Next::After(left)),
        Some(_) => {}
    }
    // Somebody may have given it a longer life, and the cache not show it yet.
    let only = Preconditions {
        uid: token.metadata.uid.clone(),
        resource_version: token.metadata.resource_version.clone(),
    };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    match state.ctx.api::<Secret>(NAMESPACE).delete(key.name(), &params).await {
        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(Next::Done),
        outcome => outcome.map(|_| Next::Done).attempt(|| format!("delete the bootstrap token {key}")),
    }
}

#[cfg(test)]
mod tests {
    use base::ManualClock;
    use kube::api::{Patch, PatchParams};
    use serde_json::json;

    use super::*;
    use crate::testing::cluster_at;

    #[tokio::test]
    async fn a_token_goes_when_its_time_is_over() {
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let cluster = cluster_at(clock.clone()).await;
        let token = |name: &str, expiration: Option<&str>| -> Secret {
            let id = name.trim_start_matches("bootstrap-token-");
            let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef"});
            if let Some(expiration) = expiration {
                data[EXPIRATION] = expiration.into();
            }
            testkit::object(json!({"metadata": {"name": name}, "type": TYPE, "stringData": data}))
        };
        for (name, expiration) in [
            ("bootstrap-token-aaaaaa", Some("2026-01-01T00:10:00Z")),
            ("bootstrap-token-bbbbbb", Some("2025-12-31T23:59:59Z")),
            ("bootstrap-token-cccccc", Some("tomorrow")),
            ("bootstrap-token-dddddd", None),
        ] {
            cluster.create(NAMESPACE, &token(name, expiration)).await;
        }
        cluster.wait_gone::<Secret>(NAMESPACE, "bootstrap-token-bbbbbb").await;
        cluster.wait_gone::<Secret>(NAMESPACE, "bootstrap-token-cccccc").await;
        let api = cluster.api::<Secret>(NAMESPACE);
        assert!(api.get_opt("bootstrap-token-aaaaaa").await.unwrap().is_some());

        clock.advance(Duration::from_secs(601));
        // Whatever happens to it makes the controller look.
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}}));
        api.patch("bootstrap-token-aaaaaa", &PatchParams::default(), &touch).await.unwrap();
        cluster.wait_gone::<Secret>(NAMESPACE, "bootstrap-token-aaaaaa").await;
        assert!(api.get_opt("bootstrap-token-dddddd").await.unwrap().is_some(), "it is good for ever");
    }
}
