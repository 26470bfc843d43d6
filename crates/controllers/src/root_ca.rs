//! Every namespace has the authority's certificate, so that pods can check whom they talk to
//! (kubernetes/kubernetes, `pkg/controller/certificates/rootcacertpublisher/publisher.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Controller, Informer, Key, Next, Selection, is_deleting};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::context::Context;
use crate::error::{Attempt, Error};

const NAME: &str = "kube-root-ca.crt";
const ABOUT: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

struct State {
    ctx: Context,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    data: BTreeMap<String, String>,
}

pub(crate) fn start(ctx: &Context, ca_pem: &str) {
    let namespaces = ctx.informers.of::<Namespace>();
    let maps = ctx.informers.select::<ConfigMap>(Selection::fields(format!("metadata.name={NAME}")));
    let controller = Controller::new("root-ca-certificate-publisher")
        .watches(&namespaces, |namespace: &Namespace| [Key::of(namespace)])
        .watches(&maps, |map: &ConfigMap| {
            [Key::new("", map.metadata.namespace.as_deref().unwrap_or_default())]
        });
    let data = BTreeMap::from([("ca.crt".to_owned(), ca_pem.to_owned())]);
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), namespaces, maps, data }), look);
}

fn is_described(map: &ConfigMap) -> bool {
    map.metadata.annotations.as_ref().and_then(|all| all.get(ABOUT.0)).is_some_and(|text| !text.is_empty())
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let namespace = key.name();
    if state.namespaces.get(&key).is_none_or(|n| is_deleting(&n.metadata)) {
        return Ok(Next::Done);
    }
    let begun = tokio::time::Instant::now();
    let api = state.ctx.api::<ConfigMap>(namespace);
    let outcome = match state.maps.store().by_name(namespace, NAME) {
        Some(map) if map.data.as_ref() == Some(&state.data) && is_described(&map) => {
            crate::metrics::root_ca(200, begun.elapsed());
            return Ok(Next::Done);
        }
        Some(map) => {
            // Keys that do not belong there go.
            let mut data = json!(state.data);
            for key in
                map.data.iter().flatten().map(|(key, _)| key).filter(|key| !state.data.contains_key(*key))
            {
                data[key] = serde_json::Value::Null;
            }
            let mut change = json!({"data": data});
            if !is_described(&map) {
                change["metadata"]["annotations"][ABOUT.0] = ABOUT.1.into();
            }
            let patch = Patch::Merge(change);
            api.patch(NAME, &PatchParams::default(), &patch).await
        }
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    annotations: Some(BTreeMap::from([(ABOUT.0.into(), ABOUT.1.into())])),
                    ..Default::default()
                },
                data: Some(state.data.clone()),
                ..Default::default()
            };
            api.create(&PostParams::default(), &map).await
        }
    };
    let code = match &outcome {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(_) => 500,
    };
    crate::metrics::root_ca(code, begun.elapsed());
    match outcome {
        Err(e) if client::is_already_exists(&e) || client::is_namespace_terminating(&e) => {}
        outcome => drop(outcome.attempt(|| format!("publish the root certificate in {namespace}"))?),
    }
    Ok(Next::Done)
}
