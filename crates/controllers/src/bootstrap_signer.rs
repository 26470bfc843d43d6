//! What everybody may read of the cluster is signed with each bootstrap token, so that whoever has a token knows that it is
//! the right cluster (kubernetes/kubernetes, `pkg/controller/bootstrap/bootstrapsigner.go`, `jws.go`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Controller, Informer, Key, Next, Selection};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::PostParams;
use ring::hmac;
use types::encode_base64;

use crate::context::Context;
use crate::error::{Attempt, Error};
use crate::token_cleaner::{NAMESPACE, TYPE, remaining};

/// Where the ConfigMap is, if somebody has made it.
const PLACE: (&str, &str) = ("kube-public", "cluster-info");
/// What is signed of it.
const CONTENT: &str = "kubeconfig";
/// Before a token's id, the name of its signature.
const SIGNATURE: &str = "jws-kubeconfig-";

struct State {
    ctx: Context,
    maps: Informer<ConfigMap>,
    tokens: Informer<Secret>,
}

pub(crate) fn start(ctx: &Context) {
    let place = format!("metadata.namespace={},metadata.name={}", PLACE.0, PLACE.1);
    let maps = ctx.informers.select::<ConfigMap>(Selection::fields(place));
    let tokens = ctx.informers.select::<Secret>(Selection::fields(format!("type={TYPE}")));
    let only = || [Key::new(PLACE.0, PLACE.1)];
    let controller = Controller::new("bootstrap_signer_queue")
        .watches(&maps, move |_: &ConfigMap| only())
        .watches(&tokens, move |_: &Secret| only());
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), maps, tokens }), look);
}

/// A token's id and secret, if it may sign; and for how long it still may, if that has an end.
fn token(secret: &Secret, now: Timestamp) -> Option<(String, String, Option<Duration>)> {
    let field = |name: &str| String::from_utf8(secret.data.as_ref()?.get(name)?.0.clone()).ok();
    let (id, key) = (field("token-id")?, field("token-secret").filter(|key| !key.is_empty())?);
    let is_it = secret.metadata.namespace.as_deref() == Some(NAMESPACE)
        && !id.is_empty()
        && secret.name_any() == format!("bootstrap-token-{id}")
        && field("usage-bootstrap-signing").as_deref() == Some("true");
    let left = remaining(secret, now);
    (is_it && left.is_none_or(|left| !left.is_zero())).then_some((id, key, left))
}

/// A signature (JWS, HS256) that leaves out what it signs.
fn sign(content: &str, id: &str, key: &str) -> String {
    let part = |bytes: &[u8]| encode_base64(bytes).replace('+', "-").replace('/', "_").replace('=', "");
    let header = part(format!("{{\"alg\":\"HS256\",\"kid\":{}}}", serde_json::json!(id)).as_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, format!("{header}.{}", part(content.as_bytes())).as_bytes());
    format!("{header}..{}", part(signature.as_ref()))
}

/// The data with the signatures of these tokens, and of no others.
fn signed<'a>(
    data: &BTreeMap<String, String>,
    tokens: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<BTreeMap<String, String>> {
    let content = data.get(CONTENT)?;
    let mut new = data.clone();
    new.retain(|name, _| !name.starts_with(SIGNATURE));
    new.extend(tokens.map(|(id, key)| (format!("{SIGNATURE}{id}"), sign(content, id, key))));
    Some(new)
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(map) = state.maps.get(&key) else { return Ok(Next::Done) };
    let now = state.ctx.now();
    let tokens: Vec<_> = state.tokens.store().list().iter().filter_map(|s| token(s, now)).collect();
    let data = map.data.clone().unwrap_or_default();
    let wanted = signed(&data, tokens.iter().map(|(id, key, _)| (id.as_str(), key.as_str())));
    if let Some(wanted) = wanted.filter(|wanted| *wanted != data) {
        let new = ConfigMap { data: Some(wanted), ..ConfigMap::clone(&map) };
        match state.ctx.api::<ConfigMap>(PLACE.0).replace(PLACE.1, &PostParams::default(), &new).await {
            // What came between wakes us.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
            outcome => drop(outcome.attempt(|| format!("sign {key}"))?),
        }
    }
    Ok(tokens.into_iter().filter_map(|(_, _, left)| left).min().map_or(Next::Done, Next::After))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::cluster;

    #[test]
    fn a_signature_is_as_kubeadm_expects_it() {
        let content = "Hello from the other side. I must have called a thousand times.";
        assert_eq!(
            sign(content, "joshua", "my voice is my passcode"),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }

    #[tokio::test]
    async fn what_may_be_read_by_all_is_signed_with_each_token() {
        let cluster = cluster().await;
        let token = |id: &str, signing: &str| -> Secret {
            testkit::object(json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": TYPE,
                "stringData": {"token-id": id, "token-secret": "0123456789abcdef",
                    "usage-bootstrap-signing": signing}}))
        };
        cluster.create(NAMESPACE, &token("abcdef", "true")).await;
        cluster.create(NAMESPACE, &token("silent", "false")).await;
        let info: ConfigMap = testkit::object(json!({"metadata": {"name": PLACE.1},
            "data": {CONTENT: "the cluster", "jws-kubeconfig-former": "x..y"}}));
        cluster.create(PLACE.0, &info).await;
        let names = |map: &ConfigMap| map.data.clone().unwrap_or_default().into_keys().collect::<Vec<_>>();
        let both = ["jws-kubeconfig-abcdef", CONTENT];
        let map =
            cluster.wait_until::<ConfigMap>(PLACE.0, PLACE.1, "to be signed", |m| names(m) == both).await;
        assert_eq!(map.data.unwrap()[both[0]], sign("the cluster", "abcdef", "0123456789abcdef"));
        let secrets = cluster.api::<Secret>(NAMESPACE);
        secrets.delete("bootstrap-token-abcdef", &kube::api::DeleteParams::default()).await.unwrap();
        cluster.wait_until::<ConfigMap>(PLACE.0, PLACE.1, "to lose it", |m| names(m) == [CONTENT]).await;
    }
}
