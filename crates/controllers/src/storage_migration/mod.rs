//! Objects are written anew so that they are stored as they would be today: in the present storage version of their kind,
//! and encrypted with the present key (kubernetes/kubernetes, `pkg/controller/storageversionmigrator`).
//!
//! ```text
//! asked ─► Running: one for each resource, the oldest first ─► each object written anew ─► Succeeded
//!    └► Failed: there is no such resource                       └► one cannot be: Failed
//! ```
//!
//! While it runs, a custom kind's definition says so (`StorageMigrating`), and afterwards forgets the versions in which
//! nothing is stored any more. The kind is off unless `--runtime-config=storagemigration.k8s.io/v1beta1=true`.

mod decide;
mod definition;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Controller, Discovered, Informer, Key, Next, discover, is_served, message};
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::error::{Attempt, Error};
use decide::{Turn, decide, with_condition};

/// As upstream's controller is called, and the manager of what it applies (`cmd/kube-controller-manager/names`).
const NAME: &str = "storage-version-migrator-controller";
/// So many objects are asked for at once.
const PAGE: u32 = 500;

const SUCCEEDED: &str = "StorageVersionMigrationSucceeded";
const FAILED: &str = "StorageVersionMigrationFailed";

struct State {
    ctx: Context,
    migrations: Informer<StorageVersionMigration>,
}

/// Migrates, if the server has such objects.
pub(crate) fn start(ctx: &Context) {
    let (ctx, drain) = (ctx.clone(), ctx.drain.clone());
    drain.spawn_until_started(async move {
        if !is_served::<StorageVersionMigration>(&ctx.client()).await {
            return;
        }
        let migrations = ctx.informers.of::<StorageVersionMigration>();
        let all = migrations.clone();
        let controller =
            Controller::new("storage-version-migrator").watches_changes(&migrations, move |change, queue| {
                queue.add(Key::of(&**change.object()));
                // One that ends makes room for the next.
                all.store().keys().into_iter().for_each(|key| queue.add(key));
            });
        let state = Arc::new(State { ctx: ctx.clone(), migrations });
        controller.run(ctx.drain.clone(), move |key| look(state.clone(), key)).await;
    });
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(known) = state.migrations.get(&key) else { return Ok(Next::Done) };
    let all = state.migrations.store().list();
    let turn = decide(&known, &all);
    if matches!(turn, Turn::Over | Turn::Wait) {
        return Ok(Next::Done);
    }
    let resource = &known.spec.as_ref().map(|spec| spec.resource.clone()).unwrap_or_default();
    let name = definition::name(resource);
    let known_kinds = discover(&state.ctx.client()).await;
    let (found, silent) = known_kinds.attempt(|| format!("ask the server for {name}"))?;
    let kind = found
        .into_iter()
        .find(|kind| kind.resource.group == resource.group && kind.resource.plural == resource.resource);
    let Some(kind) = kind else {
        if silent.iter().any(|version| version.split('/').next() == Some(&resource.group)) {
            return Err(Error::NoAnswer { resource: name });
        }
        state.finish(&known, Err("resource does not exist in discovery".into())).await?;
        return Ok(Next::Done);
    };
    let running = match turn {
        Turn::Begin => state.begin(&known, &kind).await?,
        _ => (*known).clone(),
    };
    let outcome = state.rewrite(&kind).await?;
    state.finish(&running, outcome).await?;
    Ok(Next::Done)
}

impl State {
    fn api(&self) -> Api<StorageVersionMigration> {
        Api::all(self.ctx.client())
    }

    async fn write(&self, migration: StorageVersionMigration) -> Result<StorageVersionMigration, Error> {
        let name = migration.name_any();
        let written = self.api().replace_status(&name, &PostParams::default(), &migration).await;
        written.attempt(|| format!("write the status of StorageVersionMigration {name:?}"))
    }

    /// Says that a migration runs, first in the definition of a custom kind, and from which moment on (`markAsActive`,
    /// `getLatestResourceVersion`).
    async fn begin(
        &self,
        migration: &StorageVersionMigration,
        kind: &Discovered,
    ) -> Result<StorageVersionMigration, Error> {
        let resource = &migration.spec.as_ref().map(|spec| spec.resource.clone()).unwrap_or_default();
        definition::mark(&self.ctx, resource, &migration.name_any()).await?;
        let list = self.page(kind, &ListParams::default().limit(1)).await?;
        let why = "The migration is running";
        let mut new = with_condition(migration, decide::RUNNING, "MigrationRunning", why, self.ctx.now());
        new.status.get_or_insert_default().resource_version = list.metadata.resource_version;
        self.write(new).await
    }

    async fn page(
        &self,
        kind: &Discovered,
        params: &ListParams,
    ) -> Result<kube::api::ObjectList<kube::api::PartialObjectMeta<DynamicObject>>, Error> {
        let api = Api::<DynamicObject>::all_with(self.ctx.client(), &kind.resource);
        api.list_metadata(params).await.attempt(|| format!("list {}", kind.resource.plural))
    }

    /// Writes all objects of a kind as they are. Gives why that cannot be, if it is nothing that passes.
    async fn rewrite(&self, kind: &Discovered) -> Result<Result<(), String>, Error> {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.page(kind, &params).await?;
            for object in &page.items {
                if let Err(why) = self.rewrite_one(kind, &object.metadata).await? {
                    return Ok(Err(why));
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Ok(())),
            }
        }
    }

    /// An apply of nothing writes an object anew if it would be stored differently. With the UID, one that is gone is not
    /// made again; with the revision, one that was written since is left alone.
    async fn rewrite_one(&self, kind: &Discovered, meta: &ObjectMeta) -> Result<Result<(), String>, Error> {
        let (client, resource) = (self.ctx.client(), &kind.resource);
        let api: Api<DynamicObject> = match meta.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        };
        let name = meta.name.clone().unwrap_or_default();
        let nothing = json!({"apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}});
        match api.patch_metadata(&name, &PatchParams::apply(NAME), &Patch::Apply(nothing)).await {
            Ok(_) => Ok(Ok(())),
            // Written, deleted or made again since: it is stored as it should be.
            Err(error) if client::is_conflict(&error) || client::is_not_found(&error) => Ok(Ok(())),
            Err(error) if decide::passes(&error) => {
                Err(error).attempt(|| format!("write {} {name:?} anew", resource.plural))
            }
            Err(error) => {
                let why = message(&error);
                tracing::warn!(kind = resource.plural, name, error = why, "an object cannot be migrated");
                Ok(Err("migration encountered unhandled error".to_owned()))
            }
        }
    }

    /// Says how a migration went; the definition of a custom kind hears of it first (`cleanupCRD`).
    async fn finish(
        &self,
        migration: &StorageVersionMigration,
        outcome: Result<(), String>,
    ) -> Result<(), Error> {
        let resource = &migration.spec.as_ref().map(|spec| spec.resource.clone()).unwrap_or_default();
        if decide::is_true(migration, decide::RUNNING) {
            definition::release(&self.ctx, resource, outcome.is_ok()).await?;
        }
        let (kind, reason, why) = match outcome {
            Ok(()) => (decide::SUCCEEDED, SUCCEEDED, String::new()),
            Err(why) => (decide::FAILED, FAILED, why),
        };
        let now = self.ctx.now();
        self.write(decide::ended(&with_condition(migration, kind, reason, &why, now), now)).await.map(drop)
    }
}
