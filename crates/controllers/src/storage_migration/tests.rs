use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::{Cluster, object};

use super::decide::{FAILED, RUNNING, SUCCEEDED, is_true};
use crate::testing::config;

/// A cluster that has such objects, and its controllers, with no more rights than their roles give them.
async fn cluster() -> Cluster {
    let cluster = Cluster::start_serving("storagemigration.k8s.io/v1beta1=true").await;
    crate::run(&config(&cluster));
    cluster
}

fn versions(storage: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version =
        |name: &str| json!({"name": name, "served": true, "storage": name == storage, "schema": schema});
    json!([version("v1"), version("v2")])
}

async fn define(cluster: &Cluster) {
    let crd: CustomResourceDefinition = object(json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "versions": versions("v1"),
        "names": {"plural": "things", "kind": "Thing"}}}));
    cluster.create_global(&crd).await;
}

fn things(cluster: &Cluster) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Thing"));
    Api::namespaced_with(cluster.client.clone(), "default", &kind)
}

async fn migrate(cluster: &Cluster, name: &str, group: &str, resource: &str) -> StorageVersionMigration {
    let wish: StorageVersionMigration = object(json!({"metadata": {"name": name},
        "spec": {"resource": {"group": group, "resource": resource}}}));
    cluster.create_global(&wish).await;
    let over = |m: &StorageVersionMigration| is_true(m, SUCCEEDED) || is_true(m, FAILED);
    let api: Api<StorageVersionMigration> = cluster.all();
    let found = || async { api.get(name).await.ok().filter(|m| over(m)) };
    cluster.wait_for(&format!("{name} to be over"), found).await
}

fn condition(migration: &StorageVersionMigration, kind: &str) -> (String, String, String) {
    let conditions = migration.status.as_ref().and_then(|s| s.conditions.as_ref()).unwrap();
    let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[tokio::test]
async fn objects_are_stored_in_the_new_version_and_the_old_one_can_go() {
    let cluster = cluster().await;
    define(&cluster).await;
    let api = things(&cluster);
    for name in ["a", "b"] {
        let thing: DynamicObject = object(json!({"apiVersion": "example.com/v1", "kind": "Thing",
            "metadata": {"name": name}, "spec": {"size": 3}}));
        api.create(&PostParams::default(), &thing).await.unwrap();
    }
    let crds: Api<CustomResourceDefinition> = cluster.all();
    let change = Patch::Merge(json!({"spec": {"versions": versions("v2")}}));
    let crd = crds.patch("things.example.com", &PatchParams::default(), &change).await.unwrap();
    assert_eq!(crd.status.unwrap().stored_versions.unwrap(), ["v1", "v2"]);
    let before = api.get("a").await.unwrap();
    let done = migrate(&cluster, "m", "example.com", "things").await;
    assert_eq!(
        condition(&done, SUCCEEDED),
        ("True".into(), "StorageVersionMigrationSucceeded".into(), "".into())
    );
    assert_eq!(condition(&done, RUNNING).1, "MigrationCompleted");
    assert!(done.status.unwrap().resource_version.unwrap().parse::<u64>().is_ok());
    let crd = crds.get("things.example.com").await.unwrap();
    let status = crd.status.unwrap();
    assert_eq!(status.stored_versions.unwrap(), ["v2"]);
    let conditions = status.conditions.unwrap();
    let said = conditions.iter().find(|c| c.type_ == "StorageMigrating").unwrap();
    assert_eq!((said.status.as_str(), said.reason.as_deref()), ("False", Some("MigrationSucceeded")));
    assert_eq!(said.observed_generation, Some(2));
    // Written once, and nothing else of it has changed.
    let after = api.get("a").await.unwrap();
    assert_ne!(after.metadata.resource_version, before.metadata.resource_version);
    assert_eq!(
        (&after.data, &after.metadata.managed_fields),
        (&before.data, &before.metadata.managed_fields)
    );
    // What is stored as it should be is not written.
    migrate(&cluster, "again", "example.com", "things").await;
    assert_eq!(api.get("a").await.unwrap().metadata.resource_version, after.metadata.resource_version);
    // The old version can go.
    let only = json!([versions("v2")[1]]);
    let change = Patch::Merge(json!({"spec": {"versions": only}}));
    crds.patch("things.example.com", &PatchParams::default(), &change).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_cannot_be_migrated() {
    let cluster = cluster().await;
    let done = migrate(&cluster, "m", "example.com", "things").await;
    let why = "resource does not exist in discovery";
    assert_eq!(condition(&done, FAILED), ("True".into(), "StorageVersionMigrationFailed".into(), why.into()));
    let maps: Api<ConfigMap> = cluster.api("default");
    maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "c"}}))).await.unwrap();
    let before = maps.get("c").await.unwrap();
    let done = migrate(&cluster, "maps", "", "configmaps").await;
    assert!(is_true(&done, SUCCEEDED), "{done:?}");
    assert_eq!(maps.get("c").await.unwrap(), before);
}

#[tokio::test]
async fn a_migration_keeps_what_it_is_about() {
    let cluster = cluster().await;
    migrate(&cluster, "m", "", "configmaps").await;
    let api: Api<StorageVersionMigration> = cluster.all();
    let change = Patch::Merge(json!({"spec": {"resource": {"resource": "secrets"}}}));
    let error = api.patch("m", &PatchParams::default(), &change).await.unwrap_err().to_string();
    assert!(error.contains("resource: Invalid value: \"secrets\": field is immutable"), "{error}");
    let change = Patch::Merge(json!({"status": {"resourceVersion": "7"}}));
    let error = api.patch_status("m", &PatchParams::default(), &change).await.unwrap_err().to_string();
    assert!(error.contains("status.resourceVersion: Invalid value: \"7\": cannot be updated"), "{error}");
    let none: StorageVersionMigration =
        object(json!({"metadata": {"name": "n"}, "spec": {"resource": {"group": "", "resource": ""}}}));
    let error = api.create(&PostParams::default(), &none).await.unwrap_err().to_string();
    assert!(error.contains("spec.resource.resource: Required value: resource is required"), "{error}");
}
