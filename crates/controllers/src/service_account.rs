//! Every namespace has a service account `default` (kubernetes/kubernetes,
//! `pkg/controller/serviceaccount/serviceaccounts_controller.go`).

use std::sync::Arc;

use client::{Change, Controller, Informer, Key, Next, is_deleting};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use crate::context::Context;
use crate::error::{Attempt, Error};

const NAME: &str = "default";

struct State {
    ctx: Context,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

pub(crate) fn start(ctx: &Context) {
    let (namespaces, accounts) = (ctx.informers.of::<Namespace>(), ctx.informers.of::<ServiceAccount>());
    let controller = Controller::new("serviceaccount")
        .watches(&namespaces, |namespace: &Namespace| [Key::of(namespace)])
        .watches_changes(&accounts, |change, queue| {
            let meta = &change.object().metadata;
            if matches!(change, Change::Deleted(_)) && meta.name.as_deref() == Some(NAME) {
                queue.add(Key::new("", meta.namespace.as_deref().unwrap_or_default()));
            }
        });
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), namespaces, accounts }), look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let namespace = key.name();
    let alive = state.namespaces.get(&key).is_some_and(|n| !is_deleting(&n.metadata));
    if !alive || state.accounts.store().by_name(namespace, NAME).is_some() {
        return Ok(Next::Done);
    }
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(NAME.into()), ..Default::default() },
        ..Default::default()
    };
    match state.ctx.api(namespace).create(&PostParams::default(), &account).await {
        Err(e) if client::is_already_exists(&e) || client::is_namespace_terminating(&e) => {}
        outcome => drop(outcome.attempt(|| format!("create service account {namespace}/{NAME}"))?),
    }
    Ok(Next::Done)
}
