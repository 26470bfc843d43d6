//! What the definition of a custom kind says of its migration (`migrationrunner.go`, `markAsActive`,
//! `finishCRDMigration`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{GroupResource, Time};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Attempt, Error};

const MIGRATING: &str = "StorageMigrating";
const MANAGER: &str = "migration-runner-controller";

/// The name that the definition of a resource has, if it has one.
pub(super) fn name(resource: &GroupResource) -> String {
    format!("{}.{}", resource.resource, resource.group)
}

/// Says that a migration of this name runs, if the resource is a custom one.
pub(super) async fn mark(ctx: &Context, resource: &GroupResource, migration: &str) -> Result<(), Error> {
    let Some(crd) = find(ctx, resource).await? else { return Ok(()) };
    let why = format!("Migration {migration} is running");
    apply(ctx, &crd, condition(ctx, &crd, true, "MigrationRunning", &why), None).await
}

/// Says how it went. If all has been written anew and the definition is what it was when that began, nothing is stored in
/// another version than the present one.
pub(super) async fn release(ctx: &Context, resource: &GroupResource, success: bool) -> Result<(), Error> {
    let Some(crd) = find(ctx, resource).await? else { return Ok(()) };
    let conditions = crd.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mark = conditions.into_iter().find(|c| c.type_ == MIGRATING);
    let same = mark.is_some_and(|c| c.observed_generation == crd.metadata.generation);
    let (reason, why) = match (success, same) {
        (false, _) => ("MigrationFailed", "The migration has failed"),
        (true, true) => {
            ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated")
        }
        (true, false) => (
            "MigrationSucceeded",
            "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
        ),
    };
    let version = crd.spec.versions.iter().find(|version| version.storage).map(|version| &version.name);
    let version = version.filter(|_| success && same);
    apply(ctx, &crd, condition(ctx, &crd, false, reason, why), version.map(String::as_str)).await
}

async fn find(ctx: &Context, resource: &GroupResource) -> Result<Option<CustomResourceDefinition>, Error> {
    let name = name(resource);
    let api: Api<CustomResourceDefinition> = Api::all(ctx.client());
    api.get_opt(&name).await.attempt(|| format!("get CustomResourceDefinition {name}"))
}

fn condition(ctx: &Context, crd: &CustomResourceDefinition, on: bool, reason: &str, why: &str) -> Value {
    json!({"type": MIGRATING, "status": if on { "True" } else { "False" }, "reason": reason, "message": why,
        "lastTransitionTime": Time(ctx.now()), "observedGeneration": crd.metadata.generation})
}

/// With the revision, for what is said is about this generation.
async fn apply(
    ctx: &Context,
    crd: &CustomResourceDefinition,
    condition: Value,
    stored: Option<&str>,
) -> Result<(), Error> {
    let name = crd.metadata.name.clone().unwrap_or_default();
    let mut status = json!({"conditions": [condition]});
    if let Some(version) = stored {
        status["storedVersions"] = json!([version]);
    }
    let patch = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"resourceVersion": crd.metadata.resource_version}, "status": status});
    let api: Api<CustomResourceDefinition> = Api::all(ctx.client());
    let written = api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await;
    written.attempt(|| format!("write the status of CustomResourceDefinition {name}")).map(drop)
}
