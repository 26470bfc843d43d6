//! Namespaces that are being deleted: everything in them goes, pods first, and then they do (kubernetes/kubernetes,
//! `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`).

mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Change, Controller, Discovered, Informer, Key, Next, PodView, discover, is_deleting};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DynamicObject, ListParams, PostParams};
use serde_json::json;

use crate::context::Context;
use crate::error::{Attempt, Error};

use status::Findings;

const FINALIZER: &str = "kubernetes";

struct State {
    ctx: Context,
    namespaces: Informer<Namespace>,
}

pub(crate) fn start(ctx: &Context) {
    let (namespaces, pods) = (ctx.informers.of::<Namespace>(), ctx.informers.of::<PodView>());
    let known = namespaces.clone();
    let controller = Controller::new("namespace")
        .watches(&namespaces, |namespace: &Namespace| [Key::of(namespace)])
        // The last pod's end is what most deletions wait for.
        .watches_changes(&pods, move |change, queue| {
            let meta = &change.object().metadata;
            let key = Key::new("", meta.namespace.as_deref().unwrap_or_default());
            if matches!(change, Change::Deleted(_))
                && known.get(&key).is_some_and(|n| is_deleting(&n.metadata))
            {
                queue.add(key);
            }
        });
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), namespaces }), look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(namespace) = state.namespaces.get(&key) else { return Ok(Next::Done) };
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
    let Some(begun) = &namespace.metadata.deletion_timestamp else { return Ok(Next::Done) };
    if !finalizers.iter().any(|f| f == FINALIZER) {
        return Ok(Next::Done);
    }
    let findings = state.empty(key.name()).await?;
    if findings.is_empty() {
        state.finalize(&namespace, finalizers).await?;
        return Ok(Next::Done);
    }
    state.write_status(&namespace, &findings).await?;
    Ok(Next::After(patience(begun.0, state.ctx.now())))
}

/// What has waited long can wait a little longer.
fn patience(begun: Timestamp, now: Timestamp) -> Duration {
    let waited = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
    (waited / 4).clamp(Duration::from_millis(50), Duration::from_secs(5))
}

impl State {
    /// Deletes everything that is in a namespace, and finds out what is left.
    async fn empty(&self, namespace: &str) -> Result<Findings, Error> {
        let client = self.ctx.client();
        let (all, silent) = discover(&client).await.attempt(|| "ask the server for its kinds".into())?;
        let mut findings = Findings { silent, ..Findings::default() };
        let (pods, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(|d| d.namespaced && d.can("delete") && d.can("list"))
            .partition(|d| d.resource.group.is_empty() && d.resource.plural == "pods");
        // Pods may still need their secrets, services and permissions on the way out.
        for kind in pods {
            self.empty_of(namespace, &kind, &mut findings).await;
        }
        if findings.remaining.is_empty() {
            for kind in others {
                self.empty_of(namespace, &kind, &mut findings).await;
            }
        }
        Ok(findings)
    }

    async fn empty_of(&self, namespace: &str, kind: &Discovered, findings: &mut Findings) {
        let resource = &kind.resource;
        let api: Api<DynamicObject> = Api::namespaced_with(self.ctx.client(), namespace, resource);
        // As upstream writes it, with a stop even where there is no group.
        let name = format!("{}.{}", resource.plural, resource.group);
        let left = match api.list_metadata(&ListParams::default()).await {
            Ok(list) => list.items,
            // The kind is gone since it was discovered.
            Err(error) if client::is_not_found(&error) => return,
            Err(error) => return findings.failures.push(format!("{name}: {}", client::message(&error))),
        };
        if left.is_empty() {
            return;
        }
        let fresh = left.iter().any(|object| !is_deleting(&object.metadata));
        if fresh && let Err(error) = self.delete_all(namespace, kind).await {
            findings.failures.push(format!("{name}: {}", client::message(&error)));
        }
        let list = api.list_metadata(&ListParams::default()).await;
        let left = list.map(|list| list.items).unwrap_or(left);
        if left.is_empty() {
            return;
        }
        findings.remaining.insert(name, left.len());
        for finalizer in left.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *findings.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// By hand: the answer can be as big as all of the objects together, and nobody reads it.
    async fn delete_all(&self, namespace: &str, kind: &Discovered) -> Result<(), kube::Error> {
        let r = &kind.resource;
        let root = if r.group.is_empty() {
            format!("/api/{}", r.version)
        } else {
            format!("/apis/{}", r.api_version)
        };
        let path = format!("{root}/namespaces/{namespace}/{}", r.plural);
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        let client = self.ctx.client();
        let delete = |path: String| {
            http::Request::delete(path)
                .header("content-type", "application/json")
                .body(body.to_string().into_bytes())
                .map_err(kube::Error::HttpError)
        };
        if kind.can("deletecollection") {
            return client.request_text(delete(path)?).await.map(drop);
        }
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, r);
        for object in api.list_metadata(&ListParams::default()).await?.items {
            let name = object.metadata.name.unwrap_or_default();
            match client.request_text(delete(format!("{path}/{name}"))?).await {
                Err(error) if !client::is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Nothing is left: lets the namespace go.
    async fn finalize(&self, namespace: &Namespace, mut finalizers: Vec<String>) -> Result<(), Error> {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        finalizers.retain(|f| f != FINALIZER);
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "resourceVersion": namespace.metadata.resource_version},
            "spec": {"finalizers": finalizers},
        });
        let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes());
        let outcome = match request {
            Ok(request) => self.ctx.client().request_text(request).await.map(drop),
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        match outcome {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.attempt(|| format!("finalize namespace {name}")),
        }
    }

    async fn write_status(&self, namespace: &Namespace, findings: &Findings) -> Result<(), Error> {
        let mut status = namespace.status.clone().unwrap_or_default();
        status.conditions =
            Some(status::conditions(status.conditions.unwrap_or_default(), findings, self.ctx.now()));
        if namespace.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let new = Namespace { status: Some(status), ..namespace.clone() };
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Namespace> = Api::all(self.ctx.client());
        match api.replace_status(name, &PostParams::default(), &new).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("write the status of namespace {name}")),
        }
    }
}

/// Counts by name, in order.
type Counts = BTreeMap<String, usize>;

#[cfg(test)]
mod tests;
