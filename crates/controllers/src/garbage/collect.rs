//! What is done about one object.

use std::collections::HashSet;
use std::sync::Arc;

use client::{Discovered, EventKind, Key, Next, Recorder, is_deleting};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use parking_lot::Mutex;
use serde_json::json;

use super::Shared;
use super::graph::{Observed, Uid, Wake};
use crate::error::{Attempt, Error};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// So many owners are remembered to be gone for good.
const REMEMBERED: usize = 2000;

pub(super) struct Collector {
    shared: Arc<Shared>,
    recorder: Recorder,
    /// Owners that were asked for and are not there. UIDs are never used again; but who names an owner wrongly, or from
    /// another namespace, must not make it look absent to those who name it rightly.
    absent: Mutex<HashSet<AbsentKey>>,
}

/// How an object stands to its owners.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// They are there, and stay.
    pub(super) solid: Vec<OwnerReference>,
    /// They are gone.
    pub(super) dangling: Vec<OwnerReference>,
    /// They are on their way out, and wait for their dependents.
    pub(super) waiting: Vec<OwnerReference>,
}

/// What makes a reference the same as another one: not whether it controls or blocks.
type AbsentKey = [Box<str>; 5];

fn absent_key(namespace: &str, owner: &OwnerReference) -> AbsentKey {
    [namespace, &owner.api_version, &owner.kind, &owner.name, &owner.uid].map(Box::from)
}

impl Collector {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let recorder = shared.ctx.recorder("garbage-collector-controller");
        Self { shared, recorder, absent: Mutex::default() }
    }

    pub(super) async fn look(self: Arc<Self>, key: Key) -> Result<Next, Error> {
        let outcome = match Wake::of(&key) {
            Some(Wake::Collect(uid)) => self.collect(uid).await,
            Some(Wake::Orphan(uid)) => self.orphan(uid).await,
            None => Ok(()),
        };
        outcome.map(|()| Next::Done)
    }

    fn node(&self, uid: Uid) -> Option<(Observed, Arc<Discovered>)> {
        let node = self.shared.graph.lock().node(uid).cloned()?;
        let kind = self.shared.kinds.read().all.get(&node.kind).cloned()?;
        Some((node, kind))
    }

    fn api(&self, kind: &Discovered, namespace: &str) -> Api<DynamicObject> {
        let client = self.shared.ctx.client();
        if kind.namespaced {
            Api::namespaced_with(client, namespace, &kind.resource)
        } else {
            Api::all_with(client, &kind.resource)
        }
    }

    /// The object as it is now; `None` if it is gone, whatever its name bears by now.
    async fn fresh(&self, node: &Observed, kind: &Discovered) -> Result<Option<ObjectMeta>, Error> {
        let api = self.api(kind, node.key.namespace());
        let found = api.get_metadata_opt(node.key.name()).await;
        let found = found.attempt(|| format!("look at {} {}", kind.resource.plural, node.key))?;
        Ok(found.map(|object| object.metadata).filter(|m| m.uid.as_deref() == Some(&*node.uid_text)))
    }

    /// Upstream: `attemptToDeleteItem`.
    async fn collect(&self, uid: Uid) -> Result<(), Error> {
        let Some((node, kind)) = self.node(uid) else { return Ok(()) };
        let Some(meta) = self.fresh(&node, &kind).await? else {
            // The watch will say so too, but perhaps not if it has just begun anew.
            let wakes = self.shared.graph.lock().gone(uid);
            self.shared.wake(wakes);
            return Ok(());
        };
        if is_deleting(&meta) {
            let waits = meta.finalizers.iter().flatten().any(|f| f == FOREGROUND);
            return if waits { self.finish_foreground(&node, &kind, &meta).await } else { Ok(()) };
        }
        let owners = meta.owner_references.clone().unwrap_or_default();
        if owners.is_empty() {
            return Ok(());
        }
        let standing = self.standing(&node, &kind, owners).await?;
        if !standing.solid.is_empty() {
            if standing.dangling.is_empty() && standing.waiting.is_empty() {
                return Ok(());
            }
            return self.patch(&node, &kind, &meta, json!({"ownerReferences": standing.solid})).await;
        }
        let dependents: Vec<Observed> = {
            let graph = self.shared.graph.lock();
            graph.dependents_of(uid).filter_map(|uid| graph.node(uid)).cloned().collect()
        };
        let policy = if !standing.waiting.is_empty() && !dependents.is_empty() {
            // In a circle everybody would wait for everybody.
            if dependents.iter().any(|d| d.foreground) {
                let unblocked: Vec<OwnerReference> = standing
                    .waiting
                    .into_iter()
                    .chain(standing.dangling)
                    .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner })
                    .collect();
                self.patch(&node, &kind, &meta, json!({"ownerReferences": unblocked})).await?;
            }
            PropagationPolicy::Foreground
        } else {
            let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
            match (has(ORPHAN), has(FOREGROUND)) {
                (true, _) => PropagationPolicy::Orphan,
                (_, true) => PropagationPolicy::Foreground,
                _ => PropagationPolicy::Background,
            }
        };
        self.delete(&node, &kind, policy).await
    }

    /// Which of the owners are there: each is asked for, as only its own answer counts.
    async fn standing(
        &self,
        node: &Observed,
        kind: &Discovered,
        owners: Vec<OwnerReference>,
    ) -> Result<Standing, Error> {
        let mut standing = Standing::default();
        for owner in owners {
            let named = absent_key(node.key.namespace(), &owner);
            if self.absent.lock().contains(&named) {
                standing.dangling.push(owner);
                continue;
            }
            let found = self.shared.kinds.read().find(&owner.api_version, &owner.kind);
            let Some(owner_kind) = found else {
                // Its kind may come (back): nothing is deleted on a guess.
                return Err(Error::UnknownOwner {
                    object: format!("{} {}", kind.resource.plural, node.key),
                    owner: format!("{} {} {}", owner.api_version, owner.kind, owner.name),
                });
            };
            // An object of the whole cluster cannot be owned from within a namespace: leave it alone.
            if owner_kind.namespaced && !kind.namespaced {
                self.say_misplaced(node, kind, &owner);
                standing.solid.push(owner);
                continue;
            }
            let api = self.api(&owner_kind, node.key.namespace());
            let live = api.get_metadata_opt(&owner.name).await;
            let live = live.attempt(|| format!("look at the owner {} {}", owner.kind, owner.name))?;
            match live.map(|object| object.metadata).filter(|m| m.uid.as_ref() == Some(&owner.uid)) {
                None => {
                    if owner_kind.namespaced && self.is_elsewhere(&owner_kind, &owner).await {
                        self.say_misplaced(node, kind, &owner);
                    }
                    let mut absent = self.absent.lock();
                    if absent.len() >= REMEMBERED {
                        absent.clear();
                    }
                    absent.insert(named);
                    standing.dangling.push(owner);
                }
                Some(m) if is_deleting(&m) && m.finalizers.iter().flatten().any(|f| f == FOREGROUND) => {
                    standing.waiting.push(owner);
                }
                Some(_) => standing.solid.push(owner),
            }
        }
        Ok(standing)
    }

    /// Upstream: `processDeletingDependentsItem`.
    /// Whether there is such an owner in some namespace: the watch has seen one, and the server still knows it.
    async fn is_elsewhere(&self, kind: &Discovered, owner: &OwnerReference) -> bool {
        if !self.shared.graph.lock().knows(Uid::of(&owner.uid)) {
            return false;
        }
        let everywhere: Api<DynamicObject> = Api::all_with(self.shared.ctx.client(), &kind.resource);
        let named = ListParams::default().fields(&format!("metadata.name={}", owner.name));
        let found = everywhere.list_metadata(&named).await.map(|list| list.items).unwrap_or_default();
        found.iter().any(|object| object.metadata.uid.as_ref() == Some(&owner.uid))
    }

    /// An owner cannot be in another namespace than what it owns (upstream: `reportInvalidNamespaceOwnerRef`).
    fn say_misplaced(&self, node: &Observed, kind: &Discovered, owner: &OwnerReference) {
        let OwnerReference { api_version, kind: owner_kind, name, uid, .. } = owner;
        let namespace = node.key.namespace();
        let why = format!(
            "ownerRef [{api_version}/{owner_kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace {namespace:?}"
        );
        let about = ObjectReference {
            api_version: Some(kind.resource.api_version.clone()),
            kind: Some(kind.resource.kind.clone()),
            namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            name: Some(node.key.name().to_owned()),
            uid: Some(node.uid_text.to_string()),
            ..ObjectReference::default()
        };
        self.recorder.say(about, EventKind::Warning, "OwnerRefInvalidNamespace", why);
    }

    async fn finish_foreground(
        &self,
        node: &Observed,
        kind: &Discovered,
        meta: &ObjectMeta,
    ) -> Result<(), Error> {
        let blocking = self.shared.graph.lock().blocking(node.uid);
        if blocking.is_empty() {
            return self.remove_finalizer(node, kind, meta, FOREGROUND).await;
        }
        let wakes = blocking.iter().filter(|d| !d.foreground).map(|d| Wake::Collect(d.uid)).collect();
        self.shared.wake(wakes);
        Ok(())
    }

    /// Upstream: `attemptToOrphan`.
    async fn orphan(&self, uid: Uid) -> Result<(), Error> {
        let Some((node, kind)) = self.node(uid) else { return Ok(()) };
        let Some(meta) = self.fresh(&node, &kind).await? else { return Ok(()) };
        if !is_deleting(&meta) || !meta.finalizers.iter().flatten().any(|f| f == ORPHAN) {
            return Ok(());
        }
        let dependents: Vec<Uid> = self.shared.graph.lock().dependents_of(uid).collect();
        for dependent in dependents {
            let Some((child, child_kind)) = self.node(dependent) else { continue };
            let Some(child_meta) = self.fresh(&child, &child_kind).await? else { continue };
            let mut owners = child_meta.owner_references.clone().unwrap_or_default();
            owners.retain(|owner| *owner.uid != *node.uid_text);
            self.patch(&child, &child_kind, &child_meta, json!({"ownerReferences": owners})).await?;
        }
        self.remove_finalizer(&node, &kind, &meta, ORPHAN).await
    }

    async fn remove_finalizer(
        &self,
        node: &Observed,
        kind: &Discovered,
        meta: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), Error> {
        let mut finalizers = meta.finalizers.clone().unwrap_or_default();
        finalizers.retain(|f| f != finalizer);
        self.patch(node, kind, meta, json!({"finalizers": finalizers})).await
    }

    /// Changes the metadata of an object that is still as it was seen.
    async fn patch(
        &self,
        node: &Observed,
        kind: &Discovered,
        meta: &ObjectMeta,
        mut change: serde_json::Value,
    ) -> Result<(), Error> {
        change["resourceVersion"] = json!(meta.resource_version);
        change["uid"] = json!(meta.uid);
        let api = self.api(kind, node.key.namespace());
        let patch = Patch::Merge(json!({"metadata": change}));
        match api.patch_metadata(node.key.name(), &PatchParams::default(), &patch).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("change {} {}", kind.resource.plural, node.key)),
        }
    }

    async fn delete(
        &self,
        node: &Observed,
        kind: &Discovered,
        policy: PropagationPolicy,
    ) -> Result<(), Error> {
        let only = Preconditions { uid: Some(node.uid_text.to_string()), ..Default::default() };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(only),
            ..Default::default()
        };
        match self.api(kind, node.key.namespace()).delete(node.key.name(), &params).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("delete {} {}", kind.resource.plural, node.key)),
        }
    }
}
